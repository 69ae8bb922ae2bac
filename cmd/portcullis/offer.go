package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"portcullis/internal/cmdline"
	"portcullis/internal/control"
)

// offerWait is how long a shell waits for what only the daemon knows. A person looks at the
// line meanwhile.
const offerWait = time.Second

// mostOffered is more than anybody reads.
const mostOffered = 1000

// offered returns what of the daemon's can stand there, with what it is. Nothing, and in
// silence, where it does not run, does not answer in time, or not to this user.
func offered(ctx context.Context, at cmdline.Place) []cmdline.Word {
	ctx, cancel := context.WithTimeout(ctx, offerWait)
	defer cancel()
	found := make(chan []cmdline.Word, 1)
	go func() { // which may hang in a file that the line names
		list, err := ask(ctx, at)
		if err != nil {
			list = nil
		}
		found <- list
	}()
	select {
	case list := <-found:
		list = at.Fit(list)
		return list[:min(len(list), mostOffered)]
	case <-ctx.Done():
		return nil
	}
}

// ask has the daemon that the line names say what each value can be.
func ask(ctx context.Context, at cmdline.Place) (list []cmdline.Word, err error) {
	var daemon *control.Client
	for _, value := range at.Values {
		source := offers[value][at.Command]
		if source == nil {
			continue
		}
		if daemon == nil {
			if daemon, err = daemonOf(&cmdline.Call{Err: io.Discard, Given: at.Given}); err != nil {
				return nil, err
			}
		}
		some, err := source(ctx, daemon, at.Args)
		if err != nil {
			return nil, err
		}
		list = append(list, some...)
	}
	return list, nil
}

// source returns what a value can be, behind the arguments that stand before it.
type source func(ctx context.Context, daemon *control.Client, args []string) ([]cmdline.Word, error)

// offers has, for the words of values in the table of commands, where each command gets them.
var offers = map[string]map[string]source{
	"ID":               {"delete": mappingIDs, "approve": answerIDs, "deny": answerIDs, "revoke": approvalIDs},
	"PORT":             {"delete": openPorts},
	"ADDRESS|MAC|HOST": {"list": holders, "refused": refusedDevices},
	"ADDRESS|MAC":      {"explain": devices},
	"MAC":              {"list": machines},
	"INTERFACE":        {"list": lans},
}

// mappingIDs are those of what is open, but those that are given already.
func mappingIDs(ctx context.Context, daemon *control.Client, args []string) (list []cmdline.Word, err error) {
	if len(args) > 0 && (args[0] == "tcp" || args[0] == "udp") {
		return nil, nil
	}
	err = daemon.EachMapping(ctx, func(m *control.Mapping) {
		if id := strconv.FormatUint(m.ID, 10); !slices.Contains(args, id) {
			list = append(list, cmdline.Word{Text: id, Does: place(m) + aside(m.ClientHost, m.Description)})
		}
	})
	return list, err
}

// openPorts are those of a protocol.
func openPorts(ctx context.Context, daemon *control.Client, args []string) (list []cmdline.Word, err error) {
	err = daemon.EachMapping(ctx, func(m *control.Mapping) {
		if len(args) == 1 && m.Protocol == args[0] {
			list = append(list, cmdline.Word{Text: strconv.Itoa(int(m.ExternalPort)), Does: "to " + target(m) + aside(m.ClientHost, m.Description)})
		}
	})
	return list, err
}

// answerIDs are those of what waits, and then of what was answered, which can be changed.
func answerIDs(ctx context.Context, daemon *control.Client, _ []string) (list []cmdline.Word, err error) {
	waiting, err := daemon.Pending(ctx)
	if err != nil {
		return nil, err
	}
	for i := range waiting {
		p := &waiting[i]
		does := fmt.Sprintf("%s port %d of %s", p.Protocol, p.InternalPort, p.InternalIP) + aside(p.ClientHost, p.Description)
		list = append(list, cmdline.Word{Text: strconv.FormatUint(p.ID, 10), Does: does})
	}
	answered, err := approvalIDs(ctx, daemon, nil)
	return append(list, answered...), err
}

func approvalIDs(ctx context.Context, daemon *control.Client, _ []string) (list []cmdline.Word, err error) {
	answered, err := daemon.Approvals(ctx)
	for i := range answered {
		a := &answered[i]
		list = append(list, cmdline.Word{Text: strconv.FormatUint(a.ID, 10), Does: answerLine(a) + aside("", a.Description)})
	}
	return list, err
}

// holders are the addresses of the devices that have mappings.
func holders(ctx context.Context, daemon *control.Client, _ []string) (list []cmdline.Word, err error) {
	err = daemon.EachMapping(ctx, func(m *control.Mapping) {
		list = append(list, cmdline.Word{Text: m.InternalIP, Does: called(m.ClientHost, m.ClientMAC)})
	})
	return list, err
}

func refusedDevices(ctx context.Context, daemon *control.Client, _ []string) (list []cmdline.Word, err error) {
	all, err := daemon.Refused(ctx)
	for i := range all {
		c := &all[i].Client
		list = append(list, cmdline.Word{Text: c.Address, Does: called(c.Host, c.MAC)})
	}
	return list, err
}

// devices are all of which the daemon tells.
func devices(ctx context.Context, daemon *control.Client, _ []string) ([]cmdline.Word, error) {
	refused, err := refusedDevices(ctx, daemon, nil)
	if err != nil {
		return nil, err
	}
	others, err := holders(ctx, daemon, nil)
	return append(refused, others...), err
}

// machines are the MAC addresses of the devices that have mappings.
func machines(ctx context.Context, daemon *control.Client, _ []string) (list []cmdline.Word, err error) {
	err = daemon.EachMapping(ctx, func(m *control.Mapping) {
		if m.ClientMAC != "" {
			list = append(list, cmdline.Word{Text: m.ClientMAC, Does: called(m.ClientHost, m.InternalIP)})
		}
	})
	return list, err
}

func lans(ctx context.Context, daemon *control.Client, _ []string) (list []cmdline.Word, err error) {
	s, err := daemon.Status(ctx)
	for _, l := range s.LAN {
		list = append(list, cmdline.Word{Text: l.Interface, Does: strings.Join(l.Prefixes, ", ")})
	}
	return list, err
}

// called returns what names a device beside its address.
func called(names ...string) string {
	return strings.TrimPrefix(aside(names...), ", ")
}

// aside returns what more is known, as far as it is, in a short form that harms no terminal.
func aside(words ...string) (text string) {
	for _, w := range words {
		if w != "" {
			text += ", " + fmt.Sprintf("%.40s", printable(w))
		}
	}
	return text
}
