package iptables_test

import (
	"context"
	"fmt"
	"testing"

	"portcullis/firewall"
	"portcullis/firewall/fwtest"
	"portcullis/firewall/homenet"
	"portcullis/firewall/iptables"
	"portcullis/internal/netns/netnstest"
)

func TestConformance(t *testing.T) {
	each(t, func(t *testing.T, flavour string) {
		fwtest.Conformance(t, func(t *testing.T, capacity int) fwtest.Subject { return subject(t, flavour, capacity) })
	})
}

func subject(t *testing.T, flavour string, capacity int) fwtest.Subject {
	n := netnstest.New(t, "gw")
	b := open(t, n, flavour, func(c *iptables.Config) { c.Size, c.Log = capacity, quiet() })
	return fwtest.Subject{
		Firewall: b,
		Held: func(t *testing.T) []firewall.Entry {
			t.Helper()
			held, err := b.Entries(homenet.Context(t))
			if err != nil {
				t.Fatal(err)
			}
			return held
		},
		Wipe:  func(t *testing.T) { do(t, n, flavour, wipe+"nft flush ruleset\n") },
		Steal: func(t *testing.T, e firewall.Entry) { steal(t, n, e) },
		// Its changes are those of package nft, whose own suite loses answers.
		Blind: func(ctx context.Context) context.Context { return ctx },
	}
}

// steal removes the elements of one entry. Of holes it knows those for anyone.
func steal(t testing.TB, n *netnstest.Space, e firewall.Entry) {
	t.Helper()
	var script string
	take := func(set, format string, args ...any) {
		switch {
		case e.Source.OneHost():
			set, format, args = set+"_from", "%s . "+format, append([]any{e.Source}, args...)
		case e.Source.Filtered():
			ports := fmt.Sprintf("%d-%d", e.Source.Low, e.Source.High)
			if e.Source.Low == e.Source.High {
				ports = fmt.Sprint(e.Source.Low)
			}
			set, format, args = set+"_filtered", "%s . %s . "+format, append([]any{e.Source.Prefix, ports}, args...)
		}
		script += fmt.Sprintf("delete element inet portcullis %s { %s }\n", set, fmt.Sprintf(format, args...))
	}
	host, port := e.Internal.Addr(), e.Internal.Port()
	switch e.Kind {
	case firewall.Hole:
		take("mapped", "%s . %d", e.Transport, e.External)
		for _, set := range []string{"mapped_flows", "marked_flows"} {
			take(set, "%s . %d . %s . %d", e.Transport, e.External, host, port)
		}
	case firewall.Kept:
		take("kept_ports", "%s . %s . %d", host, e.Transport, port)
	case firewall.Pin:
		for _, set := range []string{"pinholes", "marked_pinholes"} {
			take(set, "%s . %s . %d", host, e.Transport, port)
		}
	}
	if out, err := n.Run(script, "nft", "-f", "-"); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
}
