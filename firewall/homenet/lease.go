package homenet

import (
	"net"
	"testing"
	"time"

	"portcullis/portmap"
)

// KernelEndsLease: the kernel ends a mapping and a pinhole when nobody does (C7).
func KernelEndsLease(t *testing.T, fw Firewall) {
	run(t, fw, test{"Lease", kernelEndsLease})
}

func kernelEndsLease(t *testing.T, h *Home) {
	game, six := h.Alice.UDP(Alice+":6000"), h.Alice.UDP(Alice6+":6000")
	over, end := h.shortLeases(game, six)
	h.Open("udp 5001", Alice+":6000")
	const lasting, mapped = "udp 5001 -> 192.168.1.10:6000\n", "udp 5001 is mapped\n"

	tick := time.NewTicker(100 * time.Millisecond) // each try is a flow of its own
	defer tick.Stop()
	h.Eventually("both ends come", func() bool {
		<-tick.C
		h.knock("after")
		open4, open6 := Arrives(game), Arrives(six)
		return !open4 && !open6
	})
	if early := time.Until(end); early > 0 {
		t.Errorf("it ended %v too early", early)
	}
	if h.fw.Timeouts {
		h.Eventually("the kernel holds the lasting one alone", func() bool { return World(t, h.Backend) == lasting+mapped })
	}
	// The daemon comes late to remove them, and the other keeps its port now.
	h.Delete(over...)
	if got := World(t, h.Backend); got != lasting+"udp 192.168.1.10:6000 keeps 5001\n"+mapped {
		t.Errorf("the kernel holds\n%s", got)
	}
}

// shortLeases opens a mapping and a pinhole that the kernel ends soon, and sees
// them open before. A machine too busy for that within the lease gets a longer one.
func (h *Home) shortLeases(game, six *net.UDPConn) (over []portmap.Mapping, end time.Time) {
	h.t.Helper()
	const grace = time.Minute // that the kernel gives the daemon on top of a lease
	for lease := 1500 * time.Millisecond; ; lease *= 2 {
		end = time.Now().Add(lease)
		soon := func(m *portmap.Mapping) { m.Expires = end.Add(-grace) }
		over = []portmap.Mapping{h.Open("udp 5000", Alice+":6000", soon), h.Pin("udp", Alice6+":6000", soon)}
		h.knock("before")
		if arrivesBy(game, end) && arrivesBy(six, end) {
			return over, end
		}
		if lease > Reach/2 {
			h.t.Fatal("closed before its end")
		}
		h.Delete(over...)
	}
}

// knock sends to the mapping and to the pinhole, each from a port of its own.
func (h *Home) knock(text string) {
	h.t.Helper()
	Send(h.t, h.World.UDP(PeerX+":0"), WAN+":5000", text)
	Send(h.t, h.World.UDP(PeerX6+":0"), Alice6+":6000", text)
}
