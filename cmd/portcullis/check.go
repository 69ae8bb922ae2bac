package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"portcullis/config"
	"portcullis/internal/check"
	"portcullis/internal/cmdline"
	"portcullis/internal/daemon"
	"portcullis/internal/wiring"
	"portcullis/policy"
)

// defaultConfig is read when it is there and --config is not given.
const defaultConfig = "/etc/portcullis/portcullis.toml"

// loadSource reads the configuration, and returns from where. A file that was named must be
// there; without the default file, the defaults apply.
func loadSource(path string) (config.Config, daemon.Source, error) {
	file := cmp.Or(path, defaultConfig)
	c, sum, err := config.LoadSum(file)
	source := daemon.Source{File: file, Sum: sum}
	if path == "" && errors.Is(err, fs.ErrNotExist) {
		c, source, err = config.Default(), daemon.Source{}, nil
	}
	c.Control.Socket = placed(c.Control.Socket)
	return c, source, err
}

// loadLines is loadSource for who has to say where in the file something stands.
func loadLines(path string) (config.Config, config.Lines, string, error) {
	c, lines, err := config.LoadLines(cmp.Or(path, defaultConfig))
	if path == "" && errors.Is(err, fs.ErrNotExist) {
		return config.Default(), lines, "no configuration file; using defaults", nil
	}
	return c, lines, cmp.Or(path, defaultConfig), err
}

// checked is what check --json prints.
type checked struct {
	File     string          `json:"file"` // or that there is none
	Errors   []fault         `json:"errors"`
	Warnings []check.Warning `json:"warnings"`
	Live     *check.Live     `json:"live,omitempty"`
}

// fault is an error of the file, at a line from 1, or of the machine, at none.
type fault struct {
	Line int    `json:"line,omitempty"`
	What string `json:"what"`
}

// runCheck prints what the configuration is, and what in it cannot work here.
func runCheck(ctx context.Context, call *cmdline.Call) error {
	c, lines, from, err := loadLines(call.Given["config"])
	if err == nil {
		_, err = policy.New(wiring.Policy(c))
	}
	all := checked{File: from, Errors: []fault{}, Warnings: []check.Warning{}}
	if err == nil {
		err = all.look(ctx, c, lines, call.Has("live"))
	}
	if call.Has("json") {
		return all.json(call.Out, err)
	}
	var text string
	switch {
	case all.Live != nil:
		text = preview(from, all.Live)
	case err == nil:
		text = fmt.Sprintf("# %s\n%s", from, config.Effective(c))
	}
	if _, e := io.WriteString(call.Out, text); e != nil {
		return e
	}
	for _, w := range all.Warnings {
		text := fmt.Sprintf("%s:%d: warning: %s", from, w.Line, w.What)
		if w.Remedy != "" {
			text += "; " + w.Remedy
		}
		if _, e := fmt.Fprintln(call.Err, text); e != nil {
			return e
		}
	}
	return err
}

// look finds what cannot work on this machine, and what would be served on it.
func (all *checked) look(ctx context.Context, c config.Config, lines config.Lines, live bool) error {
	m, state, err := check.Look(ctx, c)
	if err != nil {
		return err
	}
	all.Warnings = append(all.Warnings, check.Judge(c, lines, m)...)
	if live {
		var l check.Live
		l, err = check.Preview(ctx, c, lines, state)
		all.Live = &l
	}
	return err
}

// json prints one object, the errors of err in it.
func (all *checked) json(w io.Writer, err error) error {
	var of config.Errors
	switch {
	case errors.As(err, &of):
		for _, e := range of {
			all.Errors = append(all.Errors, fault{e.Line, e.Text})
		}
	case err != nil:
		all.Errors = append(all.Errors, fault{What: err.Error()})
	}
	if e := printJSON(w, all); e != nil {
		return e
	}
	if err != nil {
		return errStops
	}
	return nil
}

// preview is what the daemon would do, for people.
func preview(from string, l *check.Live) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s: what would be served now\n", from)
	for _, c := range l.Choices {
		b.WriteString(c.What)
		if c.Line > 0 {
			fmt.Fprintf(&b, " (%s:%d)", from, c.Line)
		}
		b.WriteByte('\n')
	}
	for _, lan := range l.LAN {
		fmt.Fprintf(&b, "on %s, hosts of %s may ask for ports\n", lan.Interface, strings.Join(lan.Prefixes, ", "))
	}
	for _, w := range l.Warnings {
		b.WriteString("warning: " + w + "\n")
	}
	return b.String()
}
