package abuse

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"portcullis/internal/lab"
	"portcullis/internal/wall"
	"portcullis/test/owned"
	testrig "portcullis/test/rig"
)

// threadsOf returns the threads of a process.
func threadsOf(t *testing.T, pid int) map[string]bool {
	t.Helper()
	all, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, task := range all {
		found[task.Name()] = true
	}
	return found
}

// TestOwnedFrontThreads (M8): a front that makes threads gets none beyond those that it began
// with, and ends of it: the log says why, another serves, and nothing has changed.
func TestOwnedFrontThreads(t *testing.T) {
	t.Parallel()
	for name, user := range users {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := user.start(t, noRates)
			r.inhabit(t)
			p := r.own(t)
			before, most := r.World(t), len(threadsOf(t, p.hello.PID))
			if most > 50 {
				t.Errorf("it begins with %d threads", most)
			}
			p.do(t, owned.Order{Means: &owned.Means{What: "threads", N: 200}})
			select {
			case <-p.ended:
			case found := <-p.tried:
				t.Fatalf("it has made them: %v, %d threads, %d were there", found, len(threadsOf(t, p.hello.PID)), most)
			}
			r.Logged(t, "failed to create new OS thread")
			r.Logged(t, `msg="front ended"`)
			r.next(t)
			r.Unchanged(t, before, "M8")
			r.free(t)
			r.Unchanged(t, before, "M8")
		})
	}
}

// TestWardenThreads (M8): whatever an owned front asks for, as much as it may at once, the
// warden makes no thread for it. Where nobody of its user can make one any more, it goes on
// deciding, and has a front again as soon as it can start one.
func TestWardenThreads(t *testing.T) {
	t.Parallel()
	for name, user := range users {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wardenThreads(t, user.start(t, noRates), user.front == sharedUser)
		})
	}
}

func wardenThreads(t *testing.T, r *ownedRig, shared bool) {
	r.inhabit(t)
	r.talks(t, "a")
	p := r.own(t)
	// A connection to such a port is neither made nor refused.
	testrig.On(t, r.Host("a"), "nft", "add table inet deaf; add chain inet deaf in { type filter hook input priority 0; }; add rule inet deaf in tcp dport 45000-45999 drop")
	local, a := netip.AddrPortFrom(lab.GatewayLAN, 0).Addr(), r.Host("a").Addr
	harass := func() {
		t.Helper()
		var all []wall.Body
		for i := range wall.MaxUnderWay / 2 {
			all = append(all, &wall.Connect{LAN: lab.Bridge, Local: local, To: netip.AddrPortFrom(a, 45000+uint16(i))})
		}
		for i := range wall.MaxUnderWay / 2 {
			all = append(all, &wall.Open{Kind: wall.Discovery, LAN: lab.Bridge, Six: i%2 == 0}, &wall.Resolve{LAN: lab.Bridge, Addr: a},
				&wall.Open{Kind: wall.HTTP, LAN: lab.Bridge, Addr: netip.AddrPortFrom(lab.GatewayLAN, 22)})
		}
		for _, answer := range p.asks(t, all) {
			for _, fd := range answer.fds {
				p.tries(t, owned.Order{Close: fd})
			}
		}
	}
	warden := r.Daemon.Pid()
	before := threadsOf(t, warden)
	harass()
	if shared { // root is under no such limit
		limit(t, r, "1")
		harass()
		if err := syscall.Kill(p.hello.PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		r.Logged(t, `msg="cannot start a front"`)
		if n := len(r.List(t)); n == 0 {
			t.Error("no mapping is left")
		}
		limit(t, r, "1000")
		r.next(t)
	}
	after := threadsOf(t, warden)
	maps.DeleteFunc(after, func(task string, _ bool) bool { return before[task] })
	if len(after) > 0 {
		t.Errorf("%d threads more, %d were there", len(after), len(before))
	}
	r.free(t)
}

// limit lets so many threads and processes be of the warden's user before it makes one. Only
// that user may set it, and no more than it began with.
func limit(t *testing.T, r *ownedRig, most string) {
	t.Helper()
	user := strings.Fields("--clear-groups --inh-caps=-all --bounding-set=-all")
	testrig.On(t, r.Gateway, "setpriv", append(append(user, fmt.Sprint("--reuid=", sharedUser), fmt.Sprint("--regid=", sharedUser)),
		"prlimit", fmt.Sprint("--pid=", r.Daemon.Pid()), "--nproc="+most+":")...)
}

// TestOwnedFrontMemory (M8): memory is bounded for a front, and where it is short the kernel
// ends the front before the warden.
func TestOwnedFrontMemory(t *testing.T) {
	t.Parallel()
	for name, user := range users {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := user.start(t, noRates)
			score := func(pid int) string {
				text, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid))
				if err != nil {
					t.Fatal(err)
				}
				return strings.TrimSpace(string(text))
			}
			first := score(frontOf(t, r.Rig))
			if second := score(r.own(t).hello.PID); first != "1000" || second != "1000" {
				t.Errorf("fronts have the scores %s and %s", first, second)
			}
			if own := score(os.Getpid()); score(r.Daemon.Pid()) != own {
				t.Errorf("the warden has the score %s, and was started with %s", score(r.Daemon.Pid()), own)
			}
			for what, want := range map[string]string{"memory": "ENOMEM", "stack": "EPERM", "read only": "EPERM", "tables": "ENOMEM"} {
				if got := r.front.tries(t, owned.Order{Means: &owned.Means{What: what, N: 256 << 20}})[what]; got != want {
					t.Errorf("256 MiB of %s: %q, want %q", what, got, want)
				}
			}
			r.free(t)
		})
	}
}

// TestOwnedFrontHolds (M8): an owned front neither makes pollers, nor lets go of the instance
// lock, nor joins a group on the WAN, nor leaves the warden a connection that keeps it from
// starting another front, or from its own end.
func TestOwnedFrontHolds(t *testing.T) {
	t.Parallel()
	r := startOwnable(t, noRates)
	r.inhabit(t)
	p := r.own(t)
	try := func(m owned.Means) {
		t.Helper()
		if got := p.tries(t, owned.Order{Means: &m})[m.What]; got != "EPERM" {
			t.Errorf("%s: %q", m.What, got)
		}
	}
	try(owned.Means{What: "poller"})      // many would leave the user no watch of a descriptor (epoll(7))
	try(owned.Means{What: "event"})       // which they would watch
	try(owned.Means{What: "shut", FD: 4}) // behind the wall
	if d, err := r.Network.StartDaemonWith(t.Context(), testrig.Exe, lab.Settings); err == nil {
		t.Errorf("a second daemon has begun; %v", d.Stop())
	}
	discovery := p.ask(t, &wall.Open{Kind: wall.Discovery, LAN: lab.Bridge})
	try(owned.Means{What: "join", FD: discovery.fds[0], N: p.hello.Interfaces["wan0"]})
	if groups := testrig.On(t, r.Gateway, "cat", "/proc/net/igmp"); strings.Contains(groups, "010642EF") {
		t.Errorf("it has joined: %s", groups)
	}

	at := netip.AddrPortFrom(lab.GatewayLAN, p.hello.Settings.HTTPPort)
	listener := p.ask(t, &wall.Open{Kind: wall.HTTP, LAN: lab.Bridge, Addr: at})
	deaf, err := r.Host("a").Dial(t.Context(), "tcp4", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	try(owned.Means{What: "linger", FD: listener.fds[0]})
	p.do(t, owned.Order{Means: &owned.Means{What: "leave"}})
	p.wait(t, "the front ends", p.ended) // it passed a descriptor
	r.next(t)
	r.free(t)
	if err := r.Daemon.Halt(); err != nil {
		t.Error(err)
	}
}

// TestFrontSockets (M8): of the sockets of netlink an honest front has those alone by which it
// asks for links and neighbours, and one that tells it when a neighbour changes.
func TestFrontSockets(t *testing.T) {
	t.Parallel()
	r := start(t, "")
	front := frontOf(t, r.Rig)
	names, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", front))
	if err != nil {
		t.Fatal(err)
	}
	open := map[string]bool{}
	for _, name := range names {
		if to, err := os.Readlink(name); err == nil {
			open[strings.TrimSuffix(strings.TrimPrefix(to, "socket:["), "]")] = true
		}
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/netlink", front))
	if err != nil {
		t.Fatal(err)
	}
	groups := map[string]int{}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line) // netlink_seq_show
		if len(fields) < 10 || !open[fields[9]] {
			continue
		}
		if groups[fields[3]]++; fields[1] != fmt.Sprint(unix.NETLINK_ROUTE) {
			t.Errorf("it has a socket of another family: %s", line)
		}
	}
	// And one that never asked, for an ioctl, which is not in the list.
	neighbours := fmt.Sprintf("%08x", 1<<(unix.RTNLGRP_NEIGH-1))
	if want := map[string]int{"00000000": 2, neighbours: 1}; !maps.Equal(groups, want) {
		t.Errorf("it has %v sockets of netlink by groups, want %v", groups, want)
	}
}
