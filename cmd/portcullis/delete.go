package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"portcullis/internal/cmdline"
	"portcullis/internal/control"
	"portcullis/portmap"
)

// runDelete closes what is named, and says what it closed.
func runDelete(ctx context.Context, call *cmdline.Call) error {
	wanted, err := deletions(call.Has("all"), call.Args)
	if err != nil {
		return err
	}
	daemon, err := daemonOf(call)
	if err != nil {
		return err
	}
	gone := []control.Mapping{}
	var failed []error
	for _, d := range wanted {
		some, err := daemon.Delete(ctx, d)
		if err != nil {
			failed = append(failed, notDeleted(d, err))
		}
		gone = append(gone, some...)
	}
	if err := showClosed(call, gone); err != nil {
		return err
	}
	return errors.Join(failed...)
}

func showClosed(call *cmdline.Call, gone []control.Mapping) error {
	if call.Has("json") {
		return printJSON(call.Out, gone)
	}
	for i := range gone {
		m := &gone[i]
		packets := ""
		switch {
		case m.Uncounted:
		case m.Packets == 1:
			packets = " (1 packet)"
		default:
			packets = fmt.Sprintf(" (%d packets)", m.Packets)
		}
		if _, err := fmt.Fprintf(call.Out, "closed %s%s\n", place(m), packets); err != nil {
			return err
		}
	}
	return nil
}

// notDeleted names what is not there.
func notDeleted(d control.Deletion, err error) error {
	switch {
	case reasonOf(err) != portmap.NoSuchMapping.String():
		return err
	case d.All:
		return errors.New("no port is open")
	case d.ID != 0:
		return fmt.Errorf("there is no mapping %d; `portcullis list` shows them", d.ID)
	}
	return fmt.Errorf("%d/%s is not open; `portcullis list` shows what is", d.Port, d.Protocol)
}

// reasonOf returns the word of the daemon's refusal, "" where err is none.
func reasonOf(err error) string {
	var no *control.Refusal
	if errors.As(err, &no) {
		return no.Reason
	}
	return ""
}

// place returns the port that is open and where it leads, as "443/tcp to 192.168.1.2:443",
// of a pinhole "tcp [2001:db8::5]:443".
func place(m *control.Mapping) string {
	if m.Family == 6 {
		return m.Protocol + " " + target(m)
	}
	return fmt.Sprintf("%d/%s to %s", m.ExternalPort, m.Protocol, target(m))
}

// deletions reads "--all", "tcp|udp PORT", or a list of ids.
func deletions(all bool, args []string) ([]control.Deletion, error) {
	switch {
	case all && len(args) == 0:
		return []control.Deletion{{All: true}}, nil
	case all:
		return nil, cmdline.Usagef("--all takes no further arguments")
	case len(args) == 0:
		return nil, cmdline.Usagef("nothing to delete: give an ID, a protocol and port, or --all")
	case args[0] == "tcp" || args[0] == "udp":
		if len(args) != 2 {
			return nil, cmdline.Usagef("give one port for %s", args[0])
		}
		port, err := portOf(args[1])
		return []control.Deletion{{Protocol: args[0], Port: port}}, err
	}
	list := make([]control.Deletion, len(args))
	for i, a := range args {
		id, err := strconv.ParseUint(a, 10, 64)
		switch {
		case (err != nil || id == 0) && i == 0 && len(args) == 2:
			return nil, cmdline.Usagef("%.40q is neither tcp nor udp, nor a mapping ID; `portcullis list` shows them", a)
		case err != nil || id == 0:
			return nil, cmdline.Usagef("%.40q is not a mapping ID; `portcullis list` shows them", a)
		}
		list[i] = control.Deletion{ID: id}
	}
	return list, nil
}
