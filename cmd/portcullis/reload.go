package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"portcullis/internal/cmdline"
	"portcullis/internal/control"
)

// runReload has the daemon take over what has changed in its configuration. Where it cannot,
// nothing has changed.
func runReload(ctx context.Context, call *cmdline.Call) error {
	quiet := *call
	quiet.Err = io.Discard // what is wrong with the file the daemon says
	daemon, err := daemonOf(&quiet)
	if err != nil {
		return err
	}
	done, err := daemon.Reload(ctx)
	if err != nil {
		return err
	}
	if call.Has("json") {
		return printJSON(call.Out, done)
	}
	return printReloaded(call.Out, done)
}

func printReloaded(w io.Writer, r control.Reloaded) error {
	lines := make([]string, 0, len(r.Revoked)+2)
	switch {
	case len(r.Changed) > 0:
		lines = append(lines, "reloaded: "+strings.Join(r.Changed, ", "))
	case len(r.Restart) > 0:
		lines = append(lines, "nothing that a running daemon takes over has changed")
	default:
		lines = append(lines, "reloaded; nothing has changed")
	}
	for _, m := range r.Revoked {
		lines = append(lines, fmt.Sprintf("closed %s (%s): %s", place(&m.Mapping), printable(m.Description), printable(m.Why)))
	}
	if len(r.Restart) > 0 {
		lines = append(lines, "only after a restart: "+strings.Join(r.Restart, ", "))
	}
	_, err := fmt.Fprintln(w, strings.Join(lines, "\n"))
	return err
}
