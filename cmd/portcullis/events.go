package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"portcullis/internal/cmdline"
	"portcullis/internal/control"
	"portcullis/internal/json"
)

// runEvents prints what happens from now on, until it is interrupted.
func runEvents(ctx context.Context, call *cmdline.Call) error {
	daemon, err := daemonOf(call)
	if err != nil {
		return err
	}
	err = daemon.Events(ctx, func(e control.Event) error {
		if call.Has("json") {
			text, err := json.Marshal(e)
			if err != nil {
				return err
			}
			return writeJSON(call.Out, text)
		}
		_, err := fmt.Fprintln(call.Out, eventLine(&e))
		return err
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// eventLine is an event as a person reads it.
func eventLine(e *control.Event) string {
	parts := []string{clock(e.Time)}
	m := e.Mapping
	switch {
	case e.Event == "resync":
		return parts[0] + "  some events are missing: they came faster than they were read"
	case m == nil:
		return strings.Join(append(parts, e.Event, printable(e.Why)), "  ")
	case e.Approval != nil:
		return strings.Join(append(parts, fmt.Sprintf("%-9s", e.Event), answerLine(e.Approval)), "  ")
	}
	parts = append(parts, fmt.Sprintf("%-9s", e.Event), fmt.Sprintf("%s %d to %s", m.Protocol, m.ExternalPort, target(m)))
	if e.Client.Host != "" {
		parts = append(parts, printable(e.Client.Host))
	}
	parts = append(parts, "by "+m.Via)
	if m.Description != "" {
		parts = append(parts, "("+printable(m.Description)+")")
	}
	if e.Pending != 0 {
		parts = append(parts, fmt.Sprintf("portcullis approve %d, or deny", e.Pending))
	} else if e.Why != "" {
		parts = append(parts, printable(e.Why))
	} else if e.Reason != "" {
		parts = append(parts, e.Reason)
	}
	return strings.Join(parts, "  ")
}

// clock returns the local time of an event.
func clock(text string) string {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return text
	}
	return t.Local().Format("15:04:05")
}
