package iptables_test

import (
	"fmt"
	"strings"
	"testing"

	"portcullis/firewall/homenet"
	"portcullis/firewall/iptables"
	"portcullis/internal/netns/netnstest"
)

// TestSum: what is known of a table without a program stays the same while packets are
// counted, and is another after each change, however small.
func TestSum(t *testing.T) {
	if flavours(t)[0] != "legacy" {
		return
	}
	for _, v := range []string{"", "6"} {
		t.Run("ip"+v, func(t *testing.T) {
			n := netnstest.New(t, "gw")
			program, local, net := "ip"+v+"tables", "127.0.0.1", "10.0.0.%d/32"
			if v == "6" {
				local, net = "[::1]", "2001:db8::%d/128"
			}
			sum := func() uint64 {
				t.Helper()
				s, err := iptables.Sum(n.FD(), v, "filter")
				if err != nil {
					t.Fatal(err)
				}
				return s
			}
			before := sum()
			for _, rule := range []string{
				"-A FORWARD -d " + fmt.Sprintf(net, 1) + " -j ACCEPT",
				"-R FORWARD 1 -d " + fmt.Sprintf(net, 2) + " -j ACCEPT",
				"-R FORWARD 1 -d " + fmt.Sprintf(net, 2) + " -j DROP",
				"-P FORWARD DROP",
				"-N OTHER",
				"-A OTHER -m comment --comment one -j RETURN",
				"-R OTHER 1 -m comment --comment two -j RETURN",
				"-A OUTPUT -m limit --limit 1/hour --limit-burst 5",
				"-A OUTPUT -p udp --dport 99 -j ACCEPT",
				"-R OUTPUT 2 -p udp --dport 98 -j ACCEPT",
				"-A OUTPUT -o lo -j OTHER",
				"-D OUTPUT 3",
			} {
				do(t, n, "legacy", program+" "+rule+"\n")
				now := sum()
				if now == before {
					t.Errorf("%s %s changes nothing", program, rule)
				}
				before = now
			}
			c := n.UDP(local + ":98")
			homenet.Send(t, c, local+":98", "hello")
			out, err := n.Run("", program+"-legacy-save", "-c", "-t", "filter")
			if err != nil || !strings.Contains(out, "[1:") {
				t.Fatalf("nothing has been counted: %v\n%s", err, out)
			}
			if now := sum(); now != before {
				t.Error("a packet changes the sum")
			}
			do(t, n, "legacy", program+" -Z\n")
			if now := sum(); now != before {
				t.Error("it changes when the counters are set to 0")
			}
		})
	}
}

// TestNoSuchTable: what the kernel does not show is an error, not a sum.
func TestNoSuchTable(t *testing.T) {
	n := netnstest.New(t, "gw")
	for _, v := range []string{"", "6"} {
		if s, err := iptables.Sum(n.FD(), v, "portcullis"); err == nil {
			t.Errorf("a table that is not there has the sum %d", s)
		}
	}
}

// FuzzForget: entries of any form end, and are never read past their end.
func FuzzForget(f *testing.F) {
	f.Add(make([]byte, 112))
	f.Add(append(make([]byte, 90), 112, 0, 0, 0, 0, 0))
	f.Fuzz(func(t *testing.T, all []byte) {
		for _, v := range []string{"", "6"} {
			if iptables.Forget(v, all) == nil && len(all) > 0 && len(all) < 112 {
				t.Errorf("%d octets are entries", len(all))
			}
		}
	})
}
