package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"portcullis/config"
	"portcullis/internal/cmdline"
	"portcullis/internal/doctor"
)

// errStops makes doctor's exit code; what stops a mapping has been printed.
var errStops = errors.New("something would keep mappings from working")

// errNotRoot is all that doctor says to who could learn wrong things only.
var errNotRoot = errors.New("doctor needs root: it asks the daemon, and copies the rules of the firewall")

// runDoctor looks at the machine, changes nothing, and prints what is wrong and what
// to do about it.
func runDoctor(ctx context.Context, call *cmdline.Call) error {
	if os.Geteuid() != 0 {
		return errNotRoot
	}
	var facts doctor.Facts
	c, source, err := loadSource(call.Given["config"])
	called := doctor.Called{Config: c, Err: err, File: source.File, Option: withConfig(call), Socket: string(c.Control.Socket)}
	if err != nil {
		called.Socket = string(placed(config.SocketIn(source.File)))
	}
	if err := doctor.Examine(ctx, called, &facts); err != nil {
		return err
	}
	found := doctor.Judge(&facts)
	if err := report(call.Out, found, call.Has("json")); err != nil {
		return err
	}
	if doctor.Stops(found) {
		return errStops
	}
	return nil
}

func report(w io.Writer, found []doctor.Finding, asJSON bool) error {
	if asJSON {
		return printJSON(w, struct {
			OK       bool             `json:"ok"`
			Findings []doctor.Finding `json:"findings"`
		}{!doctor.Stops(found), found})
	}
	for _, x := range found {
		if _, err := fmt.Fprintf(w, "%-8s %s\n", x.Level, printable(x.What)); err != nil {
			return err
		}
		if x.Remedy != "" {
			if _, err := fmt.Fprintf(w, "         -> %s\n", strings.ReplaceAll(x.Remedy, "\n", "\n            ")); err != nil {
				return err
			}
		}
	}
	return nil
}
