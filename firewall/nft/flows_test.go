package nft_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"portcullis/firewall"
	"portcullis/portmap"
)

// C8: a mapping's flows end with it, and no others.
func TestDeleteEndsFlows(t *testing.T) {
	t.Parallel()
	h := newHomeNet(t)
	h.alice.echo(aliceAddr + ":80")
	h.alice.echo(aliceAddr + ":81")
	h.world.echo(peerX + ":90")
	gone := h.open("tcp 8080", aliceAddr+":80")
	h.open("tcp 8081", aliceAddr+":81")
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
	cut := dial(h.world, peerX, wanAddr+":8080")
	cutHairpin := dial(h.bob, bobAddr, wanAddr+":8080")
	kept := dial(h.world, peerX, wanAddr+":8081")
	outbound := dial(h.alice, aliceAddr, peerX+":90")

	renewed := gone
	renewed.Expires = renewed.Expires.Add(time.Hour)
	h.apply([]portmap.Mapping{renewed}, []portmap.Mapping{gone})
	if err := say(cut, "still here", reach); err != nil {
		t.Fatalf("a renewal ended the flow: %v", err)
	}

	h.close(renewed)
	h.eventually("the flow of the deleted mapping ends", func() bool { return say(cut, "x", silence) != nil })
	h.eventually("its hairpin flow ends", func() bool { return say(cutHairpin, "x", silence) != nil })
	for name, c := range map[string]net.Conn{"another mapping's": kept, "an outbound": outbound} {
		if err := say(c, "hello", reach); err != nil {
			t.Errorf("%s flow was ended: %v", name, err)
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

// What has just been deleted is ended even when we stop at once, and what is kept
// goes on.
func TestCloseEndsWhatIsWaiting(t *testing.T) {
	t.Parallel()
	h := newHomeNet(t)
	h.alice.echo(aliceAddr + ":80")
	one, two := h.open("tcp 8080", aliceAddr+":80"), h.open("tcp 8081", aliceAddr+":80")
	h.open("tcp 8082", aliceAddr+":80")
	var conns []net.Conn
	for _, port := range []string{":8080", ":8081", ":8082"} {
		c, err := h.world.dial(peerX, wanAddr+port, reach)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	h.close(one)
	h.close(two) // the keeper rests after the first
	if err := h.backend.Close(ctx(t), true); err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{false, false, true} {
		if err := say(conns[i], "x", silence); (err == nil) != want {
			t.Errorf("connection %d: %v, want it to live: %v", i, err, want)
		}
	}
}

// C8: a host that keeps sending could carry its connection on as one of its own,
// where the external port is the internal one. It is told to end it.
func TestDeleteEndsStream(t *testing.T) {
	t.Parallel()
	h := newHomeNet(t)
	h.gw.nft(`table inet owner {
		chain input {
			type filter hook input priority filter; policy accept;
			iifname "wan0" ct state != { established, related } drop
		}
	}`)
	var l *net.TCPListener
	h.alice.must(func() (err error) {
		l, err = net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(netip.MustParseAddrPort(aliceAddr+":8080")))
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
	m := h.open("tcp 8080", aliceAddr+":8080")
	viewer, err := h.world.dial(peerX, wanAddr+":8080", reach)
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

	// The same connection may be made again when the port is open again.
	_ = viewer.Close()
	h.open("tcp 8080", aliceAddr+":8081")
	h.alice.echo(aliceAddr + ":8081")
	again, err := h.world.dial(peerX, wanAddr+":8080", reach)
	if err != nil {
		t.Fatal(err)
	}
	if err := say(again, "hello", reach); err != nil {
		t.Error(err)
	}
}

// A take-over ends what led to the old host, and nothing of what now leads to
// the new one.
func TestTakeOverEndsFlows(t *testing.T) {
	t.Parallel()
	h := newHomeNet(t)
	alice, bob := h.alice.udp(aliceAddr+":6000"), h.bob.udp(bobAddr+":6000")
	peer := h.world.udp(peerX + ":7000")
	old := h.open("udp 5000", aliceAddr+":6000")
	send(t, peer, wanAddr+":5000", "to alice")
	receive(t, alice, "to alice")
	h.apply([]portmap.Mapping{h.mapping(99, "udp 5000", bobAddr+":6000")}, []portmap.Mapping{old})
	h.eventually("the same flow leads to the new host", func() bool {
		send(t, peer, wanAddr+":5000", "to bob")
		return arrives(bob)
	})
	receiveSome(alice)
	send(t, peer, wanAddr+":5000", "to bob")
	receiveNothing(t, alice, "after the take-over")
}

// C7: the kernel ends a mapping when nobody does.
func TestKernelEndsLease(t *testing.T) {
	t.Parallel()
	h := newHomeNet(t)
	over := h.open("udp 5000", aliceAddr+":6000", func(m *portmap.Mapping) {
		m.Expires = time.Now().Add(-59 * time.Second)
	})
	h.open("udp 5001", aliceAddr+":6000")
	held := func() string {
		entries, err := h.backend.Entries(ctx(t))
		if err != nil {
			return err.Error()
		}
		return firewall.World(entries)
	}
	want := "udp 5001 -> 192.168.1.10:6000\n"
	h.eventually("the lease is over", func() bool { return held() == want })
	// The daemon comes late to remove it, and the other keeps its port now.
	h.close(over)
	if got := held(); got != want+"udp 192.168.1.10:6000 keeps 5001\n" {
		t.Errorf("the kernel holds\n%s", got)
	}
}
