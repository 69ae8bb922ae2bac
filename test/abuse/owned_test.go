package abuse

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"portcullis/internal/control"
	"portcullis/internal/lab"
	"portcullis/internal/wall"
	"portcullis/test/owned"
	testrig "portcullis/test/rig"
)

// users are how a front is started: as a user of its own, and as the warden's, which is what
// there is under the unit for systemd.
var users = map[string]struct {
	start func(*testing.T, string) *ownedRig
	front int
}{"a user of its own": {startOwnable, frontUser}, "the warden's user": {startShared, sharedUser}}

// TestOwnedFrontConfined (M6): what an attacker tries who owns the front: every way out of the
// process is shut.
func TestOwnedFrontConfined(t *testing.T) {
	t.Parallel()
	for name, user := range users {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			confinedOwned(t, user.start(t, noRates), user.front)
		})
	}
}

func confinedOwned(t *testing.T, r *ownedRig, user int) {
	r.inhabit(t)
	p := r.own(t)
	if p.hello.Missing != "" && !strings.Contains(p.hello.Missing, "Landlock") || p.hello.User != user {
		t.Errorf("its sandbox: %+v", p.hello)
	}
	before := r.World(t)
	warden := r.Daemon.Pid()
	files := []string{
		"/etc/passwd", "/etc/shadow", "/bin/sh", "/proc/self/exe", "/tmp", r.Daemon.Config, r.Daemon.Socket, r.Daemon.State() + "/leases.journal",
		"/proc/self/mem", fmt.Sprintf("/proc/%d/mem", warden), fmt.Sprintf("/proc/%d/environ", warden), "/proc/1/environ", "/proc/sys/net/ipv4/ip_forward",
	}
	found := p.tries(t, owned.Order{Try: &owned.Try{Warden: warden, Files: files}})
	for _, what := range slices.Sorted(maps.Keys(found)) {
		switch errno := found[what]; {
		case errno == "EPERM", what == "clone3" && errno == "ENOSYS", what == owned.WriteTurn && errno == "EBADF":
		default:
			t.Errorf("%s: %q", what, errno)
		}
	}
	if len(found) < 120 {
		t.Errorf("%d were tried", len(found))
	}
	r.Unchanged(t, before, "M6")
	r.free(t)
	if line := testrig.On(t, r.Gateway, testrig.Exe, "status", "--config", r.Daemon.Config); !regexp.MustCompile(`; (1 has|[0-9]+ have) ended`).MatchString(line) {
		t.Errorf("the status does not say that fronts have ended:\n%s", line)
	}
}

// alive reports whether a process is there, and is no mere remains.
func alive(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(text), ") ")
	return err == nil && !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

// TestWardenDiesBeforeOwnedFront (M5): a front that reacts to nothing ends with the warden, and
// the next daemon begins at once.
func TestWardenDiesBeforeOwnedFront(t *testing.T) {
	t.Parallel()
	r := startOwnable(t, "")
	r.inhabit(t)
	p := r.own(t)
	before := r.World(t)
	if err := r.Daemon.Kill(); err != nil {
		t.Fatal(err)
	}
	p.wait(t, "the front ends", p.ended)
	testrig.Eventually(t, soon, "nothing is left of the front", func() bool { return !alive(p.hello.PID) })
	_ = r.listener.Close()
	r.Restart(t)
	r.Renewed(t, before)
	r.v1(t, "a")
}

// hearing is a socket that says whether something comes.
func hearing(t *testing.T, h *lab.Host, at string) func(time.Duration) bool {
	t.Helper()
	conn, err := h.ListenPacket(at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return func(within time.Duration) bool {
		_ = conn.SetReadDeadline(time.Now().Add(within))
		_, _, err := conn.ReadFromUDPAddrPort(make([]byte, 100))
		return err == nil
	}
}

// TestOwnedFrontSockets (M7): by the sockets that it has the front reaches the hosts of their LAN
// and nobody else: not the Internet, nor a service of the gateway, whatever way it asks for.
func TestOwnedFrontSockets(t *testing.T) {
	t.Parallel()
	for name, user := range users {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sendsNowhere(t, user.start(t, noRates))
		})
	}
}

func sendsNowhere(t *testing.T, r *ownedRig) {
	p := r.own(t)
	sockets := map[string]int{}
	for name, ask := range map[string]*wall.Open{
		"discovery": {Kind: wall.Discovery, LAN: lab.Bridge}, "port control": {Kind: wall.PortControl, LAN: lab.Bridge},
		"discovery 6": {Kind: wall.Discovery, LAN: lab.Bridge, Six: true}, "port control 6": {Kind: wall.PortControl, LAN: lab.Bridge, Six: true},
	} {
		a := p.ask(t, ask)
		if _, ok := a.body.(*wall.Socket); !ok || len(a.fds) == 0 {
			t.Fatalf("%s: %#v", name, a.body)
		}
		sockets[name] = a.fds[0]
	}
	type target struct {
		at   netip.AddrPort
		host *lab.Host
		lan  bool
	}
	at := func(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }
	four := map[string]target{
		"a host of the LAN": {at(r.Host("a").Addr, 45001), r.Host("a"), true}, "the Internet": {at(lab.InternetOne, 45002), r.Internet, false},
		"loopback": {netip.MustParseAddrPort("127.0.0.1:45003"), r.Gateway, false}, "the gateway on the LAN": {at(lab.GatewayLAN, 45004), r.Gateway, false},
		"the gateway on the WAN": {at(lab.GatewayWAN, 45005), r.Gateway, false},
	}
	for name, to := range four {
		heard := hearing(t, to.host, hostPort(to.at.Addr(), to.at.Port()))
		for _, socket := range []string{"discovery", "port control"} {
			for device, index := range p.hello.Interfaces {
				if to.lan && device != lab.Bridge {
					continue
				}
				for _, index := range []int{0, index} {
					sent := p.tries(t, owned.Order{Send: &owned.Send{FD: sockets[socket], To: to.at, Interface: index}})["send"]
					if to.lan {
						if sent != "" || !heard(soon) {
							t.Errorf("%s, by %s, interface %d: %q, and it is not heard", name, socket, index, sent)
						}
					} else if sent == "" && heard(200*time.Millisecond) {
						t.Errorf("%s, by %s and %s: it is heard", name, socket, device)
					}
				}
			}
		}
		if heard(50 * time.Millisecond) {
			t.Errorf("%s: it is heard", name)
		}
	}
}

// TestOwnedFrontConnects (M7): by the listeners that it has the front connects to nobody.
func TestOwnedFrontConnects(t *testing.T) {
	t.Parallel()
	r := startOwnable(t, noRates)
	p := r.own(t)
	for name, h := range map[string]*lab.Host{"a host of the LAN": r.Host("a"), "the gateway": r.Gateway, "the Internet": r.Internet} {
		to := netip.AddrPortFrom(h.Addr, 22)
		l, err := h.Listen(to.String())
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		a := p.ask(t, &wall.Open{Kind: wall.HTTP, LAN: lab.Bridge, Addr: netip.AddrPortFrom(lab.GatewayLAN, p.hello.Settings.HTTPPort)})
		if _, ok := a.body.(*wall.Socket); !ok || len(a.fds) != 1 {
			t.Fatalf("%#v", a.body)
		}
		sent := p.tries(t, owned.Order{Send: &owned.Send{FD: a.fds[0], To: to, FastOpen: true}})["send"]
		if sent != "EPERM" {
			t.Errorf("%s: %q", name, sent)
		}
		_ = l.(*net.TCPListener).SetDeadline(time.Now().Add(300 * time.Millisecond))
		if c, err := l.Accept(); err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %v, %v", name, c, err)
		}
		p.tries(t, owned.Order{Close: a.fds[0]})
	}
}

// TestSharedUser (M6): where both processes are one user's, neither can be looked into or traced by
// another process of that user, which can send it a signal: that they are not dumpable is
// what keeps it out.
func TestSharedUser(t *testing.T) {
	t.Parallel()
	r := startShared(t, noRates)
	front := frontOf(t, r.Rig)
	for name, pid := range map[string]int{"the warden": r.Daemon.Pid(), "the front": front} {
		for _, id := range []string{"Uid", "Gid"} {
			if got, want := field(t, pid, id), fmt.Sprintf("%[1]d\t%[1]d\t%[1]d\t%[1]d", sharedUser); got != want {
				t.Errorf("%s has %s %s", name, id, got)
			}
		}
		text := testrig.On(t, r.Gateway, "setpriv", fmt.Sprint("--reuid=", sharedUser), fmt.Sprint("--regid=", sharedUser), "--clear-groups",
			"--inh-caps=-all", "--bounding-set=-all", ownable(t), "look", fmt.Sprint(pid))
		var found map[string]string
		if err := json.Unmarshal([]byte(text), &found); err != nil {
			t.Fatal(err)
		}
		for what, errno := range found {
			if (errno == "") != (what == "signal") || errno != "" && errno != "EPERM" && errno != "EACCES" {
				t.Errorf("%s, %s: %q", name, what, errno)
			}
		}
		if len(found) < 9 {
			t.Errorf("%s: %v", name, found)
		}
	}
	confined(t, r.Daemon.Pid(), []string{"CAP_NET_ADMIN"}, "1")
	confined(t, front, nil, "2")
}

// field returns what the kernel says of a process.
func field(t *testing.T, pid int, name string) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\n"+name+":\t")
	value, _, _ := strings.Cut(rest, "\n")
	return value
}

// TestFrontStops (M5): a front that is stopped is ended when it does not follow the network, and
// another serves.
func TestFrontStops(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	flow, stopped := openFlow(t, r, "b", r.v1(t, "b"), 46001), frontOf(t, r.Rig)
	if err := syscall.Kill(stopped, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	testrig.On(t, r.Gateway, "ip", "addr", "add", "192.168.78.1/24", "dev", lab.Bridge)
	testrig.Eventually(t, 2*time.Minute, "another front serves", func() bool {
		s, err := r.Owner.Status(t.Context())
		return err == nil && s.Sandbox.Front.PID != stopped && s.Sandbox.Front.PID != 0 && s.Sandbox.Front.Ended == 1
	})
	if alive(stopped) {
		t.Error("the front that was stopped is there")
	}
	r.v1(t, "a")
	if list := r.List(t); len(list) != 1 || !flow.alive() {
		t.Errorf("of a mapping with a flow there is left: %+v", list)
	}
}

// TestFrontHangs (M5): a front that is stopped while nothing changes is found as well, ended and
// counted; mappings and flows stay, and the next request is answered.
func TestFrontHangs(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	flow, stopped := openFlow(t, r, "b", r.v1(t, "b"), 46001), frontOf(t, r.Rig)
	if err := syscall.Kill(stopped, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	var front *control.Front
	testrig.Eventually(t, 2*time.Minute, "another front serves", func() bool {
		s, err := r.Owner.Status(t.Context())
		if err == nil {
			front = s.Sandbox.Front
		}
		return err == nil && front.PID != stopped && front.PID != 0
	})
	if front.Ended != 1 || !strings.Contains(front.LastEnd, "the front does not answer") {
		t.Errorf("the status of it: %+v", front)
	}
	r.Logged(t, "front ended")
	if alive(stopped) {
		t.Error("the front that was stopped is there")
	}
	r.v1(t, "a")
	if list := r.List(t); len(list) != 1 || !flow.alive() {
		t.Errorf("of a mapping with a flow there is left: %+v", list)
	}
}
