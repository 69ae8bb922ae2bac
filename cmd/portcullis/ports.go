package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"portcullis/firewall"
	"portcullis/internal/cmdline"
	"portcullis/policy"
	"portcullis/portmap"
)

// closedPorts is an entry of ports --json.
type closedPorts struct {
	First     uint16   `json:"first"`
	Last      uint16   `json:"last"`
	Protocols []string `json:"protocols"`
	Opens     string   `json:"opens"` // "never", or "by rule"
	Sides     []string `json:"sides"` // that it is about
	What      string   `json:"what"`
}

// portVerdict is what ports PORT --json prints for each protocol.
type portVerdict struct {
	Protocol string `json:"protocol"`
	Internal string `json:"internal"` // "never", "by rule" or "by default"
	External string `json:"external"`
	What     string `json:"what,omitempty"`
}

// runPorts prints which ports do not open by themselves, and why, or what holds for one.
func runPorts(_ context.Context, call *cmdline.Call) error {
	if len(call.Args) == 0 {
		if call.Has("json") {
			return printJSON(call.Out, listPorts())
		}
		_, err := io.WriteString(call.Out, portsTable())
		return err
	}
	port, err := strconv.ParseUint(call.Args[0], 10, 16)
	if err != nil || port == 0 || len(call.Args) > 1 {
		return cmdline.Usagef("%q is not a port from 1 to 65535", strings.Join(call.Args, " "))
	}
	verdicts := []portVerdict{judgePort(portmap.TCP, uint16(port)), judgePort(portmap.UDP, uint16(port))}
	if call.Has("json") {
		return printJSON(call.Out, verdicts)
	}
	for _, v := range verdicts {
		if _, err := fmt.Fprintln(call.Out, v.sentence(call.Args[0])); err != nil {
			return err
		}
	}
	return nil
}

// opens is how a port of a tier opens.
func opens(t policy.Tier) string {
	switch t {
	case policy.Forbidden:
		return "never"
	case policy.Privileged:
		return "by rule"
	}
	return "by default"
}

func listPorts() []closedPorts {
	var all []closedPorts
	for _, c := range policy.ClosedPorts() {
		p := closedPorts{First: c.Ports.First, Last: c.Ports.Last, Opens: opens(c.Tier), Sides: []string{"internal"}, What: c.Why}
		if !c.InsideOnly {
			p.Sides = append(p.Sides, "external")
		}
		for _, t := range c.Transports {
			p.Protocols = append(p.Protocols, t.String())
		}
		all = append(all, p)
	}
	return append(all, closedPorts{firewall.SpareFirst, firewall.SpareLast, []string{"tcp", "udp"}, "never", []string{"external"}, spare})
}

// spare is what the external ports of firewall.Spare are for.
const spare = "kept for hosts whose own port is mapped to another"

// title stands above the entries of a kind.
func (p *closedPorts) title() string {
	switch {
	case p.Sides[0] == "external":
		return "Never opened outside:"
	case p.Opens == "never":
		return "Never opened, whatever a rule says:"
	}
	return "Opened only by a rule that names the port:"
}

// portsTable is the list for people, in the manual as well.
func portsTable() string {
	var b strings.Builder
	last := ""
	for _, p := range listPorts() {
		if title := p.title(); title != last {
			if last != "" {
				b.WriteByte('\n')
			}
			b.WriteString(title + "\n")
			last = title
		}
		ports := portmap.PortRange{First: p.First, Last: p.Last}.String()
		fmt.Fprintf(&b, "  %-11s %-8s %s\n", ports, strings.Join(p.Protocols, " "), p.What)
	}
	return b.String()
}

func judgePort(t portmap.Transport, port uint16) portVerdict {
	internal, what := policy.TierOf(policy.Internal, t, port)
	external, _ := policy.TierOf(policy.External, t, port)
	v := portVerdict{t.String(), opens(internal), opens(external), what}
	if firewall.Spare(port) {
		v.External, v.What = opens(policy.Forbidden), spare
	}
	return v
}

// sentence says it of a port.
func (v portVerdict) sentence(port string) string {
	what := ""
	if v.What != "" {
		what = " is " + v.What
	}
	subject := fmt.Sprintf("%s port %s%s", v.Protocol, port, what)
	switch {
	case v.External == "never" && v.Internal != "never":
		return subject + ": outside it is never opened, inside as policy.default and the rules say"
	case v.Internal == "never":
		return subject + ": it is never opened"
	case v.Internal == "by default":
		return subject + ": it is opened as policy.default and the rules say"
	case v.External == v.Internal:
		return subject + ": it is opened only by a rule that names it in internal_ports and in external_ports"
	}
	return subject + ": it is opened only by a rule that names it in internal_ports; outside, the number is free"
}
