package faults

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// TestDoctorLANs: what is served that the owner may not mean, and an external address that
// the machine does not have.
func TestDoctorLANs(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "a")
	ip(t, &testrig.Rig{Network: n},
		"link add guest0 type veth peer name guest1", "addr add 192.168.88.1/24 dev guest0", "link set guest0 up", "link set guest1 up",
		"link add office0 type veth peer name office1", "addr add 192.168.77.129/25 dev office0", "link set office0 up", "link set office1 up",
		"addr add 198.51.100.1/24 dev br-lan", "addr add 192.168.77.253/24 dev br-lan")
	config := strings.Replace(lab.Settings, `interfaces = ["br-lan"]`, "", 1)
	config = strings.Replace(config, `interface = "wan0"`, `external_ip = "203.0.113.9"`, 1)
	s, _ := examined(t, n, config)
	for id, words := range map[string][]string{
		"lans_detected":       {"3 LANs", "br-lan", "guest0", "office0", "interfaces = ["},
		"interfaces_doubtful": {"br-lan (192.168.77.0/24)", "office0 (192.168.77.128/25)"},
		"external_ip":         {"203.0.113.9", lab.GatewayWAN.String()},
		"lan_address":         {"198.51.100.1 on br-lan", "extra_prefixes"},
	} {
		if !s.has(id, "warning", words...) {
			t.Errorf("%s: %+v", id, s)
		}
	}
	if s, _ := examined(t, n, strings.Replace(config, "[lan]", "[lan]\nextra_prefixes = [\"198.51.100.0/24\"]", 1)); s.has("lan_address", "warning") {
		t.Errorf("its network has been named: %+v", s)
	}
	ip(t, &testrig.Rig{Network: n}, "addr add 203.0.113.9/32 dev lo", "link del office0")
	if s, _ := examined(t, n, config); s.has("lan_address", "warning", "192.168.77.253") || s.has("lans_detected", "warning") || s.has("interfaces_doubtful", "warning") || s.has("external_ip", "warning") {
		t.Errorf("two LANs apart, and the address is there: %+v", s)
	}
}

// TestVirtualAddresses: clients whose router is an address that moves between machines
// (VRRP) are served there, whether it was there at the start or comes later, of whatever
// length.
func TestVirtualAddresses(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "a")
	ip(t, &testrig.Rig{Network: n}, "addr add 192.168.77.253/24 dev br-lan")
	r := testrig.Start(t, n, "")
	a := r.Host("a")
	ask := func(at string, port uint16) {
		t.Helper()
		_, err := mapPCP(t, a, lab.MapRequest{Gateway: netip.MustParseAddr(at), Protocol: "UDP", Internal: port, Lease: time.Hour})
		if err != nil {
			t.Errorf("asked at %s: %v", at, err)
		}
	}
	ask("192.168.77.253", 6000)
	ip(t, r, "addr add 192.168.77.252/32 dev br-lan")
	ask("192.168.77.252", 6001)
	ip(t, r, "addr del 192.168.77.253/24 dev br-lan")
	ask("192.168.77.252", 6002)
	ask(lab.GatewayLAN.String(), 6003)
	if list := r.List(t); len(list) != 4 {
		t.Errorf("open are %+v", list)
	}
}
