package rig

import (
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"portcullis/internal/control"
)

const lines = `3e2433f5 0/2 1.688 journal version=3 boot=a2988a6e
e23d60fc 1/2 1.688 clock wall=2026-11-29T19:13:01.756Z sync=no
a0a55770 2/2 1.742 epochs v4=1.691 v6=1.691
26fd242d 3/2 1.761 put id=1 made=1.759 end=3601.759 tr=tcp in=192.168.77.10:7001 claims=upnp
79db523f 4/2 1.770 put id=2 made=1.769 end=3601.769 tr=udp in=192.168.77.20:6000 claims=upnp
79db523f 5/2 1.771 put id=3 made=1.769 end=3601.769 tr=udp in=192.168.77.20:6001 claims=upnp
79db523f 6/5 9.771 lease id=1 end=3609.759
79db523f 7/5 9.772 end id=3
`

// TestKept: what a journal says of each mapping is the last that it says.
func TestKept(t *testing.T) {
	want := map[string]string{
		"id=1": " end=3609.759 made=1.759 tr=tcp in=192.168.77.10:7001 claims=upnp",
		"id=2": " made=1.769 end=3601.769 tr=udp in=192.168.77.20:6000 claims=upnp",
	}
	if diff := cmp.Diff(want, kept([]byte(lines))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestDiff: each thing that may change is seen, and what changes by itself is not.
func TestDiff(t *testing.T) {
	at := time.Now()
	world := func(f func(*World)) World {
		w := World{
			Mappings: []control.Mapping{{Protocol: "tcp", ExternalPort: 7001, ExpiresIn: 3600}}, Ruleset: "elements = { tcp . 7001 timeout 1h : 192.168.77.10 . 7001 }",
			Flows:   map[string]time.Duration{"6 a > b, b > a": time.Hour, "17 a > b, b > a": 10 * time.Second},
			Journal: kept([]byte(lines)), at: at,
		}
		if f != nil {
			f(&w)
		}
		return w
	}
	for name, x := range map[string]struct {
		change           func(*World)
		changed, renewed bool // as Unchanged and Renewed see it
	}{
		"nothing":              {nil, false, false},
		"counters":             {func(w *World) { w.Mappings[0].Packets, w.Mappings[0].ExpiresIn = 9, 3599 }, false, false},
		"a mapping":            {func(w *World) { w.Mappings = nil }, true, true},
		"another client":       {func(w *World) { w.Mappings[0].InternalIP = "192.168.77.20" }, true, true},
		"an element":           {func(w *World) { w.Ruleset += "elements = { udp . 1 timeout 1h }" }, true, true},
		"a lease in kernel":    {func(w *World) { w.Ruleset = "elements = { tcp . 7001 timeout 2h : 192.168.77.10 . 7001 }" }, true, false},
		"a lease in journal":   {func(w *World) { w.Journal["id=1"] = " end=99" + w.Journal["id=1"][len(" end=3609.759"):] }, true, false},
		"a line in journal":    {func(w *World) { w.Journal["id=4"] = "" }, true, true},
		"an end in journal":    {func(w *World) { delete(w.Journal, "id=1") }, true, true},
		"a flow comes":         {func(w *World) { w.Flows["6 c > b, b > c"] = time.Hour }, true, true},
		"a flow ends":          {func(w *World) { delete(w.Flows, "6 a > b, b > a") }, true, true},
		"a flow ends too soon": {func(w *World) { delete(w.Flows, "17 a > b, b > a"); w.at = at.Add(5 * time.Second) }, true, true},
		"a flow is forgotten":  {func(w *World) { delete(w.Flows, "17 a > b, b > a"); w.at = at.Add(time.Minute) }, false, false},
	} {
		if diff := world(nil).diff(world(x.change)); (diff != "") != x.changed {
			t.Errorf("%s: %q", name, diff)
		}
		if diff := world(nil).lasting().diff(world(x.change).lasting()); (diff != "") != x.renewed {
			t.Errorf("%s, renewed: %q", name, diff)
		}
	}
}

// TestFlowName: what hosts say to the gateway itself is no flow through it.
func TestFlowName(t *testing.T) {
	tuple := func(from, to string, port uint16) netlink.IPTuple {
		return netlink.IPTuple{SrcIP: net.ParseIP(from), DstIP: net.ParseIP(to), Protocol: 6, SrcPort: 40000, DstPort: port}
	}
	back := func(t netlink.IPTuple) netlink.IPTuple {
		return netlink.IPTuple{SrcIP: t.DstIP, DstIP: t.SrcIP, Protocol: 6, SrcPort: t.DstPort, DstPort: t.SrcPort}
	}
	own := func(ip net.IP) bool { return ip.String() == "192.168.77.1" || ip.String() == "203.0.113.5" }
	control, routed := tuple("192.168.77.10", "192.168.77.1", 5000), tuple("2001:db8::1", "2001:db8:77::10", 9000)
	mapped, moved := tuple("203.0.113.66", "203.0.113.5", 7001), tuple("203.0.113.66", "192.168.77.10", 7001)
	for name, x := range map[string]struct {
		there, back netlink.IPTuple
		through     bool
	}{
		"control": {control, back(control), false}, "the gateway's own": {back(control), control, false},
		"routed": {routed, back(routed), true}, "mapped": {mapped, back(moved), true},
	} {
		if _, through := flowName(&netlink.ConntrackFlow{Forward: x.there, Reverse: x.back}, own); through != x.through {
			t.Errorf("%s: through the gateway: %v", name, through)
		}
	}
}

// TestEnding: what comes from outside to a host, and by no mapping, is about to end.
func TestEnding(t *testing.T) {
	w := World{Mappings: []control.Mapping{{InternalIP: "192.168.77.10", InternalPort: 443}, {InternalIP: "2001:db8:77::10", InternalPort: 9000}}}
	for flow, want := range map[string]bool{
		"6 203.0.113.66:38156 > 203.0.113.5:443, 192.168.77.10:443 > 203.0.113.66:38156":                false,
		"6 203.0.113.66:38156 > 203.0.113.5:443, 192.168.77.10:4431 > 203.0.113.66:38156":               true,
		"6 203.0.113.66:38156 > 203.0.113.5:443, 192.168.77.20:443 > 203.0.113.66:38156":                true,
		"17 2001:db8:ffff::2:5000 > 2001:db8:77::10:9000, 2001:db8:77::10:9000 > 2001:db8:ffff::2:5000": false,
		"17 2001:db8:ffff::2:5000 > 2001:db8:77::10:9001, 2001:db8:77::10:9001 > 2001:db8:ffff::2:5000": true,
		"6 192.168.77.10:40000 > 203.0.113.66:80, 203.0.113.66:80 > 203.0.113.5:40000":                  false, // out
		"6 192.168.77.30:40000 > 203.0.113.5:443, 192.168.77.20:443 > 192.168.77.1:40000":               false, // hairpin
	} {
		if got := w.ending(flow); got != want {
			t.Errorf("%s: %v", flow, got)
		}
	}
}
