package homenet

import (
	"fmt"
	"net"
	"slices"
	"testing"

	"portcullis/internal/netns/netnstest"
	"portcullis/portmap"
)

// C8: TCP flows of a pinhole end with it although the owner lets established
// flows pass, and no others.
func pinholeDeleteEndsConnections(t *testing.T, h *Home) {
	guest := h.guest()
	for _, port := range []string{":80", ":81", ":82", ":83", ":84"} {
		h.Alice.Echo(Alice6 + port)
	}
	h.World.Echo(PeerX6 + ":90")
	gone := h.Pin("tcp", Alice6+":80")
	narrowed := h.Pin("tcp", Alice6+":81")
	h.Pin("tcp", Alice6+":82")
	cut := h.Connect(h.World, PeerX6, Alice6+":80")
	staysX, leavesY := h.Connect(h.World, PeerX6, Alice6+":81"), h.Connect(h.World, PeerY6, Alice6+":81")
	stays, outbound := h.Connect(h.World, PeerX6, Alice6+":82"), h.Connect(h.Alice, Alice6, PeerX6+":90")
	lan := h.Connect(guest, "[2001:db8:78::30]", Alice6+":80")
	h.Pin("tcp", Alice6+":83", From(PeerY6))
	limited := h.Pin("tcp", Alice6+":83", From(PeerX6))
	h.Do(h.fw.Scripts.AcceptPort)
	owners := h.Pin("tcp", Alice6+":84", From(PeerX6))
	cutX, staysY := h.Connect(h.World, PeerX6, Alice6+":83"), h.Connect(h.World, PeerY6, Alice6+":83")
	cutX84, ownersY := h.Connect(h.World, PeerX6, Alice6+":84"), h.Connect(h.World, PeerY6, Alice6+":84")

	renewed := h.Renew(gone)
	if err := netnstest.Say(cut, "still here", Reach); err != nil {
		t.Fatalf("a renewal ended the flow: %v", err)
	}
	h.Delete(renewed)
	h.Eventually("the flow of the deleted pinhole ends", func() bool { return ended(cut) })
	onlyX := narrowed
	From(PeerX6)(&onlyX)
	h.Apply([]portmap.Mapping{onlyX}, nil)
	h.Eventually("who is admitted no longer is cut", func() bool { return ended(leavesY) })
	h.Delete(limited, owners)
	h.Eventually("the one host's flows end", func() bool { return ended(cutX) && ended(cutX84) })
	// No other flow would be ended, had its host been the first to go on. A slow echo
	// looks like the end of a flow, so this is also the proof that they are ended.
	var want []string
	for port, peer := range map[string]string{"80": PeerX6, "81": PeerY6, "83": PeerX6, "84": PeerX6} {
		want = append(want, fmt.Sprint(bare(Alice6), " ", port, " ", bare(peer)))
	}
	slices.Sort(want)
	h.Eventually(fmt.Sprintf("the hosts of these flows are refused, and no others: %q", want), func() bool {
		refused := h.fw.Refused(t, h.Gateway)
		slices.Sort(refused)
		return slices.Equal(want, refused)
	})
	goOn(t, map[string]net.Conn{
		"another pinhole's": stays, "an outbound": outbound, "a still admitted": staysX, "another LAN's": lan,
		"another host's": staysY, "the owner's own": ownersY,
	})
	closeEnds(t, h, stays, outbound)
}

// C8: a host that keeps sending does not carry a connection on as its own.
func pinholeDeleteEndsStream(t *testing.T, h *Home) {
	h.streamEnds(Alice6, PeerX6, func(internal string) (portmap.Mapping, string) {
		return h.Pin("tcp", internal), internal
	})
}

// C8: the same with datagrams, where both ends keep sending. What the host began
// itself from that very port goes on.
func pinholeDeleteEndsDatagrams(t *testing.T, h *Home) {
	game := h.Alice.UDP(Alice6 + ":6000")
	x, y := h.World.UDP(PeerX6+":7000"), h.World.UDP(PeerY6+":7000")
	Send(t, game, PeerY6+":7000", "outbound")
	Receive(t, y, "outbound")
	m := h.Pin("udp", Alice6+":6000")
	both := func() {
		Send(t, x, Alice6+":6000", "in")
		Send(t, game, PeerX6+":7000", "out")
	}
	both()
	Receive(t, game, "in")
	Receive(t, x, "out")

	h.Delete(m)
	h.Eventually("the flow ends", func() bool {
		Drain(game)
		Drain(x)
		both()
		return !Arrives(x) && !Arrives(game)
	})
	both()
	ReceiveNothing(t, x, "C8/the host carries it on")
	ReceiveNothing(t, game, "C8/the peer goes on")
	Send(t, y, Alice6+":6000", "answer")
	Receive(t, game, "answer")
	Send(t, game, PeerY6+":7000", "outbound")
	Receive(t, y, "outbound")

	// Another peer is no business of the refusal, and the port may open again.
	h.Pin("udp", Alice6+":6000")
	both()
	Receive(t, game, "in")
	Receive(t, x, "out")
}
