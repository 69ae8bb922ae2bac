package faults

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// gamePort is what both consoles use inside.
const gamePort = 3074

// console is one behind the gateway: its game's socket, and where the gateway shows
// it outside.
type console struct {
	t       *testing.T
	name    string
	game    *net.UDPConn
	outside netip.AddrPort
}

// say sends a word from the game's socket.
func (c *console) say(word string, to netip.AddrPort) {
	c.t.Helper()
	say(c.t, c.game, word, to)
}

// hear wants a word, and gives who it came from.
func (c *console) hear(word string) netip.AddrPort {
	c.t.Helper()
	return hear(c.t, c.game, word)
}

func say(t *testing.T, conn *net.UDPConn, word string, to netip.AddrPort) {
	t.Helper()
	if _, err := conn.WriteToUDPAddrPort([]byte(word), to); err != nil {
		t.Fatal(err)
	}
}

func hear(t *testing.T, conn *net.UDPConn, word string) netip.AddrPort {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			t.Fatalf("%q did not arrive: %v", word, err)
		}
		if string(buf[:n]) == word {
			return netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		}
	}
}

// TestTwoConsoles: L1. Two consoles that use one port inside both get an open NAT: what
// each sends leaves from its mapped port, to whomever; what anybody sends there
// arrives; and they reach each other by their addresses outside.
func TestTwoConsoles(t *testing.T) {
	t.Parallel()
	r := testrig.Start(t, testrig.Network(t, "one", "two"), "")
	one, two := plug(t, r, "one"), plug(t, r, "two")

	// The first asks for the port that it uses, the second is told 718 and asks for
	// the next one.
	ask := func(c *console, external uint16) error {
		return r.Point(t, c.name, lab.IGD1, lab.WANIP1).Add(t.Context(),
			lab.Mapping{Protocol: "UDP", External: external, Internal: gamePort, Lease: time.Hour, Description: "Game"})
	}
	if err := ask(one, gamePort); err != nil {
		t.Fatal(err)
	}
	var refusal *lab.UPnPError
	if err := ask(two, gamePort); !errors.As(err, &refusal) || refusal.Code != 718 || !strings.Contains(refusal.Description, "ConflictInMappingEntry") {
		t.Errorf("the second console is told %v, want 718", err)
	}
	if err := ask(two, gamePort+1); err != nil {
		t.Fatal(err)
	}

	// What a console does to learn its NAT's kind: it asks two addresses of a server
	// where it is seen, and is sent something by a third that it never spoke to.
	servers := []*net.UDPConn{listen(t, r, lab.InternetOne, 3544), listen(t, r, lab.InternetTwo, 3544)}
	stranger := listen(t, r, lab.InternetTwo, 9999)
	for c, port := range map[*console]uint16{one: gamePort, two: gamePort + 1} {
		want := netip.AddrPortFrom(lab.GatewayWAN, port)
		for _, s := range servers {
			c.say("where am I", addrOf(s))
			if c.outside = hear(t, s, "where am I"); c.outside != want {
				t.Errorf("console %s is seen at %s, want %s", c.name, c.outside, want)
			}
			say(t, s, "there", c.outside)
			if from := c.hear("there"); from != addrOf(s) {
				t.Errorf("console %s hears the server from %s", c.name, from)
			}
		}
		say(t, stranger, "hello", c.outside)
		if from := c.hear("hello"); from != addrOf(stranger) {
			t.Errorf("console %s hears a stranger from %s", c.name, from)
		}
	}

	// A match between the two: each knows the other as the server does.
	for _, pair := range [][2]*console{{one, two}, {two, one}} {
		from, to := pair[0], pair[1]
		from.say("join", to.outside)
		if seen := to.hear("join"); seen != from.outside {
			t.Errorf("console %s is seen at %s by the other, want %s", from.name, seen, from.outside)
		}
		to.say("welcome", from.outside)
		if seen := from.hear("welcome"); seen != to.outside {
			t.Errorf("console %s answers from %s, want %s", to.name, seen, to.outside)
		}
	}
}

// TestConsoleWithoutMapping: L1. Two consoles with one game, of which one has a mapping and
// the other sends from the same port, to the same server. Whoever came first, what the
// server sends to the mapping reaches its owner, what the owner sends leaves from it,
// and the other plays on from another port.
func TestConsoleWithoutMapping(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		mappedFirst bool
		grant       func(t *testing.T, r *testrig.Rig) uint16
	}{
		"mapping first":                    {true, grantGame},
		"mapping second":                   {false, grantGame},
		"mapping second, any port will do": {false, suggestGame},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := testrig.Start(t, testrig.Network(t, "one", "two"), "")
			one, two := plug(t, r, "one"), plug(t, r, "two")
			server := listen(t, r, lab.InternetOne, gamePort)
			var port uint16
			play := func(c *console) netip.AddrPort {
				t.Helper()
				c.say(c.name, addrOf(server))
				seen := hear(t, server, c.name)
				say(t, server, "welcome "+c.name, seen)
				c.hear("welcome " + c.name)
				return seen
			}
			if tc.mappedFirst {
				port = tc.grant(t, r)
			}
			early := play(two)
			if !tc.mappedFirst {
				port = tc.grant(t, r)
			}
			mapped := netip.AddrPortFrom(lab.GatewayWAN, port)
			if tc.mappedFirst && early == mapped {
				t.Errorf("the other console leaves from the mapped port")
			}
			if seen := play(one); seen != mapped {
				t.Errorf("the console with the mapping is seen at %s, want %s", seen, mapped)
			}
			say(t, server, "to the mapping", mapped)
			one.hear("to the mapping")
			late := play(two)
			if late == mapped {
				t.Error("the other console leaves from the mapped port")
			}
			if port != gamePort && late != early {
				t.Errorf("the other console was moved from %s to %s for nothing", early, late)
			}
		})
	}
}

// grantGame maps the game's port to console one, as consoles do: this port or none.
func grantGame(t *testing.T, r *testrig.Rig) uint16 {
	t.Helper()
	err := r.Point(t, "one", lab.IGD1, lab.WANIP1).Add(t.Context(),
		lab.Mapping{Protocol: "UDP", External: gamePort, Internal: gamePort, Lease: time.Hour, Description: "Game"})
	if err != nil {
		t.Fatal(err)
	}
	return gamePort
}

// suggestGame asks for the same port by NAT-PMP, which takes another one as well, and
// is given one that no console leaves from.
func suggestGame(t *testing.T, r *testrig.Rig) uint16 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	port, err := r.Host("one").MapNATPMP(ctx, "UDP", gamePort, gamePort, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if port == gamePort {
		t.Errorf("the port that another console's flow leaves from was given away")
	}
	return port
}

// plug opens a console's game socket.
func plug(t *testing.T, r *testrig.Rig, name string) *console {
	t.Helper()
	conn, err := r.Host(name).ListenPacket(netip.AddrPortFrom(r.Host(name).Addr, gamePort).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &console{t: t, name: name, game: conn}
}

// listen opens a socket on the Internet.
func listen(t *testing.T, r *testrig.Rig, at netip.Addr, port uint16) *net.UDPConn {
	t.Helper()
	conn, err := r.Internet.ListenPacket(netip.AddrPortFrom(at, port).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func addrOf(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }
