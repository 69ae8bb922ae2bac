package iptables_test

import (
	"strings"
	"testing"

	"portcullis/firewall"
	"portcullis/firewall/homenet"
	"portcullis/internal/netns/netnstest"
	"portcullis/portmap"
)

// What is promised of packets whichever backend it is (homenet).
func shared(t *testing.T, group func(*testing.T, homenet.Firewall)) {
	each(t, func(t *testing.T, flavour string) { group(t, strict(flavour)) })
}

func TestPackets(t *testing.T) { shared(t, homenet.Packets) }

func TestKeptPorts(t *testing.T) { shared(t, homenet.KeptPorts) }

func TestPortShadow(t *testing.T) { shared(t, homenet.PortShadow) }

func TestDeleteEndsFlows(t *testing.T) { shared(t, homenet.DeleteEndsFlows) }

func TestKernelEndsLease(t *testing.T) { shared(t, homenet.KernelEndsLease) }

func TestPinholes(t *testing.T) { shared(t, homenet.Pinholes) }

func TestCounters(t *testing.T) { shared(t, homenet.Counters) }

func TestLeash(t *testing.T) { shared(t, homenet.Leash) }

func TestGatewayServices(t *testing.T) { shared(t, homenet.GatewayServices) }

func TestOutboundTimeout(t *testing.T) { shared(t, homenet.OutboundTimeout) }

func TestDrift(t *testing.T) {
	shared(t, func(t *testing.T, fw homenet.Firewall) {
		homenet.Drift(t, fw, []homenet.Damage{
			{Name: "the owner's rules are loaded anew", Script: fw.Scripts.Reload, Want: "missing"},
			{Name: "FORWARD is flushed", Script: "iptables -F FORWARD", Want: "missing"},
			{Name: "that of IPv6 is", Script: "ip6tables -F FORWARD", Want: "ip6tables"},
			{Name: "our rule is another", Script: "iptables -R FORWARD 1 -j ACCEPT", Want: "missing"},
			{Name: "a drop comes before ours", Script: "iptables -I FORWARD -j DROP", Want: "too late"},
			{Name: "our table is gone", Script: "nft delete table inet portcullis", Want: "our table was gone"},
			{Name: "all is flushed", Script: "nft flush ruleset\n" + fw.Scripts.Home, Want: "our table was gone"},
			{Name: "nothing is marked", Script: "nft flush chain inet portcullis mark_mapped", Want: "our rules were changed"},
			{Name: "our mappings are not", Script: "nft flush set inet portcullis marked_flows", Want: "our mappings were changed"},
		})
	})
}

// A clean stop takes all of ours away, and nothing else.
func TestCloseLeavesTheOwners(t *testing.T) {
	each(t, func(t *testing.T, flavour string) {
		h := homenet.New(t, strict(flavour))
		h.Open("tcp 8080", homenet.Alice+":80")
		h.Pin("tcp", homenet.Alice6+":80")
		if err := h.Backend.Close(homenet.Context(t), false); err != nil {
			t.Fatal(err)
		}
		for _, family := range []string{"", "6"} {
			out := save(t, h.Gateway, flavour, family)
			if strings.Contains(out, "portcullis") {
				t.Errorf("a clean stop leaves:\n%s", out)
			}
			if !strings.Contains(out, ":FORWARD DROP") || !strings.Contains(out, "-A FORWARD -i lan0 -j ACCEPT") {
				t.Errorf("the owner's rules are not as they were:\n%s", out)
			}
		}
	})
}

func TestForwarded(t *testing.T) {
	each(t, func(t *testing.T, flavour string) {
		n := netnstest.New(t, "gateway")
		b := open(t, n, flavour)
		do(t, n, flavour, `iptables -t nat -N DOCKER
			iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
			iptables -t nat -A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
			iptables -t nat -A PREROUTING -i wan0 -p udp -m multiport --dports 53,100:110 -j DNAT --to-destination 192.168.1.9
			iptables -t nat -A PREROUTING -i lan0 -p udp --dport 70 -j REDIRECT --to-ports 71
			iptables -t nat -A PREROUTING -d 198.51.100.1/32 -p udp --dport 72 -j DNAT --to-destination 192.168.1.9`)
		ours := []portmap.Mapping{homenet.Mapping(1, "udp 5000", homenet.Alice+":6000")}
		if err := b.Apply(homenet.Context(t), ours, nil); err != nil {
			t.Fatal(err)
		}
		got, err := b.Forwarded(homenet.Context(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			transport portmap.Transport
			port      uint16
			want      bool
		}{
			{portmap.TCP, 8080, true}, {portmap.UDP, 8080, false}, {portmap.UDP, 53, true}, {portmap.UDP, 105, true},
			{portmap.UDP, 111, false}, {portmap.UDP, 70, false}, {portmap.UDP, 72, false}, {portmap.UDP, 5000, false},
		} {
			if where, taken := got.Taken(c.transport, c.port); taken != c.want {
				t.Errorf("%s %d: taken %v by %q, want %v", c.transport, c.port, taken, where, c.want)
			}
		}
	})
}

// A mapped flow is marked while it is filtered, and at no other time; the owner's bits
// stay as they are, and the mark of others opens nothing.
func TestMark(t *testing.T) {
	each(t, func(t *testing.T, flavour string) {
		h := homenet.New(t, strict(flavour))
		do(t, h.Gateway, flavour, `iptables -t mangle -A PREROUTING -j MARK --set-xmark 0xffff/0xffff
			ip6tables -t mangle -A PREROUTING -j MARK --set-xmark 0xffff/0xffff
			iptables -t nat -A PREROUTING -i wan0 -p udp --dport 7000 -j DNAT --to-destination 192.168.1.10:6000
			iptables -t mangle -A POSTROUTING -o lan0 -p udp -m mark ! --mark 0xfeff -j DROP
			ip6tables -t mangle -A POSTROUTING -o lan0 -p udp -m mark ! --mark 0xfeff -j DROP`)
		game, game6 := h.Alice.UDP(homenet.Alice+":6000"), h.Alice.UDP(homenet.Alice6+":6001")
		h.Stops("a packet with the mark of others", game, homenet.PeerX, homenet.WAN+":7000")
		h.Stops("a packet with the mark of others", game6, homenet.PeerX6, homenet.Alice6+":6001")
		h.Open("udp 5000", homenet.Alice+":6000")
		pin := h.Pin("udp", homenet.Alice6+":6001")
		h.Passes(game, homenet.PeerX, homenet.WAN+":5000")
		h.Passes(game6, homenet.PeerX6, homenet.Alice6+":6001")
		h.Stops("a packet with the mark of others", game, homenet.PeerY, homenet.WAN+":7000")
		h.Delete(pin)
		h.Stops("a packet with the mark of others", game6, homenet.PeerY6, homenet.Alice6+":6001")
	})
}

func TestRefusedGateways(t *testing.T) {
	each(t, func(t *testing.T, flavour string) {
		b := open(t, netnstest.New(t, "gw"), flavour)
		for want, change := range map[string]func(*firewall.Facts){
			"accept_chain": func(g *firewall.Facts) {
				g.AcceptChain = firewall.Chain{Family: "inet", Table: "fw4", Name: "forward"}
			},
			"not an interface": func(g *firewall.Facts) { g.WAN6 = []string{"a b"} },
		} {
			g := homenet.Facts()
			change(&g)
			if err := b.Configure(homenet.Context(t), g); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("Configure: %v, want %q", err, want)
			}
		}
	})
}
