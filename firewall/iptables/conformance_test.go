package iptables_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"portcullis/firewall"
	"portcullis/firewall/fwtest"
	"portcullis/firewall/homenet"
	"portcullis/firewall/iptables"
	"portcullis/test/netns"
)

func TestConformance(t *testing.T) {
	each(t, func(t *testing.T, flavour string) {
		// Each change writes all rules, so 1024, as many as the default limits allow,
		// takes a second here, and 5000 seven.
		fwtest.Conformance(t, func(t *testing.T, capacity int) fwtest.Subject { return subject(t, flavour, capacity) }, 1, 1024)
	})
}

func subject(t *testing.T, flavour string, capacity int) fwtest.Subject {
	n := netns.New(t, "gw")
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
		Wipe:  func(t *testing.T) { do(t, n, flavour, wipe) },
		Steal: func(t *testing.T, e firewall.Entry) { steal(t, n, flavour, e) },
		// A program that was begun is waited for, and what it did is read back.
		Blind: func(ctx context.Context) context.Context { return ctx },
	}
}

// steal removes the rules of one entry.
func steal(t testing.TB, n *netns.Space, flavour string, e firewall.Entry) {
	t.Helper()
	family := ""
	if e.Kind == firewall.Pin {
		family = "6"
	}
	var script strings.Builder
	for row := range strings.Lines(save(t, n, flavour, family)) {
		switch {
		case strings.HasPrefix(row, "*"), strings.HasPrefix(row, "COMMIT"):
			script.WriteString(row)
		case strings.HasPrefix(row, "-A PORTCULLIS") && iptables.IsRuleOf(row, e):
			script.WriteString("-D" + strings.TrimPrefix(row, "-A"))
		}
	}
	if _, err := n.Run(script.String(), fmt.Sprintf("ip%stables-%s-restore", family, flavour), "--noflush"); err != nil {
		t.Fatal(err)
	}
}
