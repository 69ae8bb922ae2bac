package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"portcullis/config"
	"portcullis/internal/cmdline"
	"portcullis/internal/wiring"
	"portcullis/policy"
)

// defaultConfig is read when it is there and --config is not given.
const defaultConfig = "/etc/portcullis/portcullis.toml"

// loadConfig reads the configuration, and prints from where. A file that was
// named must be there; without the default file, the defaults apply.
func loadConfig(path string) (config.Config, string, error) {
	if path != "" {
		c, err := config.Load(path)
		return c, path, err
	}
	c, err := config.Load(defaultConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return config.Default(), "no configuration file; using defaults", nil
	}
	return c, defaultConfig, err
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
