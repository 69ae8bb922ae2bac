package abuse

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"portcullis/internal/lab"
	"portcullis/internal/wall"
	"portcullis/test/owned"
	testrig "portcullis/test/rig"
)

// TestOwnedFrontConfined: what an attacker tries who owns the front: every way
// out of the process is shut.
func TestOwnedFrontConfined(t *testing.T) {
	t.Parallel()
	r := startOwnable(t, noRates)
	p := r.own(t)
	if p.hello.Missing != "" && !strings.Contains(p.hello.Missing, "Landlock") || p.hello.User != frontUser {
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
		case errno == "EPERM", what == "clone3" && errno == "ENOSYS":
		default:
			t.Errorf("%s: %q", what, errno)
		}
	}
	if len(found) < 120 {
		t.Errorf("%d were tried", len(found))
	}
	r.Unchanged(t, before)
	r.free(t)
	if !strings.Contains(testrig.On(t, r.Gateway, testrig.Exe, "status", "--config", r.Daemon.Config), "started anew") {
		t.Error("the status does not say that fronts have ended")
	}
}

// alive reports whether a process is there, and is no mere remains.
func alive(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(text), ") ")
	return err == nil && !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

// TestWardenDiesBeforeOwnedFront: a front that reacts to nothing ends with the warden, and
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

// TestOwnedFrontSockets: by the sockets that it has the front reaches the hosts of their LAN and
// nobody else: not the Internet, nor a service of the gateway, whatever way it asks for.
func TestOwnedFrontSockets(t *testing.T) {
	t.Parallel()
	r := startOwnable(t, noRates)
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

// TestOwnedFrontConnects: by the listeners that it has the front connects to nobody.
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
