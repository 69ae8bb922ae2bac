package abuse

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// tcp is a mapping that is fine but for what a case changes.
func tcp(external, internal uint16, client string) lab.Mapping {
	return lab.Mapping{External: external, Internal: internal, Protocol: "TCP", Client: client, Lease: time.Hour}
}

// TestTargets: B1 to B5. A mapping leads to the host that asked, and nowhere
// else; the same in both versions of the service.
func TestTargets(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	r.inhabit(t)
	type row struct {
		id     string
		target string
		port   uint16
		want   int
	}
	rows := []row{
		{"B1/Internet host", "172.217.165.142", 443, 606},
		{"B1/attacker", lab.InternetOne.String(), 443, 606},
		{"B1/attacker, an ordinary port", lab.InternetOne.String(), 18000, 606},
		{"B2/neighbour's SMB", "192.168.77.20", 445, 606},
		{"B2/neighbour's NetBIOS", "192.168.77.20", 139, 606},
		{"B2/neighbour's ordinary port", "192.168.77.20", 18000, 606},
		{"B2/own SMB", "192.168.77.10", 445, 606},
		{"B3/gateway", "192.168.77.1", 80, 606},
		{"B3/gateway ssh", "192.168.77.1", 22, 606},
		{"B3/gateway, an ordinary port", "192.168.77.1", 18000, 606},
		{"B3/loopback", "127.0.0.1", 443, 606},
		{"B3/other loopback", "127.1.2.3", 53, 606},
		{"B3/loopback, an ordinary port", "127.0.0.1", 18000, 606},
		{"B5/name", "localhost", 18000, 402},
		{"B5/Internet name", "evil.example", 18000, 402},
		{"B5/hex", "0xC0A84D0A", 18000, 402},
		{"B5/decimal", "3232255242", 18000, 402},
		{"B5/leading zeros", "192.168.077.010", 18000, 402},
		{"B5/dot at the end", "192.168.77.10.", 18000, 402},
		{"A8/mapped", "::ffff:192.168.77.10", 18000, 402},
		{"A8/unspecified", "0.0.0.0", 18000, 402},
	}
	for _, addr := range []string{"255.255.255.255", "192.168.77.0", "192.168.77.255", "224.0.0.1", "239.255.255.250",
		"169.254.9.9", "240.0.0.1", lab.GatewayWAN.String(), "100.64.0.9"} {
		rows = append(rows, row{"B4/" + addr, addr, 18000, 402})
	}
	for version, c := range map[string]*lab.ControlPoint{"v1": r.v1(t, "a"), "v2": r.v2(t, "a")} {
		for _, x := range rows {
			t.Run(version+"/"+x.id, func(t *testing.T) {
				r.refused(t, c, tcp(47669, x.port, x.target), x.want)
			})
		}
	}
	c := r.v1(t, "a")
	if err := c.Add(t.Context(), tcp(44000, 18000, " ")); err != nil {
		t.Errorf("B5: a blank InternalClient is the requester: %v", err)
	}
	if err := c.Add(t.Context(), tcp(44001, 18001, "192.168.77.10")); err != nil {
		t.Errorf("A8: the own address: %v", err)
	}
}

// TestRawArguments: B6, B7 and C10 with what only text can say.
func TestRawArguments(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	r.inhabit(t)
	for version, c := range map[int]*lab.ControlPoint{1: r.v1(t, "a"), 2: r.v2(t, "a")} {
		pick := func(v1, v2 int) int {
			if version == 1 {
				return v1
			}
			return v2
		}
		for _, x := range []struct {
			id, argument, value string
			want                int
		}{
			{"B6/too large", "NewExternalPort", "70000", 402},
			{"B6/wraps to 445", "NewExternalPort", "65981", 402},
			{"B6/wraps at 32 bits", "NewInternalPort", "4294967741", 402},
			{"B6/negative", "NewExternalPort", "-1", 402},
			{"B6/plus", "NewInternalPort", "+8000", 402},
			{"B6/hex", "NewInternalPort", "0x1F40", 402},
			{"B6/exponent", "NewInternalPort", "8e3", 402},
			{"B6/text after", "NewInternalPort", "8000;445", 402},
			{"B6/empty", "NewInternalPort", "", 402},
			{"B6/external 0", "NewExternalPort", "0", 716},
			{"B6/external *", "NewExternalPort", "*", 716},
			{"B6/internal 0", "NewInternalPort", "0", pick(402, 732)},
			{"B7/ICMP", "NewProtocol", "ICMP", pick(402, 601)},
			{"B7/SCTP", "NewProtocol", "SCTP", pick(402, 601)},
			{"B7/empty", "NewProtocol", "", pick(402, 601)},
			{"B7/blank behind", "NewProtocol", "TCP ", pick(402, 601)},
			{"B10/name", "NewRemoteHost", "friend.example", 402},
			{"B10/prefix", "NewRemoteHost", "198.51.100.0/24", 402},
			{"C10/negative", "NewLeaseDuration", "-1", 402},
			{"C10/2^32", "NewLeaseDuration", "4294967296", 402},
			{"C10/text", "NewLeaseDuration", "abc", 402},
			{"G11/shell", "NewInternalClient", "`touch /tmp/x`", 402},
			{"G11/format", "NewProtocol", "%n%s", pick(402, 601)},
		} {
			t.Run(fmt.Sprintf("v%d/%s", version, x.id), func(t *testing.T) {
				before := r.World(t)
				if _, err := c.Call(t.Context(), "AddPortMapping", withArgument(x.argument, x.value)...); code(err) != x.want {
					t.Errorf("answered %v, want %d", err, x.want)
				}
				r.Unchanged(t, before)
			})
		}
	}
}

// TestOwnService: B8. A port that the gateway listens on, or that its owner
// forwards, is a conflict; who asks for any port gets another.
func TestOwnService(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	l, err := r.Gateway.Listen("0.0.0.0:51820")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	testrig.On(t, r.Gateway, "nft", "add chain inet hostfw prerouting { type nat hook prerouting priority dstnat; }")
	testrig.On(t, r.Gateway, "nft", "add rule inet hostfw prerouting iifname wan0 tcp dport 25565 dnat ip to 192.168.77.20:25565")
	// What the gateway listens on is read at most once a second, what its owner
	// forwards at most every two: the first grant may still see the world before.
	a1, a2 := r.v1(t, "a"), r.v2(t, "a")
	for _, port := range []uint16{51820, 25565} {
		testrig.Eventually(t, soon, "the port is known to be in use", func() bool {
			err := a1.Add(t.Context(), tcp(port, port, ""))
			if err == nil {
				err = a1.Delete(t.Context(), port, "TCP")
				if err != nil {
					t.Fatal(err)
				}
				return false
			}
			return code(err) == 718
		})
		r.refused(t, a2, tcp(port, port, ""), 729, "B8")
		got, err := a2.AddAny(t.Context(), tcp(port, port, ""))
		if err != nil || got == port || got < 1024 {
			t.Errorf("any port instead of %d: %d, %v", port, got, err)
		}
	}
}

// TestOtherTrafficIsLeftAlone: B9. What LAN hosts open elsewhere on a mapped
// port number goes where they meant it to.
func TestOtherTrafficIsLeftAlone(t *testing.T) {
	t.Parallel()
	r := start(t, "")
	if err := r.v1(t, "a").Add(t.Context(), tcp(18080, 18080, "")); err != nil {
		t.Fatal(err)
	}
	arrived, from, err := lab.Probe(t.Context(), "TCP", r.Host("b"), netip.AddrPortFrom(lab.InternetTwo, 18080), r.Internet, 18080, 3*time.Second)
	if err != nil || !arrived || from.Addr() != lab.GatewayWAN {
		t.Errorf("b's connection to the Internet: %v from %v, %v", arrived, from, err)
	}
}

// TestRemoteHost: B10, SOAP-19. Only the named source gets through, and deleting
// needs the same key.
func TestRemoteHost(t *testing.T) {
	t.Parallel()
	r := start(t, "")
	c := r.v2(t, "a")
	m := lab.Mapping{Remote: lab.InternetTwo.String(), External: 6000, Internal: 6000, Protocol: "UDP", Lease: time.Hour}
	if err := c.Add(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	a := r.Host("a")
	if !r.Blocked(t, "UDP", 6000, a, 6000) {
		t.Error("another source gets through")
	}
	to := netip.AddrPortFrom(lab.GatewayWAN, 6000)
	if !r.Reaches(t, "UDP", lab.InternetTwo, to, a, soon) {
		t.Error("the named source does not get through")
	}
	if err := c.Delete(t.Context(), 6000, "UDP"); code(err) != 714 {
		t.Errorf("delete with another key: %v", err)
	}
	if _, err := c.Call(t.Context(), "DeletePortMapping", "NewRemoteHost", m.Remote, "NewExternalPort", "6000", "NewProtocol", "UDP"); err != nil {
		t.Error(err)
	}
	if r.Reaches(t, "UDP", lab.InternetTwo, to, a, 300*time.Millisecond) {
		t.Error("the named source still gets through")
	}
}

// TestDisabled: B11. A disabled mapping is listed and closed.
func TestDisabled(t *testing.T) {
	t.Parallel()
	r := start(t, "")
	c := r.v2(t, "a")
	before := r.ruleset(t)
	_, err := c.Call(t.Context(), "AddPortMapping", "NewRemoteHost", "", "NewExternalPort", "6000", "NewProtocol", "UDP",
		"NewInternalPort", "6000", "NewInternalClient", "192.168.77.10", "NewEnabled", "0", "NewPortMappingDescription", "", "NewLeaseDuration", "60")
	if err != nil {
		t.Fatal(err)
	}
	list := r.List(t)
	if len(list) != 1 || list[0].Enabled {
		t.Errorf("listed: %+v", list)
	}
	if r.ruleset(t) != before {
		t.Error("the kernel changed for a disabled mapping")
	}
	if !r.Blocked(t, "UDP", 6000, r.Host("a"), 6000) {
		t.Error("a disabled mapping lets packets through")
	}
}

// TestPortTiers: K9 and section 2 in the whole program; every port is tested in
// the policy's own tables.
func TestPortTiers(t *testing.T) {
	t.Parallel()
	r := start(t, noRates+`[[rule]]
name = "web server"
action = "allow"
clients = ["192.168.77.10"]
internal_ports = ["8080"]
external_ports = ["443"]
protocols = ["tcp"]
`)
	r.inhabit(t)
	a, b := r.v1(t, "a"), r.v1(t, "b")
	for _, port := range []uint16{23, 2323, 7547, 5555, 22, 443, 137, 138, 139, 445, 3389} {
		r.refused(t, a, tcp(40000, port, ""), 606, "K9")
	}
	for _, port := range []uint16{23, 445, 7547, 22, 80, 443, 1023} {
		r.refused(t, a, tcp(port, 40000, ""), 606, "K9")
	}
	r.refused(t, b, tcp(443, 8080, ""), 606, "K9")
	if err := a.Add(t.Context(), tcp(443, 8080, "")); err != nil {
		t.Errorf("the rule that names both ports: %v", err)
	}
	if err := b.Add(t.Context(), tcp(3389, 40000, "")); err != nil {
		t.Errorf("a named port above 1024 is free on the outside: %v", err)
	}
}
