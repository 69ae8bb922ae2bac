package iptables_test

import (
	"strings"
	"testing"
	"time"

	"portcullis/firewall"
	"portcullis/portmap"
)

// The owner's FORWARD drops what it does not know, so each packet that passes here
// has passed by our rule.

func TestInbound(t *testing.T) {
	each(t, func(t *testing.T, flavour string) {
		h := newHomeNet(t, flavour)
		game := h.alice.udp(aliceAddr + ":6000")
		peer := h.world.udp(peerX + ":7000")
		h.alice.echo(aliceAddr + ":80")
		send(t, peer, wanAddr+":5000", "closed")
		receiveNothing(t, game, "without a mapping")
		m := h.open("udp 5000", aliceAddr+":6000")
		h.open("tcp 8080", aliceAddr+":80")
		other := h.world.udp(peerX + ":7001")
		send(t, other, wanAddr+":5000", "open")
		from := receive(t, game, "open")
		if from != peerX+":7001" {
			t.Errorf("the host sees %s, want the peer's own address", from)
		}
		send(t, game, from, "answer")
		if got := receive(t, other, "answer"); got != wanAddr+":5000" {
			t.Errorf("the peer sees %s", got)
		}
		c, err := h.world.dial(peerX, wanAddr+":8080", reach)
		if err != nil {
			t.Fatal(err)
		}
		if err := say(c, "hello", reach); err != nil {
			t.Error(err)
		}
		counted, err := h.backend.Counter(ctx(t), m.ID)
		if err != nil || counted.Packets != 2 || counted.Bytes == 0 {
			t.Errorf("counted %+v, %v; want the datagram and its answer", counted, err)
		}
		renewed := m
		renewed.Expires = m.Expires.Add(time.Hour)
		h.apply([]portmap.Mapping{renewed}, []portmap.Mapping{m})
		wipe(h.gw, flavour)
		if drift, err := h.backend.Audit(ctx(t), true); drift == "" || err != nil {
			t.Errorf("Audit: %q, %v", drift, err)
		}
		if all, err := h.backend.Counters(ctx(t)); err != nil || all[m.ID] != counted {
			t.Errorf("after a renewal and a flush: %+v, %v; want %+v", all[m.ID], err, counted)
		}
		// A2: only what is addressed to us.
		h.world.route(wanAddr)
		send(t, other, "192.168.1.1:5000", "weak host")
		receiveNothing(t, game, "A2/to the LAN address")
	})
}

func TestRestrictions(t *testing.T) {
	each(t, func(t *testing.T, flavour string) {
		h := newHomeNet(t, flavour)
		any, limited, filtered := h.alice.udp(aliceAddr+":6000"), h.alice.udp(aliceAddr+":6001"), h.bob.udp(bobAddr+":6000")
		x, y, y53 := h.world.udp(peerX+":7000"), h.world.udp(peerY+":7000"), h.world.udp(peerY+":53")
		host := h.open("udp 5000", aliceAddr+":6001", onlyFrom(peerX))
		send(t, x, wanAddr+":5000", "from x")
		receive(t, limited, "from x")
		send(t, y, wanAddr+":5000", "from y")
		receiveNothing(t, limited, "B10/another remote host")
		inside := h.bob.udp(bobAddr + ":7000")
		send(t, inside, wanAddr+":5000", "from bob")
		receiveNothing(t, limited, "B10/a LAN host")

		h.open("udp 5000", aliceAddr+":6000")
		h.open("udp 5000", bobAddr+":6000", from("203.0.113.0/24 53"))
		send(t, x, wanAddr+":5000", "x again")
		receive(t, limited, "x again")
		h.eventually("the network's source port comes before anyone", func() bool {
			send(t, y53, wanAddr+":5000", "y53")
			return arrives(filtered)
		})
		h.eventually("anyone else reaches the third", func() bool {
			send(t, y, wanAddr+":5000", "y")
			return arrives(any)
		})
		receiveSome(filtered)
		send(t, y53, wanAddr+":5000", "y53")
		receive(t, filtered, "y53")
		h.close(host)
		h.eventually("without it, that host is anyone", func() bool {
			send(t, x, wanAddr+":5000", "from x")
			return arrives(any)
		})
	})
}

func TestHairpinAndKeptPorts(t *testing.T) {
	each(t, func(t *testing.T, flavour string) {
		h := newHomeNet(t, flavour)
		game := h.alice.udp(aliceAddr + ":3074")
		h.open("udp 6001", aliceAddr+":3074")
		h.open("udp 6002", bobAddr+":3074")
		c := h.bob.udp(bobAddr + ":7000")
		send(t, c, wanAddr+":6001", "hairpin")
		send(t, game, receive(t, game, "hairpin"), "answer")
		if got := receive(t, c, "answer"); got != wanAddr+":6001" {
			t.Errorf("the answer comes from %s", got)
		}
		// Two consoles know each other by their external endpoints.
		third := h.bob.udp(bobAddr + ":3074")
		send(t, third, wanAddr+":6001", "console")
		if got := receive(t, game, "console"); got != wanAddr+":6002" {
			t.Errorf("alice sees %s, want bob's external endpoint %s:6002", got, wanAddr)
		}
		_ = third.Close()
		peer, console := h.world.udp(peerX+":7000"), h.bob.udp(bobAddr+":3074")
		for _, tc := range []struct{ text, want string }{{"alice", wanAddr + ":6001"}, {"bob", wanAddr + ":6002"}} {
			from := game
			if tc.text == "bob" {
				from = console
			}
			send(t, from, peerX+":7000", tc.text)
			if got := receive(t, peer, tc.text); got != tc.want {
				t.Errorf("%s: the peer sees %s, want %s", tc.text, got, tc.want)
			}
		}
	})
}

func TestDeleteEndsFlows(t *testing.T) {
	each(t, func(t *testing.T, flavour string) {
		h := newHomeNet(t, flavour)
		h.alice.echo(aliceAddr + ":80")
		h.alice.echo(aliceAddr + ":81")
		gone := h.open("tcp 8080", aliceAddr+":80")
		h.open("tcp 8081", aliceAddr+":81")
		cut, err1 := h.world.dial(peerX, wanAddr+":8080", reach)
		kept, err2 := h.world.dial(peerX, wanAddr+":8081", reach)
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		if err := say(cut, "hello", reach); err != nil {
			t.Fatal(err)
		}
		h.close(gone)
		h.eventually("the flow ends", func() bool { return say(cut, "x", silence) != nil })
		if err := say(kept, "hello", reach); err != nil {
			t.Errorf("another mapping's flow was ended: %v", err)
		}
		if err := h.backend.Close(ctx(t), false); err != nil {
			t.Fatal(err)
		}
		h.eventually("a clean stop ends the rest", func() bool { return say(kept, "x", silence) != nil })
		for _, family := range []string{"", "6"} {
			out, err := h.gw.run("", "ip"+family+"tables-"+flavour+"-save")
			if err != nil || strings.Contains(out, "PORTCULLIS") {
				t.Errorf("a clean stop leaves, %v:\n%s", err, out)
			}
			if !strings.Contains(out, ":FORWARD DROP") || !strings.Contains(out, "-A FORWARD -i lan0 -j ACCEPT") {
				t.Errorf("the owner's rules are not as they were:\n%s", out)
			}
		}
	})
}

// A lease ends by the kernel's own clock. The daemon does nothing here.
func TestLeaseEnds(t *testing.T) {
	each(t, func(t *testing.T, flavour string) {
		h := newHomeNet6(t, flavour)
		game, six := h.alice.udp(aliceAddr+":6000"), h.alice.udp(alice6+":6000")
		soon := func(m *portmap.Mapping) { m.Expires = time.Now().Add(1500*time.Millisecond - time.Minute) }
		start := time.Now()
		h.open("udp 5000", aliceAddr+":6000", soon)
		h.pin("udp", alice6+":6000", soon)
		send(t, h.world.udp(peerX+":0"), wanAddr+":5000", "before")
		send(t, h.world.udp(peerX6+":0"), alice6+":6000", "before")
		receive(t, game, "before")
		receive(t, six, "before")
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		h.eventually("both ends come", func() bool {
			<-tick.C
			send(t, h.world.udp(peerX+":0"), wanAddr+":5000", "after")
			send(t, h.world.udp(peerX6+":0"), alice6+":6000", "after")
			open4, open6 := arrives(game), arrives(six)
			return !open4 && !open6
		})
		if took := time.Since(start); took < 1500*time.Millisecond {
			t.Errorf("it ended after %v, which is too early", took)
		}
	})
}

func TestPinholes(t *testing.T) {
	each(t, func(t *testing.T, flavour string) {
		h := newHomeNet6(t, flavour)
		game, other, bob := h.alice.udp(alice6+":6000"), h.alice.udp(alice6+":6001"), h.bob.udp(bob6+":6000")
		peer := h.world.udp(peerX6 + ":7000")
		send(t, peer, alice6+":6000", "closed")
		receiveNothing(t, game, "without a pinhole")
		m := h.pin("udp", alice6+":6000")
		send(t, peer, alice6+":6000", "open")
		send(t, game, receive(t, game, "open"), "answer")
		receive(t, peer, "answer")
		send(t, peer, alice6+":6001", "another port")
		receiveNothing(t, other, "J7/another port")
		send(t, peer, bob6+":6000", "another host")
		receiveNothing(t, bob, "J7/another host")
		h.pin("udp", bob6+":6000", from(strings.Trim(peerX6, "[]")+"/128"))
		send(t, h.world.udp(peerY6+":7000"), bob6+":6000", "from y")
		receiveNothing(t, bob, "B10/another remote host")
		send(t, peer, bob6+":6000", "from x")
		receive(t, bob, "from x")
		h.close(m)
		h.eventually("the flow ends", func() bool {
			send(t, peer, alice6+":6000", "more")
			return !arrives(game)
		})
	})
}

// What other programs do to the rules is found and put right.
func TestDrift(t *testing.T) {
	each(t, func(t *testing.T, flavour string) {
		h := newHomeNet(t, flavour)
		game := h.alice.udp(aliceAddr + ":6000")
		h.open("udp 5000", aliceAddr+":6000")
		if drift, err := h.backend.Audit(ctx(t), true); drift != "" || err != nil {
			t.Fatalf("Audit of what is whole: %q, %v", drift, err)
		}
		ipt := func(args string) func() { return func() { h.gw.iptables("", flavour, args) } }
		for _, c := range []struct {
			name, want string
			do         func()
		}{
			{"the owner's rules are loaded anew", "gone", h.owner},
			{"FORWARD is flushed", "jump", ipt("-F FORWARD")},
			{"a drop comes before ours", "too late", ipt("-I FORWARD -j DROP")},
			{"a masquerade comes before ours", "too late", ipt("-t nat -I POSTROUTING -o wan0 -j MASQUERADE")},
			{"our mappings are flushed", "changed", ipt("-t nat -F PORTCULLIS-MAP")},
			{"a rule is put among ours", "changed", ipt("-I PORTCULLIS-OPEN -j DROP")},
			{"the guard is flushed", "changed", ipt("-F PORTCULLIS-GUARD")},
		} {
			c.do()
			drift, err := h.backend.Audit(ctx(t), false)
			if err != nil || !strings.Contains(drift, c.want) {
				t.Errorf("%s: Audit says %q, %v; want %q", c.name, drift, err, c.want)
			}
			if drift, err := h.backend.Audit(ctx(t), false); drift != "" || err != nil {
				t.Errorf("%s: after the repair: %q, %v", c.name, drift, err)
			}
			send(t, h.world.udp(peerX+":0"), wanAddr+":5000", c.name)
			receive(t, game, c.name)
		}
		if n := h.backend.Repaired(); n != 7 {
			t.Errorf("repaired %d times, want 7", n)
		}
	})
}

// A1 to A3: our own ports answer the WAN as closed ports do, and the LAN as they are.
func TestGuard(t *testing.T) {
	each(t, func(t *testing.T, flavour string) {
		h := newHomeNet(t, flavour)
		h.gw.echo("0.0.0.0:5000")
		if _, err := h.world.dial(peerX, wanAddr+":5000", reach); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("from the WAN: %v, want a refusal", err)
		}
		if _, err := h.bob.dial(bobAddr, "192.168.1.1:5000", reach); err != nil {
			t.Errorf("from the LAN: %v", err)
		}
		ear := h.gw.udp("0.0.0.0:5351")
		if err := h.world.probe(wanAddr + ":5351"); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("UDP from the WAN: %v, want a refusal", err)
		}
		if arrives(ear) {
			t.Error("a datagram from the WAN has arrived")
		}
	})
}

func TestForwarded(t *testing.T) {
	each(t, func(t *testing.T, flavour string) {
		h := newHomeNet(t, flavour)
		for _, args := range []string{
			"-t nat -N DOCKER", "-t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
			"-t nat -A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80",
			"-t nat -A PREROUTING -i wan0 -p udp -m multiport --dports 53,100:110 -j DNAT --to-destination 192.168.1.9",
			"-t nat -A PREROUTING -i lan0 -p udp --dport 70 -j REDIRECT --to-ports 71",
			"-t nat -A PREROUTING -d 198.51.100.1/32 -p udp --dport 72 -j DNAT --to-destination 192.168.1.9",
		} {
			h.gw.iptables("", flavour, args)
		}
		h.open("udp 5000", aliceAddr+":6000")
		got, err := h.backend.Forwarded(ctx(t))
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

func TestRefusedGateways(t *testing.T) {
	each(t, func(t *testing.T, flavour string) {
		b := open(t, newNamespace(t, "gw"), flavour)
		for want, change := range map[string]func(*firewall.Gateway){
			"accept_chain":          func(g *firewall.Gateway) { g.AcceptChain = "inet fw4 forward" },
			"cannot name":           func(g *firewall.Gateway) { g.LAN = []string{"lan+"} },
			"cannot name the":       func(g *firewall.Gateway) { g.WAN[0].Interface = `wan"0` },
			"not an interface":      func(g *firewall.Gateway) { g.WAN6 = []string{"a b"} },
			`interface "-j"`:        func(g *firewall.Gateway) { g.WAN6 = []string{"-j"} },
			"cannot be a service p": func(g *firewall.Gateway) { g.ServiceTCP = []uint16{0} },
		} {
			g := home()
			change(&g)
			if err := b.Configure(ctx(t), g); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("Configure: %v, want %q", err, want)
			}
		}
	})
}
