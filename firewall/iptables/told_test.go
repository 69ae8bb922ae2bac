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
	"portcullis/portmap"
)

// counted puts programs into the way by which rules are read and written, which note each
// run, and returns what has been run since the last time.
func counted(t *testing.T, flavour string) (ran func() []string) {
	t.Helper()
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "ran")
	for _, family := range []string{"", "6"} {
		for _, end := range []string{"-save", "-restore"} {
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

// watched is a backend that is watched, and the programs that it runs.
type watched struct {
	t    *testing.T
	b    *iptables.Backend
	told chan struct{}
	ran  func() []string
	stop func()
}

func watch(t *testing.T, n *netnstest.Space, flavour string) *watched {
	ran := counted(t, flavour)
	b := open(t, n, flavour, func(c *iptables.Config) { c.Log = quiet() })
	ctx, cancel := context.WithCancel(t.Context())
	told, ended := make(chan struct{}, 100), make(chan error)
	go func() { ended <- b.Watch(ctx, func(firewall.Intrusion) { told <- struct{}{} }) }()
	<-told // at the start
	ran()
	return &watched{t, b, told, ran, func() { cancel(); <-ended }}
}

// audit returns how many programs an audit runs, which finds what is wanted: a part of what
// is wrong, or "".
func (w *watched) audit(want string) int {
	w.t.Helper()
	drift, err := w.b.Audit(homenet.Context(w.t), false)
	if err != nil || (drift != "") != (want != "") || !strings.Contains(drift, want) {
		w.t.Fatalf("drift %q, %v", drift, err)
	}
	return len(w.ran())
}

// TestNoProgramForNothing: where the kernel tells of each change, or shows that there was
// none, an audit runs programs after one alone.
func TestNoProgramForNothing(t *testing.T) {
	for _, flavour := range flavours(t) {
		t.Run(flavour, func(t *testing.T) {
			n := netnstest.New(t, "gw")
			w := watch(t, n, flavour)
			unseen := 2 // programs, where the kernel does not show what is there
			if flavour == "legacy" {
				unseen = 0
			}
			if n := w.audit(""); n != unseen {
				t.Errorf("the first look runs %d programs", n)
			}
			if n := w.audit(""); n != 0 {
				t.Errorf("%d programs are run though nothing has changed", n)
			}
			do(t, n, flavour, "iptables -F FORWARD\n")
			<-w.told
			if n := w.audit("the rule"); n < 2 {
				t.Errorf("%d programs are run after a change", n)
			}
			w.stop()
			if n := w.audit(""); n != unseen {
				t.Errorf("%d programs are run where nobody tells", n)
			}
		})
	}
}

// TestLockOfOthers: the lock of iptables-legacy is the whole machine's. Who else uses it has
// no program run, and what is done to our rules is told after that as well.
func TestLockOfOthers(t *testing.T) {
	if flavours(t)[0] != "legacy" {
		return
	}
	n, other := netnstest.New(t, "gw"), netnstest.New(t, "other")
	w := watch(t, n, "legacy")
	for range 3 {
		do(t, other, "legacy", "iptables -A FORWARD -j ACCEPT\nip6tables -A FORWARD -j ACCEPT\n")
		if n := w.audit(""); n != 0 {
			t.Errorf("%d programs are run for the rules of others", n)
		}
		do(t, n, "legacy", "iptables -A FORWARD -j ACCEPT\n")
		w.audit("") // which may not be the first look at it
		if n := w.audit(""); n != 0 {
			t.Errorf("%d programs are run for what was looked at", n)
		}
		do(t, n, "legacy", "iptables -F FORWARD\n")
		<-w.told
		w.audit("the rule")
	}
	w.stop()
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

// TestForwardedForNothing: the owner's forwards are read by a program once, and again when
// they may be others.
func TestForwardedForNothing(t *testing.T) {
	if flavours(t)[0] != "legacy" {
		return
	}
	n := netnstest.New(t, "gw")
	ran := counted(t, "legacy")
	b := open(t, n, "legacy", func(c *iptables.Config) { c.Log = quiet() })
	look := func(runs int, want ...uint16) {
		t.Helper()
		ran()
		found, err := b.Forwarded(homenet.Context(t))
		if err != nil {
			t.Fatal(err)
		}
		if n := len(ran()); n != runs {
			t.Errorf("%d programs are run, want %d", n, runs)
		}
		if found.Len() != len(want) {
			t.Errorf("there are %v, want %v", found.All(), want)
		}
		for _, port := range want {
			if _, taken := found.Taken(portmap.TCP, port); !taken {
				t.Errorf("%d is not found", port)
			}
		}
	}
	look(1)
	look(0)
	do(t, n, "legacy", `iptables -t nat -A PREROUTING -i wan0 -p tcp --dport 80 -j DNAT --to-destination 192.168.1.9
		iptables -t nat -A PREROUTING -i wan9 -p tcp --dport 90 -j DNAT --to-destination 192.168.1.9`)
	look(1, 80)
	look(0, 80)
	g := homenet.Facts()
	g.WAN[0].Interface = "wan9"
	if err := b.Configure(homenet.Context(t), g); err != nil {
		t.Fatal(err)
	}
	look(1, 90)
	look(0, 90)
	do(t, n, "legacy", "iptables -t nat -F\n")
	look(1)
}

// TestForwardedMeanwhile: what a program has listed while the table was another one for a moment
// is not taken for what the table is.
func TestForwardedMeanwhile(t *testing.T) {
	if flavours(t)[0] != "legacy" {
		return
	}
	const rule = "PREROUTING -i wan0 -p tcp --dport 80 -j DNAT --to-destination 192.168.1.9"
	n, dir := netnstest.New(t, "gw"), t.TempDir()
	once := filepath.Join(dir, "once")
	script := "#!/bin/sh\nPATH=" + os.Getenv("PATH") + "\n[ -e " + once + " ] || exec iptables-legacy-save \"$@\"\nrm " + once +
		"\niptables-legacy -t nat -D " + rule + "\nexec iptables-legacy-save \"$@\"\n"
	if err := os.WriteFile(filepath.Join(dir, "iptables-legacy-save"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	b := open(t, n, "legacy", func(c *iptables.Config) { c.Log = quiet() })
	add := func() { do(t, n, "legacy", "iptables -t nat -A "+rule) }
	add()
	if err := os.WriteFile(once, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{0, 1} {
		found, err := b.Forwarded(homenet.Context(t))
		if err != nil || found.Len() != want {
			t.Errorf("found %v, error %v; want %d", found, err, want)
		}
		if want == 0 {
			add() // as it was before
		}
	}
}
