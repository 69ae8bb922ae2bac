package nft_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"portcullis/portmap"
)

// guest adds a second LAN with a host to a strict home, and a rule of the owner
// that lets it reach the first.
func (h *homeNet) guest() *namespace {
	h.t.Helper()
	n := newNamespace(h.t, "guest")
	cable(n, "eth0 2001:db8:78::30/64", h.gw, "lan1 2001:db8:78::1/64")
	n.route("2001:db8:78::1")
	h.gw.nft(strictOwner + "\nadd rule inet fw4 forward iifname lan1 oifname lan0 accept")
	g := home()
	g.LAN, g.AcceptChain = append(g.LAN, "lan1"), "inet fw4 forward"
	g.LANPrefixes = append(g.LANPrefixes, netip.MustParsePrefix("2001:db8:78::/64"))
	if err := h.backend.Configure(ctx(h.t), g); err != nil {
		h.t.Fatal(err)
	}
	return n
}

// C8: TCP flows of a pinhole end with it although the owner lets established
// flows pass, and no others.
func TestPinholeDeleteEndsConnections(t *testing.T) {
	t.Parallel()
	h := newHomeNet6(t)
	guest := h.guest()
	for _, port := range []string{":80", ":81", ":82", ":83", ":84"} {
		h.alice.echo(alice6 + port)
	}
	h.world.echo(peerX6 + ":90")
	gone := h.pin("tcp", alice6+":80")
	narrowed := h.pin("tcp", alice6+":81")
	h.pin("tcp", alice6+":82")
	dial := func(n *namespace, from, to string) net.Conn {
		t.Helper()
		c, err := n.dial(from, to, reach)
		if err != nil {
			t.Fatal(err)
		}
		if err := say(c, "hello", reach); err != nil {
			t.Fatal(err)
		}
		return c
	}
	cut := dial(h.world, peerX6, alice6+":80")
	staysX, leavesY := dial(h.world, peerX6, alice6+":81"), dial(h.world, peerY6, alice6+":81")
	kept, outbound := dial(h.world, peerX6, alice6+":82"), dial(h.alice, alice6, peerX6+":90")
	lan := dial(guest, "[2001:db8:78::30]", alice6+":80")
	h.pin("tcp", alice6+":83", from("2001:db8:5::67/128"))
	limited := h.pin("tcp", alice6+":83", from("2001:db8:5::66/128"))
	h.gw.nft("insert rule inet fw4 forward ip6 saddr 2001:db8:5::67 tcp dport 84 accept")
	owners := h.pin("tcp", alice6+":84", from("2001:db8:5::66/128"))
	cutX, staysY := dial(h.world, peerX6, alice6+":83"), dial(h.world, peerY6, alice6+":83")
	cutX84, ownersY := dial(h.world, peerX6, alice6+":84"), dial(h.world, peerY6, alice6+":84")

	renewed := gone
	renewed.Expires = renewed.Expires.Add(time.Hour)
	h.apply([]portmap.Mapping{renewed}, []portmap.Mapping{gone})
	if err := say(cut, "still here", reach); err != nil {
		t.Fatalf("a renewal ended the flow: %v", err)
	}
	h.close(renewed)
	h.eventually("the flow of the deleted pinhole ends", func() bool { return say(cut, "x", silence) != nil })
	onlyX := narrowed
	onlyX.Remotes = []portmap.Remote{{Prefix: netip.MustParsePrefix("2001:db8:5::66/128")}}
	h.apply([]portmap.Mapping{onlyX}, nil)
	h.eventually("who is admitted no longer is cut", func() bool { return say(leavesY, "x", silence) != nil })
	h.close(limited, owners)
	h.eventually("the one host's flows end", func() bool {
		return say(cutX, "x", silence) != nil && say(cutX84, "x", silence) != nil
	})
	for name, c := range map[string]net.Conn{
		"another pinhole's": kept, "an outbound": outbound, "a still admitted": staysX, "another LAN's": lan,
		"another host's": staysY, "the owner's own": ownersY,
	} {
		if err := say(c, "hello", reach); err != nil {
			t.Errorf("%s flow was ended: %v", name, err)
		}
	}
	// Nor would they be, had the host been the first to go on.
	refused := h.gw.nft("", "list", "set", "inet", "portcullis", "ended_flows6")
	for port, peer := range map[string]string{"80": peerX6, "81": peerY6, "83": peerX6, "84": peerX6} {
		want := "tcp . 2001:db8:77::10 . " + port + " . " + strings.Trim(peer, "[]")
		if strings.Count(refused, " . "+port+" . ") != 1 || !strings.Contains(refused, want) {
			t.Errorf("of port %s another flow than that of %s is refused:\n%s", port, peer, refused)
		}
	}

	// A clean stop ends the rest.
	if err := h.backend.Close(ctx(t), false); err != nil {
		t.Fatal(err)
	}
	if err := say(kept, "x", silence); err == nil {
		t.Error("a flow outlived the table")
	}
	if err := say(outbound, "hello", reach); err != nil {
		t.Errorf("closing ended an outbound flow: %v", err)
	}
}

// C8: a host that keeps sending does not carry a connection on as its own.
func TestPinholeDeleteEndsStream(t *testing.T) {
	t.Parallel()
	h := newHomeNet6(t)
	h.strict()
	var l *net.TCPListener
	h.alice.must(func() (err error) {
		l, err = net.ListenTCP("tcp6", net.TCPAddrFromAddrPort(netip.MustParseAddrPort(alice6+":8080")))
		return err
	})
	t.Cleanup(func() { _ = l.Close() })
	ended := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			ended <- err
			return
		}
		defer c.Close()
		for err == nil {
			_ = c.SetWriteDeadline(time.Now().Add(reach))
			_, err = io.WriteString(c, "frame of a camera ")
		}
		ended <- err
	}()
	m := h.pin("tcp", alice6+":8080")
	viewer, err := h.world.dial(peerX6, alice6+":8080", reach)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, viewer) }()
	h.close(m)
	select {
	case err := <-ended:
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the camera ended with %v, want %v", err, syscall.ECONNRESET)
		}
	case <-time.After(reach):
		t.Error("the camera streams on")
	}
}

// C8: the same with datagrams, where both ends keep sending. What the host began
// itself from that very port goes on.
func TestPinholeDeleteEndsDatagrams(t *testing.T) {
	t.Parallel()
	h := newHomeNet6(t)
	h.strict()
	game := h.alice.udp(alice6 + ":6000")
	x, y := h.world.udp(peerX6+":7000"), h.world.udp(peerY6+":7000")
	send(t, game, peerY6+":7000", "outbound")
	receive(t, y, "outbound")
	m := h.pin("udp", alice6+":6000")
	talk := func() {
		send(t, x, alice6+":6000", "in")
		send(t, game, peerX6+":7000", "out")
	}
	talk()
	receive(t, game, "in")
	receive(t, x, "out")

	h.close(m)
	h.eventually("the flow ends", func() bool {
		receiveSome(game)
		receiveSome(x)
		talk()
		return !arrives(x) && !arrives(game)
	})
	talk()
	receiveNothing(t, x, "C8/the host carries it on")
	receiveNothing(t, game, "C8/the peer goes on")
	send(t, y, alice6+":6000", "answer")
	receive(t, game, "answer")
	send(t, game, peerY6+":7000", "outbound")
	receive(t, y, "outbound")

	// Another peer is no business of the refusal, and the port may open again.
	h.pin("udp", alice6+":6000")
	talk()
	receive(t, game, "in")
	receive(t, x, "out")
}
