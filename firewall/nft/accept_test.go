package nft_test

import (
	"errors"
	"strings"
	"testing"

	"portcullis/firewall"
	"portcullis/firewall/homenet"
	"portcullis/internal/netns/netnstest"
	"portcullis/portmap"
)

func TestAcceptChain(t *testing.T) {
	t.Parallel()
	h := homenet.New(t, plain())
	h.Do(strictOwner)
	before := list(t, h.Gateway, "table", "inet", "fw4")
	game, other := h.Alice.UDP(homenet.Alice+":6000"), h.Bob.UDP(homenet.Bob+":6000")
	m := h.Open("udp 5000", homenet.Alice+":6000")
	limited := h.Open("udp 5001", homenet.Bob+":6000", homenet.From(homenet.PeerX))

	h.Stops("a drop policy without an accept chain", game, homenet.PeerX, homenet.WAN+":5000")
	h.Configure(acceptChain("inet fw4 forward"))
	h.Passes(game, homenet.PeerX, homenet.WAN+":5000")
	h.Passes(other, homenet.PeerX, homenet.WAN+":5001")
	h.Stops("B10/another remote host", other, homenet.PeerY, homenet.WAN+":5001")
	hairpin := h.Bob.UDP(homenet.Bob + ":7000")
	homenet.Send(t, hairpin, homenet.WAN+":5000", "hairpin")
	homenet.Receive(t, game, "hairpin")

	// What the owner translates himself is his to accept, even to a mapped
	// endpoint: neither another port, nor the limited port for another host.
	h.Do(`table ip owner {
		chain prerouting {
			type nat hook prerouting priority dstnat;
			iifname "wan0" udp dport 9999 dnat to 192.168.1.10:6000
			iifname "wan0" ip saddr 203.0.113.67 udp dport 5001 dnat to 192.168.1.20:6000
		}
	}`)
	h.Stops("the owner's translation of another port", game, homenet.PeerX, homenet.WAN+":9999")
	h.Stops("the owner's translation of a limited port", other, homenet.PeerY, homenet.WAN+":5001")
	// And what nobody translates passes no way.
	h.World.Route("", homenet.WAN)
	h.Stops("an internal address from outside", game, homenet.PeerX, homenet.Alice+":6000")

	h.Delete(m)
	h.Stops("a deleted mapping", game, homenet.PeerX, homenet.WAN+":5000")
	h.Open("udp 5002", homenet.Alice+":6000")
	h.Passes(game, homenet.PeerX, homenet.WAN+":5002")

	// The owner's firewall reloads, with and without keeping its table.
	reloads := map[string]string{
		"flush":   "flush table inet fw4\n" + strictOwner,
		"restart": "delete table inet fw4\n" + strictOwner,
	}
	for how, ruleset := range reloads {
		h.Do(ruleset)
		h.Stops(how+": the jump is gone", game, homenet.PeerX, homenet.WAN+":5002")
		drift, err := h.Backend.Audit(ctx(t), false)
		if err != nil || drift == "" {
			t.Errorf("%s: audit found %q, %v", how, drift, err)
		}
		h.Passes(game, homenet.PeerX, homenet.WAN+":5002")
		if drift, err := h.Backend.Audit(ctx(t), true); err != nil || drift != "" {
			t.Errorf("%s: a second audit found %q, %v", how, drift, err)
		}
	}
	h.Do(reloads["restart"])
	h.Delete(limited) // a change that meets the missing sets
	h.Passes(game, homenet.PeerX, homenet.WAN+":5002")
	h.Do(reloads["flush"])
	h.Configure(acceptChain("inet fw4 forward"))
	h.Passes(game, homenet.PeerX, homenet.WAN+":5002")

	// Leaving it takes all of ours out, and nothing else.
	h.Configure(acceptChain(""))
	if after := list(t, h.Gateway, "table", "inet", "fw4"); after != before {
		t.Errorf("left behind:\n%s", after)
	}
	h.Configure(acceptChain("inet fw4 forward"))
	if err := h.Backend.Close(ctx(t), false); err != nil {
		t.Fatal(err)
	}
	if after := list(t, h.Gateway, "table", "inet", "fw4"); after != before {
		t.Errorf("left behind by Close:\n%s", after)
	}
	if tables := list(t, h.Gateway, "tables"); strings.Contains(tables, "portcullis") {
		t.Errorf("left behind by Close:\n%s", tables)
	}
}

// A chain that cannot serve is named, with the remedy, and all else is in force.
func TestAcceptChainThatCannotServe(t *testing.T) {
	t.Parallel()
	n := netnstest.New(t, "gateway")
	do(t, n, strictOwner+`
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
		g := homenet.Facts()
		g.AcceptChain = chain(tc.chain)
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
		var wrong *firewall.ChainError
		if errors.As(err, &wrong) && wrong.Chain.String() != tc.chain {
			t.Errorf("%s: the error names %q", name, wrong.Chain)
		}
	}

	g := homenet.Facts()
	g.AcceptChain = chain("inet late forward")
	var missing *firewall.ChainError
	if err := b.Configure(ctx(t), g); !errors.As(err, &missing) {
		t.Fatalf("Configure: %v", err)
	}
	m := homenet.Mapping(1, "udp 5000", homenet.Alice+":6000")
	if err := b.Replace(ctx(t), []portmap.Mapping{m}); !errors.As(err, &missing) {
		t.Fatalf("Replace: %v", err)
	}
	held, err := b.Entries(ctx(t))
	if err != nil || len(held) != 3 {
		t.Errorf("the rest is not in force: %v, %v", held, err)
	}
	if err := b.Apply(ctx(t), []portmap.Mapping{homenet.Mapping(2, "udp 5001", homenet.Alice+":6001")}, nil); err != nil {
		t.Errorf("Apply without the chain: %v", err)
	}
	// It is used as soon as it is there.
	do(t, n, strings.ReplaceAll(strictOwner, "fw4", "late"))
	if err := b.Apply(ctx(t), nil, []portmap.Mapping{m}); err != nil {
		t.Fatal(err)
	}
	if late := list(t, n, "table", "inet", "late"); !strings.Contains(late, "udp . 5001 . 192.168.1.10 . 6001") {
		t.Errorf("the chain that came late is not used:\n%s", late)
	}
}

// An accept chain in a table of family ip lets mapped traffic pass. Pinholes have
// no way through it, and that is said; with a chain of their own they have.
func TestAcceptChainOfOneFamily(t *testing.T) {
	t.Parallel()
	h := homenet.New(t, plain())
	for _, family := range []string{"ip", "ip6"} {
		h.Do(`table ` + family + ` plain {
			chain forward {
				type filter hook forward priority filter; policy drop;
				ct state established,related accept
			}
		}`)
	}
	before := list(t, h.Gateway, "ruleset")
	_, before, _ = strings.Cut(before, "table ip plain")
	h.Open("udp 5000", homenet.Alice+":6000")
	h.Pin("udp", homenet.Alice6+":6000")
	game, game6 := h.Alice.UDP(homenet.Alice+":6000"), h.Alice.UDP(homenet.Alice6+":6000")
	passes := func() (four, six bool) {
		homenet.Send(t, h.World.UDP(homenet.PeerX+":0"), homenet.WAN+":5000", "in")
		homenet.Send(t, h.World.UDP(homenet.PeerX6+":0"), homenet.Alice6+":6000", "in")
		return homenet.Arrives(game), homenet.Arrives(game6)
	}
	g := homenet.Facts()
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
		g.AcceptChain, g.AcceptChain6, g.WAN6 = chain(tc.chain), chain(tc.chain6), tc.wan6
		err := h.Backend.Configure(ctx(t), g)
		if (err == nil) != (tc.want == "") || err != nil && !(errors.As(err, &wrong) && strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
		if _, err := h.Backend.Audit(ctx(t), false); (err == nil) != (tc.want == "") {
			t.Errorf("%s: audit: %v, want %q", tc.name, err, tc.want)
		}
		if four, six := passes(); four != tc.four || six != tc.six {
			t.Errorf("%s: IPv4 passes: %v, IPv6 passes: %v; want %v and %v", tc.name, four, six, tc.four, tc.six)
		}
	}
	h.Configure(acceptChain(""))
	after := list(t, h.Gateway, "ruleset")
	if _, after, _ = strings.Cut(after, "table ip plain"); after != before {
		t.Errorf("left behind:\n%s\nwant\n%s", after, before)
	}
}

// Other facts alone do not make us write the owner's chain anew.
func TestFactsLeaveTheAcceptChain(t *testing.T) {
	t.Parallel()
	h := homenet.New(t, strict())
	h.Pin("udp", homenet.Alice6+":6000")
	rules := func() string { return run(t, h.Gateway, "", "-a", "list", "chain", "inet", "fw4", "forward") }
	jumps := rules()
	for name, change := range homenet.OtherInterfaces {
		h.Configure(change)
		if now := rules(); now != jumps {
			t.Errorf("%s: the rules are\n%s\nwere\n%s", name, now, jumps)
		}
	}
	h.Configure()
	if now := rules(); now != jumps {
		t.Errorf("the facts are as they were, and the rules are\n%s\nwere\n%s", now, jumps)
	}
}

// The owner's firewall reloads, and somebody takes an interface from our part:
// pinholes come back by the audit, and by a change.
func TestAcceptChainReloadsWithPinholes(t *testing.T) {
	t.Parallel()
	h := homenet.New(t, strict())
	game := h.Alice.UDP(homenet.Alice6 + ":6000")
	h.Pin("udp", homenet.Alice6+":6000")
	for name, tc := range map[string]struct{ ruleset, drift string }{
		"flush":             {"flush table inet fw4\n" + strictOwner, "our part of the accept chain was missing"},
		"restart":           {"delete table inet fw4\n" + strictOwner, "our part of the accept chain was missing"},
		"our chain":         {"flush chain inet fw4 portcullis_forward6", "our part of the accept chain was missing"},
		"an interface":      {"flush set inet fw4 portcullis_wan6_ifaces", "our part of the accept chain was missing"},
		"our own interface": {"flush set inet portcullis wan6_ifaces", "our sets of interfaces and addresses were changed"},
	} {
		h.Do(tc.ruleset)
		if name == "our own interface" { // which only counts
			h.Passes(game, homenet.PeerX6, homenet.Alice6+":6000")
		} else {
			h.Stops(name, game, homenet.PeerX6, homenet.Alice6+":6000")
		}
		if drift, err := h.Backend.Audit(ctx(t), false); err != nil || drift != tc.drift {
			t.Errorf("%s: audit found %q, %v", name, drift, err)
		}
		h.Passes(game, homenet.PeerX6, homenet.Alice6+":6000")
		if drift, err := h.Backend.Audit(ctx(t), true); err != nil || drift != "" {
			t.Errorf("%s: a second audit found %q, %v", name, drift, err)
		}
	}
	h.Do("delete table inet fw4\n" + strictOwner)
	h.Pin("udp", homenet.Alice6+":6001") // a change that meets the missing sets
	h.Passes(game, homenet.PeerX6, homenet.Alice6+":6000")
	h.Do("flush ruleset\n" + strictOwner)
	h.Configure(acceptChain("inet fw4 forward"))
	h.Passes(game, homenet.PeerX6, homenet.Alice6+":6000")
}
