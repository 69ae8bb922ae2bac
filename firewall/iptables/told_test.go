package iptables_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"portcullis/firewall"
	"portcullis/firewall/homenet"
	"portcullis/firewall/iptables"
	"portcullis/internal/netns/netnstest"
)

// counted puts programs of iptables into the way that note each run, and returns what has
// been run since the last time.
func counted(t *testing.T, flavour string) (ran func() []string) {
	t.Helper()
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "ran")
	for _, family := range []string{"", "6"} {
		for _, end := range []string{"", "-save", "-restore"} {
			name := "ip" + family + "tables-" + flavour + end
			script := "#!/bin/sh\necho " + name + " >>" + file + "\nPATH=" + os.Getenv("PATH") + "\nexec " + name + " \"$@\"\n"
			if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o700); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return func() []string {
		raw, err := os.ReadFile(file)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		return strings.Fields(string(raw))
	}
}

// TestNoProgramForNothing: where the kernel tells of each change, an audit runs programs
// after one, and none when there was none since; the other flavour looks with two.
func TestNoProgramForNothing(t *testing.T) {
	for _, flavour := range flavours(t) {
		t.Run(flavour, func(t *testing.T) {
			n := netnstest.New(t, "gw")
			ran := counted(t, flavour)
			b := open(t, n, flavour, func(c *iptables.Config) { c.Log = quiet() })
			ctx, stop := context.WithCancel(t.Context())
			told, ended := make(chan struct{}, 100), make(chan error)
			go func() { ended <- b.Watch(ctx, func(firewall.Intrusion) { told <- struct{}{} }) }()
			<-told // at the start
			audit := func(want string) (runs int) {
				t.Helper()
				drift, err := b.Audit(homenet.Context(t), false)
				if err != nil || (drift != "") != (want != "") || !strings.Contains(drift, want) {
					t.Fatalf("drift %q, %v", drift, err)
				}
				return len(ran())
			}
			ran()
			if n := audit(""); n != 2 {
				t.Errorf("the first look runs %d programs", n)
			}
			few := 0
			if flavour == "legacy" {
				few = 2
			}
			if n := audit(""); n != few {
				t.Errorf("%d programs are run though nothing has changed", n)
			}
			do(t, n, flavour, "iptables -F FORWARD\n")
			<-told
			if n := audit("the rule"); n < 2 {
				t.Errorf("%d programs are run after a change", n)
			}
			stop()
			<-ended
			if n := audit(""); n != 2 {
				t.Errorf("%d programs are run where nobody tells", n)
			}
		})
	}
}

// TestLegacyTells: iptables-legacy tells of a change by the use of its lock, which is there
// once our own rule has been written.
func TestLegacyTells(t *testing.T) {
	for _, flavour := range flavours(t) {
		if flavour != "legacy" {
			continue
		}
		n := netnstest.New(t, "gw")
		open(t, n, flavour, func(c *iptables.Config) { c.Log = quiet() })
		if err := iptables.HearLock(t.Context(), func() { do(t, n, flavour, "iptables -A FORWARD -j ACCEPT\n") }); err != nil {
			t.Error(err)
		}
	}
}
