package main

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"portcullis/internal/cmdline"
	"portcullis/internal/control"
	"portcullis/portmap"
)

// runAdd opens a port of a host by the owner's hand.
func runAdd(ctx context.Context, call *cmdline.Call) error {
	a, err := addition(call)
	if err != nil {
		return err
	}
	daemon, err := daemonOf(call)
	if err != nil {
		return err
	}
	m, err := daemon.Add(ctx, a)
	switch {
	case reasonOf(err) == portmap.PortTaken.String():
		return fmt.Errorf("%w; `portcullis list` shows it, and `portcullis delete` closes it", err)
	case err != nil:
		return err
	case call.Has("json"):
		return printJSON(call.Out, m)
	}
	end := ""
	if m.ExpiresIn > 0 {
		end = " for " + span(m.ExpiresIn)
	}
	_, err = fmt.Fprintf(call.Out, "opened %s%s%s\n", place(&m), fromWhom(&m), end)
	return err
}

// addition reads "tcp|udp PORT ADDRESS:PORT", or "tcp|udp ADDRESS:PORT" of IPv6, and what
// the options say.
func addition(call *cmdline.Call) (a control.Addition, err error) {
	args := call.Args
	if args[0] != "tcp" && args[0] != "udp" {
		return a, cmdline.Usagef("%.40q is not a protocol: it is tcp or udp", args[0])
	}
	target := args[len(args)-1]
	to, err := netip.ParseAddrPort(target)
	if err != nil || to.Port() == 0 || to.Addr().Zone() != "" {
		return a, cmdline.Usagef("%.64q is not the address and the port of a host, like 192.168.1.20:443 or [2001:db8::5]:443", target)
	}
	a = control.Addition{Protocol: args[0], InternalIP: to.Addr().String(), InternalPort: to.Port(),
		Remote: call.Given["from"], Description: call.Given["description"]}
	switch {
	case to.Addr().Is4() && len(args) == 2:
		return a, cmdline.Usagef("the port on the Internet's side is missing: portcullis add %s PORT %s", args[0], target)
	case to.Addr().Is6() && len(args) == 3:
		return a, cmdline.Usagef("nothing is translated for IPv6, so there is one port: portcullis add %s %s", args[0], target)
	case len(args) == 3:
		if a.ExternalPort, err = portOf(args[1]); err != nil {
			return a, err
		}
	}
	if words, given := call.Given["for"]; given {
		a.Lifetime, err = lifetime(words)
	}
	return a, err
}

func portOf(word string) (uint16, error) {
	port, err := strconv.ParseUint(word, 10, 16)
	if err != nil || port == 0 {
		return 0, cmdline.Usagef("%.40q is not a port from 1 to 65535", word)
	}
	return uint16(port), nil
}

// lifetime reads how long something is open, in seconds: "90m", "24h", "7d", or "forever",
// which is 0.
func lifetime(word string) (int64, error) {
	if word == "forever" {
		return 0, nil
	}
	var d time.Duration
	var err error
	if days, isDays := strings.CutSuffix(word, "d"); isDays {
		var n uint64
		n, err = strconv.ParseUint(days, 10, 16)
		d = time.Duration(n) * 24 * time.Hour // #nosec G115 -- 16 bits
	} else {
		d, err = time.ParseDuration(word)
	}
	if err != nil || d < time.Second || d > control.MaxLifetime*time.Second {
		return 0, cmdline.Usagef("--for: %.40q is not a time from 1s to %s, like 90m, 24h or 7d, nor forever", word, span(control.MaxLifetime))
	}
	return int64(d / time.Second), nil
}
