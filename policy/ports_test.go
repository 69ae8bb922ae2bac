package policy_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"portcullis/policy"
	"portcullis/portmap"
)

const (
	tcp = portmap.TCP
	udp = portmap.UDP
)

// row is one row of the documents' lists, written independently of the tables.
type row struct {
	on    []portmap.Transport
	ports []portmap.PortRange
}

func both() []portmap.Transport { return []portmap.Transport{tcp, udp} }

// tier0 is the first list of ports in docs/abuse-cases.md.
var tier0 = []row{
	{both(), ports(one(135), span(137, 139), one(445))}, // SMB and NetBIOS over both
	{[]portmap.Transport{tcp}, ports(one(593))},
	{[]portmap.Transport{udp}, ports(span(67, 69), one(546), one(547))},
	{both(), ports(one(111))},
	{[]portmap.Transport{tcp}, ports(span(512, 514))},
	{[]portmap.Transport{udp}, ports(one(514))},
	{[]portmap.Transport{tcp}, ports(one(23), one(2323))},
	{both(), ports(one(1900))},
	{[]portmap.Transport{udp}, ports(one(5350), one(5351), one(5353))},
	{both(), ports(one(5355), one(3702))}, // LLMNR and WS-Discovery have TCP forms as well
	{both(), ports(one(161), one(162), one(389))},
	{[]portmap.Transport{udp}, ports(one(11211), one(19), one(17), one(7))},
	{[]portmap.Transport{tcp}, ports(one(2375), one(2376), one(2379), one(2380), one(10250), one(5555), one(7547),
		one(37215), one(52869), one(5431))},
	{[]portmap.Transport{tcp}, ports(one(32469), one(8324))},
	{[]portmap.Transport{udp}, ports(one(32410), span(32412, 32414))},
}

// tier1 is the second list of ports in docs/abuse-cases.md.
var tier1 = []row{
	{both(), ports(one(3389), span(5900, 5909))}, // RDP and Apple's screen sharing have UDP forms as well
	{[]portmap.Transport{tcp}, ports(one(5800), span(5985, 5986), one(4899), one(47001))},
	{both(), ports(one(1434))},
	{[]portmap.Transport{tcp}, ports(one(1433), one(1521), one(3306), one(5432), one(5984), one(6379), one(8086), one(9042),
		one(9200), one(9300), one(2181), one(9092), one(50070), one(11211), span(27017, 27019))},
	{both(), ports(one(2049), one(8443), one(10000), one(9443))},
	{[]portmap.Transport{tcp}, ports(one(3260), one(5000), one(5001), one(8080), one(8081), one(8006), one(9090))},
	{[]portmap.Transport{tcp}, ports(one(8291), one(8728), one(8729), one(4786), one(8009), one(9100))},
	{both(), ports(one(8554), one(8000), one(34567), one(9527))},
	{[]portmap.Transport{tcp}, ports(one(37777))},
	{both(), ports(one(1883), one(8883), one(20000), one(44818), one(5683))},
	{[]portmap.Transport{udp}, ports(one(47808))},
	{both(), ports(one(5060), one(5061), one(1194), one(4500))},
	{[]portmap.Transport{tcp}, ports(one(1720), one(1723))},
	{[]portmap.Transport{udp}, ports(one(1701))},
}

// expand makes a set of (transport, port) out of rows.
func expand(t *testing.T, rows []row) map[string]bool {
	t.Helper()
	set := map[string]bool{}
	for _, r := range rows {
		for _, tr := range r.on {
			for _, p := range r.ports {
				for port := int(p.First); port <= int(p.Last); port++ {
					key := fmt.Sprintf("%s/%d", tr, port)
					if set[key] {
						t.Errorf("%s stands twice in the list", key)
					}
					set[key] = true
				}
			}
		}
	}
	return set
}

// Every port of both transports and both sides has the tier the documents give
// it: what is listed, and nothing that is not.
func TestTierOfEveryPort(t *testing.T) {
	t.Parallel()
	zero, named := expand(t, tier0), expand(t, tier1)
	for _, tr := range both() {
		for port := 1; port <= 65535; port++ {
			key := fmt.Sprintf("%s/%d", tr, port)
			for _, side := range []policy.Side{policy.Internal, policy.External} {
				want := policy.Ordinary
				switch {
				case zero[key]:
					want = policy.Forbidden
				case port < 1024, named[key] && side == policy.Internal:
					want = policy.Privileged
				}
				got, why := policy.TierOf(side, tr, uint16(port))
				if got != want {
					t.Errorf("%s %s: tier %d, want %d", side, key, got, want)
				}
				if (why == "") != (want == policy.Ordinary) {
					t.Errorf("%s %s: tier %d with why %q", side, key, got, why)
				}
			}
		}
	}
}

func TestTierOfEdges(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		side policy.Side
		tr   portmap.Transport
		port uint16
		want policy.Tier
	}{
		{"2.1/tcp 0 inside", policy.Internal, tcp, 0, policy.Forbidden},
		{"2.1/udp 0 inside", policy.Internal, udp, 0, policy.Forbidden},
		{"2.1/0 outside is any", policy.External, tcp, 0, policy.Ordinary},
		{"2.1/neither TCP nor UDP inside", policy.Internal, 132, 6000, policy.Forbidden},
		{"2.1/neither TCP nor UDP outside", policy.External, 132, 6000, policy.Forbidden},
		{"2.1/tcp 135", policy.Internal, tcp, 135, policy.Forbidden},
		{"2.1/udp 593 is only below 1024", policy.Internal, udp, 593, policy.Privileged},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, why := policy.TierOf(tt.side, tt.tr, tt.port); got != tt.want {
				t.Errorf("tier %d (%s), want %d", got, why, tt.want)
			}
		})
	}
}

// Section 2.1: every port, both sides, by every rule, is refused in a sentence
// that names port and service.
func TestTier0IsRefused(t *testing.T) {
	t.Parallel()
	p := shipped(t, policy.Rule{Name: "all", Action: portmap.Allow, Internal: ports(span(1, 65535)), External: ports(span(1, 65535))})
	for _, r := range tier0 {
		for _, tr := range r.on {
			for _, pr := range r.ports {
				for port := pr.First; port <= pr.Last; port++ {
					t.Run(fmt.Sprintf("2.1/%s %d", tr, port), func(t *testing.T) {
						d := p.Decide(nat(tr, 6000, port), facts())
						check(t, d, portmap.ForbiddenPort)
						_, why := policy.TierOf(policy.Internal, tr, port)
						if !strings.Contains(d.Detail, fmt.Sprintf("port %d is %s", port, why)) {
							t.Errorf("sentence %q", d.Detail)
						}
						check(t, p.Decide(nat(tr, port, 6000), facts()), portmap.ForbiddenPort)
						check(t, p.Decide(pinhole(tr, port), facts()), portmap.ForbiddenPort)
					})
				}
			}
		}
	}
}

// Section 2.2: refused by default, allowed by a rule that names the port, and
// above 1024 no matter for the external port.
func TestTier1NeedsARule(t *testing.T) {
	t.Parallel()
	low := row{both(), ports(one(21), one(22), one(25), one(53), one(80), one(88), one(110), one(143), one(443), one(465),
		one(500), one(554), one(587), one(631), one(636), one(853), one(873), one(993), one(995), one(515), one(502),
		one(102), one(1), one(1023))}
	def := shipped(t)
	for _, r := range append([]row{low}, tier1...) {
		for _, tr := range r.on {
			for _, pr := range r.ports {
				for port := pr.First; port <= pr.Last; port++ {
					t.Run(fmt.Sprintf("2.2/%s %d", tr, port), func(t *testing.T) {
						in, out, pin := nat(tr, 6000, port), nat(tr, port, 6000), pinhole(tr, port)
						check(t, def.Decide(in, facts()), portmap.PrivilegedPort)
						check(t, def.Decide(pin, facts()), portmap.PrivilegedPort)
						outside := portmap.NoReason
						if port < 1024 {
							outside = portmap.PrivilegedPort
						}
						check(t, def.Decide(out, facts()), outside)

						rule := policy.Rule{Name: "named", Action: portmap.Allow, Transports: []portmap.Transport{tr}}
						inside := rule
						inside.Internal = ports(one(port))
						p := shipped(t, inside)
						check(t, p.Decide(in, facts()), portmap.NoReason)
						check(t, p.Decide(pin, facts()), portmap.NoReason)
						rule.External = ports(one(port))
						check(t, shipped(t, rule).Decide(out, facts()), portmap.NoReason)
					})
				}
			}
		}
	}
}

// Section 2.3: what people buy a router for works with no configuration.
func TestMustKeepWorking(t *testing.T) {
	t.Parallel()
	p := shipped(t)
	type use struct {
		app     string
		tr      portmap.Transport
		ext, in uint16
	}
	uses := []use{
		{"Xbox", udp, 3074, 3074}, {"Xbox", tcp, 3074, 3074}, {"Xbox Teredo", udp, 50018, 50018}, {"Xbox Teredo", udp, 3544, 3544},
		{"PlayStation at boot", udp, 9308, 9308}, {"PlayStation", udp, 3074, 3074}, {"PlayStation", udp, 3478, 3478},
		{"PlayStation", tcp, 3479, 3479}, {"PlayStation", tcp, 3480, 3480},
		{"Minecraft", tcp, 25565, 25565}, {"Minecraft Bedrock", udp, 19132, 19132}, {"Godot", udp, 7777, 7777},
		{"Destiny", udp, 3074, 3074}, {"Destiny", udp, 3097, 3097},
		{"Plex", tcp, 32400, 32400}, {"Plex by a random port", tcp, 20123, 32400},
		{"Syncthing", tcp, 35670, 22000}, {"Syncthing", udp, 35670, 22000}, {"Syncthing, any port", tcp, 0, 22000},
		{"torrent", tcp, 51413, 51413}, {"torrent", udp, 51413, 51413}, {"torrent", tcp, 41009, 6881},
		{"Tailscale", udp, 41641, 41641}, {"Tailscale, any port", udp, 0, 41641}, {"WireGuard", udp, 51820, 51820},
		{"ZeroTier", udp, 9993, 9993}, {"Bitcoin", tcp, 8333, 8333}, {"IPFS", tcp, 4001, 4001}, {"IPFS", udp, 4001, 4001},
		{"Ethereum", tcp, 30303, 30303}, {"Ethereum", udp, 30303, 30303},
		{"eMule", tcp, 4662, 4662}, {"eMule", udp, 4672, 4672}, {"Soulseek", tcp, 2234, 2234},
		{"a Tier 1 port outside only", tcp, 8080, 6000},
		{"RTP", udp, 5000, 5000}, {"RTP", udp, 5001, 5001}, {"a game's own server", udp, 8080, 8080}, {"a game's own server", udp, 9090, 9090},
	}
	for port := uint16(27015); port <= 27050; port++ {
		uses = append(uses, use{"Steam", udp, port, port})
	}
	for port := uint16(6881); port <= 6889; port++ {
		uses = append(uses, use{"torrent", tcp, port, port}, use{"torrent", udp, port, port})
	}
	for _, u := range uses {
		t.Run(fmt.Sprintf("2.3/%s %s %d", u.app, u.tr, u.in), func(t *testing.T) {
			check(t, p.Decide(nat(u.tr, u.ext, u.in), facts()), portmap.NoReason)
			check(t, p.Decide(pinhole(u.tr, u.in), facts()), portmap.NoReason)
		})
	}
}

// K9: what malware asks for on an infected host.
func TestMalwareSelfMapping(t *testing.T) {
	t.Parallel()
	p := shipped(t)
	for port, want := range map[uint16]portmap.Reason{
		23: portmap.ForbiddenPort, 2323: portmap.ForbiddenPort, 7547: portmap.ForbiddenPort, 5555: portmap.ForbiddenPort,
		22: portmap.PrivilegedPort, 443: portmap.PrivilegedPort, 993: portmap.PrivilegedPort,
	} {
		t.Run(fmt.Sprintf("K9/%d", port), func(t *testing.T) {
			check(t, p.Decide(nat(tcp, port, port), facts()), want)
			check(t, p.Decide(nat(tcp, 0, port), facts()), want)
			check(t, p.Decide(nat(tcp, 50000, port), facts()), want)
		})
	}
}

// TestClosedPorts: the list that people read says of every port what TierOf decides.
func TestClosedPorts(t *testing.T) {
	t.Parallel()
	type entry struct {
		tier policy.Tier
		why  string
	}
	all := policy.ClosedPorts()
	for _, tr := range both() {
		for port := 1; port <= 65535; port++ {
			for _, side := range []policy.Side{policy.Internal, policy.External} {
				got := entry{tier: policy.Ordinary}
				for _, c := range all {
					if !c.Ports.Contains(uint16(port)) || !slices.Contains(c.Transports, tr) || c.InsideOnly && side == policy.External {
						continue
					}
					// Tier 0 is first, and what names a port comes behind what does not.
					if got.tier != policy.Forbidden {
						got = entry{c.Tier, c.Why}
					}
				}
				tier, why := policy.TierOf(side, tr, uint16(port))
				if want := (entry{tier, why}); got != want {
					t.Errorf("%s %s port %d: %v, want %v", side, tr, port, got, want)
				}
			}
		}
	}
}
