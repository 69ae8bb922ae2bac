package homenet

import (
	"os"
	"strings"
	"testing"
	"time"

	"portcullis/firewall"
	"portcullis/internal/netns/netnstest"
	"portcullis/portmap"
)

// Who has which address. The world is one machine with two of each family.
const (
	WAN   = "203.0.113.5"
	PeerX = "203.0.113.66"
	PeerY = "203.0.113.67"
	Gate  = "192.168.1.1"
	Alice = "192.168.1.10"
	Bob   = "192.168.1.20"

	WAN6   = "[2001:db8:5::5]"
	PeerX6 = "[2001:db8:5::66]"
	PeerY6 = "[2001:db8:5::67]"
	Gate6  = "[2001:db8:77::1]"
	Alice6 = "[2001:db8:77::10]"
	Bob6   = "[2001:db8:77::20]"
)

// Reach is how long a packet may take; Silence is how long none may come.
const (
	Reach   = 10 * time.Second
	Silence = 100 * time.Millisecond
)

// Home is a gateway with two hosts on one LAN and an Internet of one machine. IPv4
// is translated, IPv6 is routed: the world has a route to the LAN.
type Home struct {
	Gateway, Alice, Bob, World *netnstest.Space
	Backend                    Backend

	t      *testing.T
	fw     Firewall
	lastID uint64
}

// New builds a home, with the owner's rules and the backend at work. It ends with
// the test.
func New(t *testing.T, fw Firewall) *Home {
	t.Helper()
	h := &Home{
		t: t, fw: fw, Gateway: netnstest.New(t, "gateway"), Alice: netnstest.New(t, "alice"), Bob: netnstest.New(t, "bob"),
		World: netnstest.New(t, "world"),
	}
	netnstest.Cable(h.Alice, end("eth0", Alice, Alice6), h.Gateway, "port1")
	netnstest.Cable(h.Bob, end("eth0", Bob, Bob6), h.Gateway, "port2")
	netnstest.Cable(h.World, end("eth0", PeerX, PeerY, PeerX6, PeerY6), h.Gateway, end("wan0", WAN, WAN6))
	h.Gateway.Bridge("lan0", strings.Fields(end("", Gate, Gate6)), "port1", "port2")
	for _, host := range []*netnstest.Space{h.Alice, h.Bob} {
		host.Route("", Gate)
		host.Route("::/0", bare(Gate6))
	}
	h.World.Route("2001:db8:77::/64", bare(WAN6))
	h.Gateway.Sysctl("net/ipv4/ip_forward", "1")
	h.Gateway.Sysctl("net/ipv6/conf/all/forwarding", "1")
	// Where br_netfilter is loaded, bridged packets would pass our rules before
	// they are routed, and a host could not reach itself.
	if _, err := os.Stat("/proc/sys/net/bridge/bridge-nf-call-iptables"); err == nil {
		h.Gateway.Sysctl("net/bridge/bridge-nf-call-iptables", "0")
		h.Gateway.Sysctl("net/bridge/bridge-nf-call-ip6tables", "0")
	}
	// Everybody has met before the first rule, and the first test of silence. The
	// gateway begins: its bridge has no link-local address for a second, and cannot
	// ask for a host on behalf of the world.
	for _, host := range []string{Alice6, Bob6} {
		for _, who := range []*netnstest.Space{h.Gateway, h.World} {
			h.Eventually("a ping reaches "+host, func() bool { return who.Ping(host, Silence) == nil })
		}
	}
	h.Do(fw.Scripts.Home)
	h.Backend = fw.Open(t, h.Gateway)
	Start(t, h.Backend, h.facts())
	return h
}

// bare is an address without the brackets that a port stands behind.
func bare(addr string) string { return strings.Trim(addr, "[]") }

// end is a cable's end: its name and its addresses, all of them in networks of the
// usual size.
func end(name string, addrs ...string) string {
	for _, a := range addrs {
		if strings.HasPrefix(a, "[") {
			name += " " + bare(a) + "/64"
		} else {
			name += " " + a + "/24"
		}
	}
	return name
}

// Do has the owner's program do something.
func (h *Home) Do(script string) {
	h.t.Helper()
	h.fw.Do(h.t, h.Gateway, script)
}

func (h *Home) facts(change ...func(*firewall.Facts)) firewall.Facts {
	g := Facts()
	if h.fw.Facts != nil {
		h.fw.Facts(&g)
	}
	for _, c := range change {
		c(&g)
	}
	return g
}

// Configure hands the backend the facts of the gateway, changed or as they are.
func (h *Home) Configure(change ...func(*firewall.Facts)) {
	h.t.Helper()
	if err := h.Backend.Configure(Context(h.t), h.facts(change...)); err != nil {
		h.t.Fatal(err)
	}
}

// Open maps an external port, "udp 5000", to an internal endpoint.
func (h *Home) Open(port, internal string, change ...func(*portmap.Mapping)) portmap.Mapping {
	h.t.Helper()
	h.lastID++
	m := Mapping(h.lastID, port, internal, change...)
	h.Apply([]portmap.Mapping{m}, nil)
	return m
}

// Pin opens a pinhole to an endpoint.
func (h *Home) Pin(transport, internal string, change ...func(*portmap.Mapping)) portmap.Mapping {
	h.t.Helper()
	h.lastID++
	m := Pinhole(h.lastID, transport, internal, change...)
	h.Apply([]portmap.Mapping{m}, nil)
	return m
}

// Delete ends mappings and pinholes.
func (h *Home) Delete(ms ...portmap.Mapping) {
	h.t.Helper()
	h.Apply(nil, ms)
}

// Renew renews a mapping for another hour, and returns what it is then.
func (h *Home) Renew(m portmap.Mapping) portmap.Mapping {
	h.t.Helper()
	renewed := m
	renewed.Expires = m.Expires.Add(time.Hour)
	h.Apply([]portmap.Mapping{renewed}, []portmap.Mapping{m})
	return renewed
}

// Apply has the backend change what it holds.
func (h *Home) Apply(add, del []portmap.Mapping) {
	h.t.Helper()
	if err := h.Backend.Apply(Context(h.t), add, del); err != nil {
		h.t.Fatal(err)
	}
}

// Eventually tries until it holds or the test's patience is over.
func (h *Home) Eventually(what string, holds func() bool) {
	h.t.Helper()
	for deadline := time.Now().Add(Reach); !holds(); {
		if time.Now().After(deadline) {
			h.t.Fatalf("never: %s", what)
		}
	}
}
