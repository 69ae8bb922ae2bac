package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"

	"portcullis/config"
	"portcullis/internal/cmdline"
	"portcullis/internal/daemon"
	"portcullis/internal/wiring"
	"portcullis/policy"
)

// defaultConfig is read when it is there and --config is not given.
const defaultConfig = "/etc/portcullis/portcullis.toml"

// loadConfig reads the configuration, and prints from where. A file that was
// named must be there; without the default file, the defaults apply.
func loadConfig(path string) (config.Config, string, error) {
	c, s, err := loadSource(path)
	return c, cmp.Or(s.File, "no configuration file; using defaults"), err
}

// loadSource is loadConfig for who has to say which file it was.
func loadSource(path string) (config.Config, daemon.Source, error) {
	file := cmp.Or(path, defaultConfig)
	c, sum, err := config.LoadSum(file)
	if path == "" && errors.Is(err, fs.ErrNotExist) {
		return config.Default(), daemon.Source{}, nil
	}
	return c, daemon.Source{File: file, Sum: sum}, err
}

func runCheck(_ context.Context, call *cmdline.Call) error {
	c, from, err := loadConfig(call.Given["config"])
	if err != nil {
		return err
	}
	if _, err := policy.New(wiring.Policy(c)); err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	_, err = fmt.Fprintf(call.Out, "# %s\n%s", from, config.Effective(c))
	return err
}
