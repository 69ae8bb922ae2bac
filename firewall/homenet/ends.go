package homenet

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"portcullis/internal/netns/netnstest"
	"portcullis/portmap"
)

// DeleteEndsFlows: the flows of an IPv4 mapping end with it, and no others (C8).
func DeleteEndsFlows(t *testing.T, fw Firewall) {
	run(t, fw,
		test{"Connections", deleteEndsConnections},
		test{"CloseEndsWhatIsWaiting", closeEndsWhatIsWaiting},
		test{"Stream", deleteEndsStream},
		test{"TakeOver", takeOver},
		test{"OthersGoOn", othersGoOn},
	)
}

func deleteEndsConnections(t *testing.T, h *Home) {
	h.Alice.Echo(Alice + ":80")
	h.Alice.Echo(Alice + ":81")
	h.World.Echo(PeerX + ":90")
	gone := h.Open("tcp 8080", Alice+":80")
	h.Open("tcp 8081", Alice+":81")
	cut := h.Connect(h.World, PeerX, WAN+":8080")
	cutHairpin := h.Connect(h.Bob, Bob, WAN+":8080")
	stays := h.Connect(h.World, PeerX, WAN+":8081")
	outbound := h.Connect(h.Alice, Alice, PeerX+":90")

	renewed := h.Renew(gone)
	if err := netnstest.Say(cut, "still here", Reach); err != nil {
		t.Fatalf("a renewal ended the flow: %v", err)
	}
	h.Delete(renewed)
	h.Eventually("the flow of the deleted mapping ends", func() bool { return ended(cut) })
	h.Eventually("its hairpin flow ends", func() bool { return ended(cutHairpin) })
	goOn(t, map[string]net.Conn{"another mapping's": stays, "an outbound": outbound})
	closeEnds(t, h, stays, outbound)
}

// goOn makes sure that connections carry.
func goOn(t *testing.T, conns map[string]net.Conn) {
	t.Helper()
	for name, c := range conns {
		if err := netnstest.Say(c, "hello", Reach); err != nil {
			t.Errorf("%s flow was ended: %v", name, err)
		}
	}
}

// closeEnds makes sure that a clean stop ends what was ours, and no more.
func closeEnds(t *testing.T, h *Home, ours, others net.Conn) {
	t.Helper()
	if err := h.Backend.Close(Context(t), false); err != nil {
		t.Fatal(err)
	}
	if !ended(ours) {
		t.Error("a flow outlived its backend")
	}
	goOn(t, map[string]net.Conn{"closing: another": others})
}

// What has just been deleted is ended even when we stop at once, and what is kept
// goes on.
func closeEndsWhatIsWaiting(t *testing.T, h *Home) {
	h.Alice.Echo(Alice + ":80")
	one, two := h.Open("tcp 8080", Alice+":80"), h.Open("tcp 8081", Alice+":80")
	h.Open("tcp 8082", Alice+":80")
	var conns []net.Conn
	for _, port := range []string{":8080", ":8081", ":8082"} {
		conns = append(conns, h.Connect(h.World, PeerX, WAN+port))
	}
	h.Delete(one)
	h.Delete(two) // the keeper of flows rests after the first
	if err := h.Backend.Close(Context(t), true); err != nil {
		t.Fatal(err)
	}
	if !ended(conns[0]) || !ended(conns[1]) {
		t.Error("a flow of what was deleted goes on")
	}
	goOn(t, map[string]net.Conn{"what was kept: its": conns[2]})
}

// C8: a host that keeps sending could carry its connection on as one of its own,
// where the external port is the internal one. It is told to end it.
func deleteEndsStream(t *testing.T, h *Home) {
	h.Do(h.fw.Scripts.DropInput)
	h.streamEnds(Alice, PeerX, func(internal string) (portmap.Mapping, string) {
		return h.Open("tcp 8080", internal), WAN + ":8080"
	})
}

// streamEnds has a host stream to a viewer, and ends what open opened. Open gives
// where to connect to as well.
func (h *Home) streamEnds(host, viewer string, open func(internal string) (portmap.Mapping, string)) {
	h.t.Helper()
	camera := stream(h.Alice.Listen(host + ":8080"))
	m, to := open(host + ":8080")
	watching, err := h.World.Dial(viewer, to, Reach)
	if err != nil {
		h.t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, watching) }()
	h.Delete(m)
	select {
	case err := <-camera:
		if !errors.Is(err, syscall.ECONNRESET) {
			h.t.Errorf("the camera ended with %v, want %v", err, syscall.ECONNRESET)
		}
	case <-time.After(Reach):
		h.t.Error("the camera streams on")
	}

	// A connection may be made again when the port is open again.
	_ = watching.Close()
	h.Alice.Echo(host + ":8081")
	_, to = open(host + ":8081")
	h.Connect(h.World, viewer, to)
}

// stream writes to the first connection as long as it can, and returns why it could
// not.
func stream(l net.Listener) <-chan error {
	over := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			over <- err
			return
		}
		defer c.Close()
		for err == nil {
			_ = c.SetWriteDeadline(time.Now().Add(Reach))
			_, err = io.WriteString(c, "frame of a camera ")
		}
		over <- err
	}()
	return over
}

// A take-over ends what led to the old host, and nothing of what now leads to
// the new one.
func takeOver(t *testing.T, h *Home) {
	alice, bob := h.Alice.UDP(Alice+":6000"), h.Bob.UDP(Bob+":6000")
	peer := h.World.UDP(PeerX + ":7000")
	old := h.Open("udp 5000", Alice+":6000")
	Send(t, peer, WAN+":5000", "to alice")
	Receive(t, alice, "to alice")
	h.Apply([]portmap.Mapping{Mapping(99, "udp 5000", Bob+":6000")}, []portmap.Mapping{old})
	h.Eventually("the same flow leads to the new host", func() bool {
		Send(t, peer, WAN+":5000", "to bob")
		return Arrives(bob)
	})
	Drain(alice)
	Send(t, peer, WAN+":5000", "to bob")
	ReceiveNothing(t, alice, "after the take-over")
}

// What the owner translated, to where no mapping leads, is not ours to end: not
// when a mapping of that port begins, and not when it ends.
func othersGoOn(t *testing.T, h *Home) {
	alice, bob := h.Alice.UDP(Alice+":6000"), h.Bob.UDP(Bob+":6000")
	x, y := h.World.UDP(PeerX+":7000"), h.World.UDP(PeerY+":7000")
	_ = h.Gateway.UDP(WAN + ":5000") // takes what nobody translates
	h.Do(h.fw.Scripts.Forward)
	Answer(t, x, bob, WAN+":5000", "by the owner's forward")
	h.Do(h.fw.Scripts.Unforward)
	Send(t, y, WAN+":5000", "early")

	// That a flow of y is ended shows that the flows have been looked at.
	m := h.Open("udp 5000", Alice+":6000")
	h.Eventually("the stale flow leads to the mapping", func() bool {
		Send(t, y, WAN+":5000", "late")
		return Arrives(alice)
	})
	Answer(t, x, bob, WAN+":5000", "beside a mapping")
	Drain(alice)
	Answer(t, y, alice, WAN+":5000", "answered, the owner lets it pass by itself")
	h.Delete(m)
	h.Eventually("the mapping's flow ends", func() bool {
		Send(t, y, WAN+":5000", "more")
		return !Arrives(alice)
	})
	Answer(t, x, bob, WAN+":5000", "after the mapping")
}
