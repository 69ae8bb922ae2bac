package homenet

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"portcullis/internal/netns/netnstest"
)

// Send sends a datagram.
func Send(t testing.TB, c *net.UDPConn, to, text string) {
	t.Helper()
	if _, err := c.WriteToUDPAddrPort([]byte(text), netip.MustParseAddrPort(to)); err != nil {
		t.Fatal(err)
	}
}

// Receive waits for a datagram and gives where it came from.
func Receive(t testing.TB, c *net.UDPConn, want string) string {
	t.Helper()
	buf := make([]byte, 100)
	_ = c.SetReadDeadline(time.Now().Add(Reach))
	n, from, err := c.ReadFromUDPAddrPort(buf)
	if err != nil {
		t.Fatalf("waiting for %q: %v", want, err)
	}
	if string(buf[:n]) != want {
		t.Fatalf("received %q, want %q", buf[:n], want)
	}
	return from.String()
}

// ReceiveNothing makes sure that no datagram comes.
func ReceiveNothing(t testing.TB, c *net.UDPConn, what string) {
	t.Helper()
	buf := make([]byte, 100)
	_ = c.SetReadDeadline(time.Now().Add(Silence))
	if n, from, err := c.ReadFromUDPAddrPort(buf); err == nil {
		t.Fatalf("%s: received %q from %s", what, buf[:n], from)
	}
}

// Arrives reports whether a datagram comes within a moment.
func Arrives(c *net.UDPConn) bool { return arrivesBy(c, time.Now().Add(50*time.Millisecond)) }

func arrivesBy(c *net.UDPConn, when time.Time) bool {
	_ = c.SetReadDeadline(when)
	_, _, err := c.ReadFromUDPAddrPort(make([]byte, 100))
	return err == nil
}

// arrivesFrom reports whether the next datagram comes, and from there.
func arrivesFrom(c *net.UDPConn, want string) bool {
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	_, from, err := c.ReadFromUDPAddrPort(make([]byte, 100))
	return err == nil && from.String() == want
}

// Drain empties a socket.
func Drain(c *net.UDPConn) {
	for Arrives(c) {
	}
}

// Answer exchanges a datagram and its answer, and returns where each was seen to
// come from.
func Answer(t testing.TB, outside, inside *net.UDPConn, to, text string) (asker, answerer string) {
	t.Helper()
	Send(t, outside, to, text)
	asker = Receive(t, inside, text)
	Send(t, inside, asker, text)
	return asker, Receive(t, outside, text)
}

// Passes makes sure that a datagram from a fresh port of a peer, so with no flow of
// an earlier one, comes to a host.
func (h *Home) Passes(c *net.UDPConn, peer, to string) {
	h.t.Helper()
	Send(h.t, h.World.UDP(peer+":0"), to, "in")
	Receive(h.t, c, "in")
}

// Stops makes sure that one does not.
func (h *Home) Stops(what string, c *net.UDPConn, peer, to string) {
	h.t.Helper()
	Send(h.t, h.World.UDP(peer+":0"), to, "in")
	ReceiveNothing(h.t, c, what)
}

// Connect makes a connection to something that echoes, and tries it.
func (h *Home) Connect(who *netnstest.Space, from, to string) net.Conn {
	h.t.Helper()
	c, err := who.Dial(from, to, Reach)
	if err != nil {
		h.t.Fatalf("%s to %s: %v", from, to, err)
	}
	if err := netnstest.Say(c, "hello", Reach); err != nil {
		h.t.Fatalf("%s to %s: %v", from, to, err)
	}
	return c
}

// ended reports whether a connection carries no longer.
func ended(c net.Conn) bool { return netnstest.Say(c, "x", Silence) != nil }
