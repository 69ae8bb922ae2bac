package nft_test

import (
	"errors"
	"net"
	"strings"
	"testing"

	"portcullis/firewall"
	"portcullis/portmap"
)

// strictOwner is an owner's forward chain that drops what it does not know.
const strictOwner = `table inet fw4 {
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		iifname "lan0" oifname "wan0" accept
	}
}`

func (h *homeNet) configure(acceptChain string) error {
	g := home()
	g.AcceptChain = acceptChain
	return h.backend.Configure(ctx(h.t), g)
}

func TestAcceptChain(t *testing.T) {
	t.Parallel()
	h := newHomeNet(t)
	h.gw.nft(strictOwner)
	before := h.gw.nft("", "list", "table", "inet", "fw4")
	game, other := h.alice.udp(aliceAddr+":6000"), h.bob.udp(bobAddr+":6000")
	m := h.open("udp 5000", aliceAddr+":6000")
	limited := h.open("udp 5001", bobAddr+":6000", onlyFrom(peerX))

	// Each probe comes from another port, so that no flow of an earlier one helps.
	peer := func(addr string) *net.UDPConn { return h.world.udp(net.JoinHostPort(addr, "0")) }
	reaches := func(c *net.UDPConn, from, to string) bool {
		send(t, peer(from), to, "in")
		return arrives(c)
	}
	never := func(what string, c *net.UDPConn, from, to string) {
		t.Helper()
		send(t, peer(from), to, "in")
		receiveNothing(t, c, what)
	}

	never("a drop policy without an accept chain", game, peerX, wanAddr+":5000")
	if err := h.configure("inet fw4 forward"); err != nil {
		t.Fatal(err)
	}
	h.eventually("a mapped packet passes", func() bool { return reaches(game, peerX, wanAddr+":5000") })
	h.eventually("that of the one remote host", func() bool { return reaches(other, peerX, wanAddr+":5001") })
	never("B10/another remote host", other, peerY, wanAddr+":5001")
	hairpin := h.bob.udp(bobAddr + ":7000")
	send(t, hairpin, wanAddr+":5000", "hairpin")
	receive(t, game, "hairpin")

	// What the owner translates himself is his to accept, even to a mapped
	// endpoint: neither another port, nor the limited port for another host.
	h.gw.nft(`table ip owner {
		chain prerouting {
			type nat hook prerouting priority dstnat;
			iifname "wan0" udp dport 9999 dnat to 192.168.1.10:6000
			iifname "wan0" ip saddr 203.0.113.67 udp dport 5001 dnat to 192.168.1.20:6000
		}
	}`)
	never("the owner's translation of another port", game, peerX, wanAddr+":9999")
	never("the owner's translation of a limited port", other, peerY, wanAddr+":5001")
	// And what nobody translates passes no way.
	h.world.route(wanAddr)
	never("an internal address from outside", game, peerX, aliceAddr+":6000")

	h.close(m)
	never("a deleted mapping", game, peerX, wanAddr+":5000")
	h.open("udp 5002", aliceAddr+":6000")
	h.eventually("a new one passes", func() bool { return reaches(game, peerX, wanAddr+":5002") })

	// The owner's firewall reloads, with and without keeping its table.
	reloads := map[string]string{
		"flush":   "flush table inet fw4\n" + strictOwner,
		"restart": "delete table inet fw4\n" + strictOwner,
	}
	for how, ruleset := range reloads {
		h.gw.nft(ruleset)
		never(how+": the jump is gone", game, peerX, wanAddr+":5002")
		drift, err := h.backend.Audit(ctx(t), false)
		if err != nil || drift == "" {
			t.Errorf("%s: audit found %q, %v", how, drift, err)
		}
		h.eventually(how+": the jump is back", func() bool { return reaches(game, peerX, wanAddr+":5002") })
		if drift, err := h.backend.Audit(ctx(t), true); err != nil || drift != "" {
			t.Errorf("%s: a second audit found %q, %v", how, drift, err)
		}
	}
	h.gw.nft(reloads["restart"])
	h.close(limited) // a change that meets the missing sets
	h.eventually("a change puts it back", func() bool { return reaches(game, peerX, wanAddr+":5002") })
	h.gw.nft(reloads["flush"])
	if err := h.configure("inet fw4 forward"); err != nil {
		t.Fatal(err)
	}
	h.eventually("Configure puts it back", func() bool { return reaches(game, peerX, wanAddr+":5002") })

	// Leaving it takes all of ours out, and nothing else.
	if err := h.configure(""); err != nil {
		t.Fatal(err)
	}
	if after := h.gw.nft("", "list", "table", "inet", "fw4"); after != before {
		t.Errorf("left behind:\n%s", after)
	}
	if err := h.configure("inet fw4 forward"); err != nil {
		t.Fatal(err)
	}
	if err := h.backend.Close(ctx(t), false); err != nil {
		t.Fatal(err)
	}
	if after := h.gw.nft("", "list", "table", "inet", "fw4"); after != before {
		t.Errorf("left behind by Close:\n%s", after)
	}
	if tables := h.gw.nft("", "list", "tables"); strings.Contains(tables, "portcullis") {
		t.Errorf("left behind by Close:\n%s", tables)
	}
}

// A chain that cannot serve is named, with the remedy, and all else is in force.
func TestAcceptChainThatCannotServe(t *testing.T) {
	t.Parallel()
	n := newNamespace(t, "gateway")
	n.nft(strictOwner + `
	table inet fw4 {
		chain input {
			type filter hook input priority filter; policy accept;
		}
		chain dstnat {
			type nat hook prerouting priority dstnat; policy accept;
		}
		chain user {
		}
	}
	table ip filter {
		chain DOCKER-USER {
		}
		chain FORWARD {
			type filter hook forward priority filter; policy accept;
			jump DOCKER-USER
		}
	}
	table ip plain {
		chain forward {
			type filter hook forward priority filter; policy drop;
		}
	}`)
	b := open(t, n)
	for name, tc := range map[string]struct{ chain, want string }{
		"no table":             {"inet nosuch forward", "there is no table inet nosuch"},
		"table of a family":    {"ip fw4 forward", "there is no table ip fw4"},
		"no chain":             {"inet fw4 nosuch", "has no chain nosuch"},
		"another hook":         {"inet fw4 input", "does not filter forwarded packets"},
		"a chain that is NAT":  {"inet fw4 dstnat", "does not filter forwarded packets"},
		"a table of iptables":  {"ip filter FORWARD", "belongs to iptables"},
		"a chain of iptables":  {"ip filter DOCKER-USER", "belongs to iptables"},
		"a base chain":         {"inet fw4 forward", ""},
		"a chain of family ip": {"ip plain forward", "it sees IPv4 only, so that IPv6 pinholes may not pass"},
		"a chain jumped to":    {"inet fw4 user", ""},
		"none":                 {"", ""},
		"not the name of one":  {"fw4 forward", "not a chain"},
		"another family":       {"ip6 fw4 forward", "its family must be inet or ip"},
		"something to execute": {"inet fw4 {};flush", "not a chain"},
	} {
		g := home()
		g.AcceptChain = tc.chain
		err := b.Configure(ctx(t), g)
		if tc.want == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
		var chain *firewall.ChainError
		if errors.As(err, &chain) && chain.Chain.String() != tc.chain {
			t.Errorf("%s: the error names %q", name, chain.Chain)
		}
	}

	g := home()
	g.AcceptChain = "inet late forward"
	var missing *firewall.ChainError
	if err := b.Configure(ctx(t), g); !errors.As(err, &missing) {
		t.Fatalf("Configure: %v", err)
	}
	h := &homeNet{t: t}
	m := h.mapping(1, "udp 5000", aliceAddr+":6000")
	if err := b.Replace(ctx(t), []portmap.Mapping{m}); !errors.As(err, &missing) {
		t.Fatalf("Replace: %v", err)
	}
	held, err := b.Entries(ctx(t))
	if err != nil || len(held) != 2 {
		t.Errorf("the rest is not in force: %v, %v", held, err)
	}
	if err := b.Apply(ctx(t), []portmap.Mapping{h.mapping(2, "udp 5001", aliceAddr+":6001")}, nil); err != nil {
		t.Errorf("Apply without the chain: %v", err)
	}
	// It is used as soon as it is there.
	n.nft(strings.ReplaceAll(strictOwner, "fw4", "late"))
	if err := b.Apply(ctx(t), nil, []portmap.Mapping{m}); err != nil {
		t.Fatal(err)
	}
	if late := n.nft("", "list", "table", "inet", "late"); !strings.Contains(late, "udp . 5001 . 192.168.1.10 . 6001") {
		t.Errorf("the chain that came late is not used:\n%s", late)
	}
}

// An accept chain in a table of family ip lets mapped traffic pass. Pinholes have
// no way through it, and that is said; with a chain of their own they have.
func TestAcceptChainOfOneFamily(t *testing.T) {
	t.Parallel()
	h := newHomeNet6(t)
	for _, family := range []string{"ip", "ip6"} {
		h.gw.nft(`table ` + family + ` plain {
			chain forward {
				type filter hook forward priority filter; policy drop;
				ct state established,related accept
			}
		}`)
	}
	before := h.gw.nft("", "list", "ruleset")
	_, before, _ = strings.Cut(before, "table ip plain")
	h.open("udp 5000", aliceAddr+":6000")
	h.pin("udp", alice6+":6000")
	game, game6 := h.alice.udp(aliceAddr+":6000"), h.alice.udp(alice6+":6000")
	passes := func() (four, six bool) {
		send(t, h.world.udp(peerX+":0"), wanAddr+":5000", "in")
		send(t, h.world.udp(peerX6+":0"), alice6+":6000", "in")
		return arrives(game), arrives(game6)
	}
	g := home()
	var wrong *firewall.ChainError
	for _, tc := range []struct {
		name, chain, chain6 string
		wan6                []string
		four, six           bool
		want                string
	}{
		{"of IPv4 alone", "ip plain forward", "", g.WAN6, true, false, `firewall.accept_chain "ip plain forward": it sees IPv4 only`},
		{"without an IPv6 WAN", "ip plain forward", "", nil, true, false, ""},
		{"one for each", "ip plain forward", "ip6 plain forward", g.WAN6, true, true, ""},
		{"of IPv6 alone", "", "ip6 plain forward", g.WAN6, false, true, ""},
		{"a wrong one for IPv6", "ip plain forward", "ip6 nosuch forward", g.WAN6, true, false, `firewall.accept_chain6 "ip6 nosuch forward": there is no table`},
		{"a wrong one for IPv4", "ip nosuch forward", "ip6 plain forward", g.WAN6, false, true, `firewall.accept_chain "ip nosuch forward": there is no table`},
	} {
		g.AcceptChain, g.AcceptChain6, g.WAN6 = tc.chain, tc.chain6, tc.wan6
		err := h.backend.Configure(ctx(t), g)
		if (err == nil) != (tc.want == "") || err != nil && !(errors.As(err, &wrong) && strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
		if _, err := h.backend.Audit(ctx(t), false); (err == nil) != (tc.want == "") {
			t.Errorf("%s: audit: %v, want %q", tc.name, err, tc.want)
		}
		if four, six := passes(); four != tc.four || six != tc.six {
			t.Errorf("%s: IPv4 passes: %v, IPv6 passes: %v; want %v and %v", tc.name, four, six, tc.four, tc.six)
		}
	}
	if err := h.configure(""); err != nil {
		t.Fatal(err)
	}
	after := h.gw.nft("", "list", "ruleset")
	if _, after, _ = strings.Cut(after, "table ip plain"); after != before {
		t.Errorf("left behind:\n%s\nwant\n%s", after, before)
	}
}

// The owner's firewall reloads, and somebody takes an interface from our part:
// pinholes come back by the audit, and by a change.
func TestAcceptChainReloadsWithPinholes(t *testing.T) {
	t.Parallel()
	h := newHomeNet6(t)
	h.strict()
	game := h.alice.udp(alice6 + ":6000")
	h.pin("udp", alice6+":6000")
	for name, tc := range map[string]struct{ ruleset, drift string }{
		"flush":             {"flush table inet fw4\n" + strictOwner, "our part of the accept chain was missing"},
		"restart":           {"delete table inet fw4\n" + strictOwner, "our part of the accept chain was missing"},
		"our chain":         {"flush chain inet fw4 portcullis_forward6", "our part of the accept chain was missing"},
		"an interface":      {"flush set inet fw4 portcullis_wan6_ifaces", "our part of the accept chain was missing"},
		"our own interface": {"flush set inet portcullis wan6_ifaces", "our sets of interfaces and addresses were changed"},
	} {
		h.gw.nft(tc.ruleset)
		if open := h.reaches(game, peerX6, alice6+":6000"); open != (name == "our own interface") {
			t.Errorf("%s: open is %v", name, open)
		}
		if drift, err := h.backend.Audit(ctx(t), false); err != nil || drift != tc.drift {
			t.Errorf("%s: audit found %q, %v", name, drift, err)
		}
		if !h.reaches(game, peerX6, alice6+":6000") {
			t.Errorf("%s: still closed after the audit", name)
		}
		if drift, err := h.backend.Audit(ctx(t), true); err != nil || drift != "" {
			t.Errorf("%s: a second audit found %q, %v", name, drift, err)
		}
	}
	h.gw.nft("delete table inet fw4\n" + strictOwner)
	h.pin("udp", alice6+":6001") // a change that meets the missing sets
	if !h.reaches(game, peerX6, alice6+":6000") {
		t.Error("a change does not put it back")
	}
	h.gw.nft("flush ruleset\n" + strictOwner)
	if err := h.configure("inet fw4 forward"); err != nil {
		t.Fatal(err)
	}
	if !h.reaches(game, peerX6, alice6+":6000") {
		t.Error("Configure does not put it back")
	}
}
