package ssdp_test

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"portcullis/internal/datagram"
	"portcullis/internal/slog"
	"portcullis/ssdp"
)

// TestSpecificAtOnce: a search for one thing is answered in the same instant,
// whatever MX says, to the port it came from and from the address asked.
func TestSpecificAtOnce(t *testing.T) {
	for _, c := range []struct {
		name, row string
		packet    []byte
		edit      func(*datagram.Packet)
	}{
		{"SSDP-1/rootdevice", announced()[0], search(root, "MX: 2"), nil},
		{"SSDP-4/version 2", urnDevice + "InternetGatewayDevice:2 uuid:" + uuidR + "::" + urnDevice + "InternetGatewayDevice:2",
			search(urnDevice+"InternetGatewayDevice:2", "MX: 5"), nil},
		{"SSDP-8/uuid", announced()[4], search("uuid:"+uuidW, "MX: 1"), nil},
		{"SSDP-11/MX 120", announced()[0], search(root, "MX: 120"), nil},
		{"SSDP-12/MX 0", announced()[0], search(root, "MX: 0"), nil},
		{"SSDP-13/unicast without MX", announced()[0], search(root), unicast},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := settled(t, config())
				defer r.finish()
				began := time.Now()
				if c.edit == nil {
					c.edit = func(*datagram.Packet) {}
				}
				r.from(clientA, c.packet, c.edit)
				got := r.conn.take()
				if diff := cmp.Diff([]string{c.row}, rows(t, got)); diff != "" {
					t.Fatalf("(-want +got):\n%s", diff)
				}
				if wait := got[0].at.Sub(began); wait != 0 {
					t.Errorf("answered after %v", wait)
				}
				if got[0].from != gateway || got[0].to != clientA {
					t.Errorf("sent from %v to %v", got[0].from, got[0].to)
				}
				if pass(10 * time.Second); len(r.conn.take()) != 0 {
					t.Error("answered again")
				}
			})
		})
	}
}

// TestPlain: who is to be shown one description is, whatever it searches for and however; its
// answers name what it has searched for, as those to everybody else do.
func TestPlain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := config()
		cfg.Plain = func(a netip.Addr) bool { return a == clientA.Addr() }
		r := settled(t, cfg)
		defer r.finish()
		for _, target := range []string{urnDevice + "InternetGatewayDevice:1", urnDevice + "InternetGatewayDevice:2", root, "ssdp:all"} {
			for client, plain := range map[netip.AddrPort]bool{clientA: true, clientB: false} {
				r.from(client, search(target, "MX: 1"), func(*datagram.Packet) {})
				pass(2 * time.Second)
				got := r.conn.take()
				if len(got) == 0 {
					t.Errorf("%s: %s is not answered", client, target)
				}
				for _, answer := range got {
					m := read(t, answer.text)
					if is := strings.HasSuffix(m.header.Get("Location"), "/v3.xml") && m.header.Get("CONFIGID.UPNP.ORG") == "1003"; is != plain {
						t.Errorf("%s, who searched for %s, is shown %s", client, target, m.header.Get("Location"))
					}
					if target != "ssdp:all" && m.header.Get("ST") != target {
						t.Errorf("%s: ST is %s", target, m.header.Get("ST"))
					}
				}
			}
		}
	})
}

// TestAllIsSpread: SSDP-2, one answer a row, spread over the time MX allows.
func TestAllIsSpread(t *testing.T) {
	for _, c := range []struct {
		name   string
		packet []byte
		edit   func(*datagram.Packet)
		window time.Duration
	}{
		{"SSDP-2/MX 2", search("ssdp:all", "MX: 2"), func(*datagram.Packet) {}, 2 * time.Second},
		{"SSDP-11/MX 120", search("ssdp:all", "MX: 120"), func(*datagram.Packet) {}, 5 * time.Second},
		{"SSDP-13/unicast", search("ssdp:all"), unicast, time.Second},
		{"SSDP-12/MX 0", search("ssdp:all", "MX: 0"), func(*datagram.Packet) {}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := settled(t, config())
				defer r.finish()
				began := time.Now()
				r.from(clientA, c.packet, c.edit)
				pass(10 * time.Second)
				got := r.conn.take()
				if diff := cmp.Diff(announced(), rows(t, got)); diff != "" {
					t.Fatalf("(-want +got):\n%s", diff)
				}
				halves := [2]int{}
				for _, s := range got {
					wait := s.at.Sub(began)
					if wait > c.window*9/10 { // the rest is for the way
						t.Errorf("answered after %v of %v", wait, c.window)
					}
					if wait < c.window*45/100 {
						halves[0]++
					} else {
						halves[1]++
					}
				}
				if c.window > 0 && (halves[0] < 5 || halves[1] < 5) {
					t.Errorf("%d answers in the first half, %d in the second", halves[0], halves[1])
				}
			})
		})
	}
}

// TestSilence: datagrams that get no answer. Each is sent by a host that is then
// answered, so that the silence is not for want of a server.
func TestSilence(t *testing.T) {
	good := search(root, "MX: 1")
	from := func(s string) func(*datagram.Packet) {
		return func(p *datagram.Packet) { p.Source = netip.MustParseAddrPort(s) }
	}
	to := func(s string) func(*datagram.Packet) {
		return func(p *datagram.Packet) { p.Destination = netip.MustParseAddr(s) }
	}
	for _, c := range []struct {
		name   string
		packet []byte
		edit   func(*datagram.Packet)
	}{
		{"SSDP-7/version 3", search(urnService+"WANIPConnection:3", "MX: 1"), nil},
		{"SSDP-10/multicast without MX", search(root), nil},
		{"SSDP-14/MAN missing", []byte(lines("MX: 1", "ST: "+root)), nil},
		{"SSDP-14/MAN other", []byte(lines(`MAN: "ssdp:other"`, "MX: 1", "ST: "+root)), nil},
		{"SSDP-14/ST missing", []byte(lines(man, "MX: 1")), nil},
		{"SSDP-14/ST empty", search("", "MX: 1"), nil},
		{"SSDP-17/off link", good, from("10.9.9.9:40000")},
		{"SSDP-17/off link, unicast", good, func(p *datagram.Packet) { from("10.9.9.9:40000")(p); unicast(p) }},
		{"E7/another interface", good, func(p *datagram.Packet) { p.Ifindex = lanIndex + 1 }},
		{"A2/interface unknown", good, func(p *datagram.Packet) { p.Ifindex = 0 }},
		{"A4/external address", good, to("203.0.113.5")},
		{"A4/broadcast", good, to("192.168.1.255")},
		{"A4/another group", good, to("224.0.0.1")},
		{"A4/destination unknown", good, func(p *datagram.Packet) { p.Destination = netip.Addr{} }},
		{"A8/mapped source", good, from("[::ffff:192.168.1.50]:40000")},
		{"E5/port 0", good, from("192.168.1.50:0")},
		{"E5/port 7", good, from("192.168.1.50:7")},
		{"E5/port 19", good, from("192.168.1.50:19")},
		{"E5/port 53", good, from("192.168.1.50:53")},
		{"E5/own address", good, from("192.168.1.1:40000")},
		{"E5/broadcast", good, from("192.168.1.255:40000")},
		{"E5/network", good, from("192.168.1.0:40000")},
		{"E5/limited broadcast", good, from("255.255.255.255:40000")},
		{"E5/multicast", good, from("239.255.255.250:40000")},
		{"E5/unspecified", good, from("0.0.0.0:40000")},
		{"E6/alive of another device", []byte("NOTIFY * HTTP/1.1\r\nNT: upnp:rootdevice\r\n\r\n"), nil},
		{"E2/oversize", append(slices.Clone(good), make([]byte, 1500)...), nil},
		{"E2/empty", nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := settled(t, config())
				defer r.finish()
				if c.edit == nil {
					c.edit = func(*datagram.Packet) {}
				}
				r.from(clientA, c.packet, c.edit)
				pass(7 * time.Second)
				if got := r.conn.take(); len(got) != 0 {
					t.Errorf("answered: %q", got[0].text)
				}
				if r.from(clientA, good); len(r.conn.take()) != 1 {
					t.Error("the good search gets no answer")
				}
			})
		})
	}
}

// TestSearchFromPort1900: ODD-15, a control point that shares the port searches from it
// (js-libp2p does), so there E5 is not followed.
func TestSearchFromPort1900(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := settled(t, config())
		defer r.finish()
		r.from(clientA, search(root, "MX: 1"), func(p *datagram.Packet) { p.Source = netip.MustParseAddrPort("192.168.1.50:1900") })
		if got := r.conn.take(); len(got) != 1 {
			t.Errorf("%d answers", len(got))
		}
	})
}

// TestSmallNetworks: in a /31 and a /32 no address is set apart (RFC 3021), and
// routed prefixes of the owner count as the LAN (abuse case A6).
func TestSmallNetworks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, config())
		defer r.finish()
		prefixes := []netip.Prefix{
			netip.MustParsePrefix("192.168.1.2/31"),
			netip.MustParsePrefix("192.168.7.7/32"),
			netip.MustParsePrefix("10.1.2.3/16"), // not masked: an interface's own form
			netip.MustParsePrefix("::/0"),
		}
		r.server.SetAddresses([]netip.Addr{netip.MustParseAddr("192.168.1.2")}, prefixes)
		clear(prefixes) // the caller's slice stays the caller's
		pass(3 * time.Second)
		r.conn.take()
		for source, want := range map[string]int{
			"192.168.1.3:9999": 1, "192.168.7.7:9999": 1, "192.168.7.8:9999": 0,
			"10.1.0.255:9999": 1, "10.1.255.255:9999": 0, "10.1.0.0:9999": 0, "10.2.0.1:9999": 0,
			"[2001:db8::5]:9999": 0, "[::ffff:192.168.1.3]:9999": 0,
		} {
			r.from(netip.MustParseAddrPort(source), search(root, "MX: 1"))
			if got := len(r.conn.take()); got != want {
				t.Errorf("%s: %d answers, want %d", source, got, want)
			}
		}
	})
}

// TestFlood: E1, a forger in the name of B asks for everything 10 000 times a
// second; A is still answered at once.
func TestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := settled(t, config())
		defer r.finish()
		const seconds = 3
		for i := range seconds * 10_000 {
			source := netip.AddrPortFrom(clientB.Addr(), uint16(20000+i%20000))
			r.from(source, search("ssdp:all", "MX: 1"))
			pass(100 * time.Microsecond)
		}
		r.from(clientA, search(root, "MX: 1"))
		synctest.Wait()
		pass(time.Second)
		perHost := map[netip.Addr]int{}
		for _, s := range r.conn.take() {
			perHost[s.to.Addr()]++
		}
		if got, most := perHost[clientB.Addr()], (seconds+1)*ssdp.HostRate; got > most || got < most-len(announced()) {
			t.Errorf("B was sent %d answers, want up to %d", got, most)
		}
		if got := perHost[clientA.Addr()]; got != 1 {
			t.Errorf("A was sent %d answers, want 1", got)
		}
	})
}

// TestQueueIsBounded: E1, forged hosts that ask for everything and all the time
// MX gives cannot pile up answers without end.
func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := settled(t, config())
		defer r.finish()
		for i := range 400 { // over 4 s: by the rates alone some 230 would wait
			source := netip.AddrFrom4([4]byte{192, 168, 1, byte(2 + i%250)})
			r.from(netip.AddrPortFrom(source, uint16(9000+i)), search("ssdp:all", "MX: 5"))
			pass(10 * time.Millisecond)
		}
		r.conn.take()
		pass(10 * time.Second)
		waiting := len(r.conn.take())
		if waiting > ssdp.MaxQueued || waiting <= ssdp.MaxQueued-2*len(announced()) {
			t.Errorf("%d answers were waiting, want nearly %d", waiting, ssdp.MaxQueued)
		}
	})
}

// TestSecondSearchWhileWaiting: who repeats a search for everything (datagrams
// get lost) gets one set, and keeps its allowance for what it asks next.
func TestSecondSearchWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := settled(t, config())
		defer r.finish()
		for range 3 {
			r.from(clientA, search("ssdp:all", "MX: 5"))
			pass(time.Second) // in which its allowance is full again
		}
		r.from(clientA, search(root, "MX: 2"))
		pass(10 * time.Second)
		if got, want := len(r.conn.take()), len(announced())+1; got != want {
			t.Errorf("%d answers, want %d", got, want)
		}
		if r.from(clientA, search("ssdp:all", "MX: 0")); len(r.conn.take()) != len(announced()) {
			t.Error("no set for a later search")
		}
	})
}

// TestNotBeforeAddress: without an address there is nothing to say.
func TestNotBeforeAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, config())
		defer r.finish()
		for _, a := range []netip.Addr{{}, netip.MustParseAddr("fe80::1"), netip.MustParseAddr("::ffff:192.168.1.1")} {
			r.server.SetAddresses([]netip.Addr{a}, []netip.Prefix{lan})
			r.from(clientA, search(root, "MX: 1"))
			pass(time.Hour)
		}
		r.cancel()
		pass(time.Second)
		if got := r.conn.take(); len(got) != 0 {
			t.Errorf("sent %q", got[0].text)
		}
	})
}

// TestLocationIsChecked: a location that would break the message is not used.
func TestLocationIsChecked(t *testing.T) {
	for _, bad := range []string{"", "http://192.168.1.1/\r\nX: 1", "http://x/" + strings.Repeat("y", 120)} {
		synctest.Test(t, func(t *testing.T) {
			cfg := config()
			var log bytes.Buffer
			cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
			cfg.Describe = func(int, netip.Addr) ssdp.Description { return ssdp.Description{Location: bad} }
			r := start(t, cfg)
			r.server.SetAddresses([]netip.Addr{gateway}, []netip.Prefix{lan})
			r.from(clientA, search(root, "MX: 1"))
			pass(time.Hour)
			r.finish()
			if got := r.conn.take(); len(got) != 0 {
				t.Errorf("sent %q", got[0].text)
			}
			if !strings.Contains(log.String(), "unusable location") {
				t.Errorf("log: %s", log.String())
			}
		})
	}
}

// TestReadErrors: a socket that fails now and then is borne, one that only fails
// ends Run with its error, after the byebye.
func TestReadErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := settled(t, config())
		broken := errors.New("broken")
		for range 3 {
			for range 9 {
				r.conn.in <- arrival{err: broken}
			}
			if r.from(clientA, search(root, "MX: 1")); len(r.conn.take()) != 1 {
				t.Fatal("no answer after nine errors")
			}
		}
		for range 10 {
			r.conn.in <- arrival{err: broken}
		}
		if err := <-r.result; !errors.Is(err, broken) {
			t.Errorf("Run: %v", err)
		}
		if got, want := len(r.conn.take()), 2*len(announced()); got != want {
			t.Errorf("%d byebyes, want %d", got, want)
		}
		r.cancel()
	})
}

// TestPanicIsOneDatagram: a panic costs a datagram, the third ends the server in order.
func TestPanicIsOneDatagram(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := config()
		var log bytes.Buffer
		cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		r := settled(t, cfg)
		var evil atomic.Bool
		r.conn.onSend = func(to netip.AddrPort) error {
			if to == clientB && evil.Load() {
				panic("evil")
			}
			return nil
		}
		evil.Store(true)
		for range 2 {
			r.from(clientB, search(root, "MX: 1"))
			if r.from(clientA, search(root, "MX: 1")); len(r.conn.take()) != 1 {
				t.Fatal("no answer after a panic")
			}
		}
		r.from(clientB, search(root, "MX: 1"))
		if err := <-r.result; err == nil || !strings.Contains(err.Error(), "panicked 3 times") {
			t.Errorf("Run: %v", err)
		}
		if n := strings.Count(log.String(), "dropped after a panic"); n != 3 {
			t.Errorf("%d panics in the log, want 3", n)
		}
		r.cancel()
	})
}

// TestLogIsBounded: K4, at most 10 lines a second about datagrams, none of them
// with a client's text.
func TestLogIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := config()
		var log bytes.Buffer
		cfg.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		r := settled(t, cfg)
		for range 2000 { // 2 s
			r.from(clientA, search("uuid:canary", "MX: 1"))
			pass(time.Millisecond)
		}
		r.finish()
		if n := strings.Count(log.String(), "datagram ignored"); n > 30 || n < 20 {
			t.Errorf("%d lines in 2 s after a burst of 10, want 20 to 30", n)
		}
		if strings.Contains(log.String(), "canary") {
			t.Error("text of a client in the log")
		}
	})
}

// TestSendErrorIsBorne: a full buffer or a firewall loses one answer.
func TestSendErrorIsBorne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := config()
		var log bytes.Buffer
		cfg.Logger = slog.New(slog.NewTextHandler(io.MultiWriter(&log), &slog.HandlerOptions{Level: slog.LevelDebug}))
		r := start(t, cfg)
		fail := true
		r.conn.onSend = func(netip.AddrPort) error {
			if fail {
				return errors.New("no buffer")
			}
			return nil
		}
		r.server.SetAddresses([]netip.Addr{gateway}, []netip.Prefix{lan})
		pass(3 * time.Second)
		r.from(clientA, search(root, "MX: 1"))
		synctest.Wait()
		fail = false
		if r.from(clientA, search(root, "MX: 1")); len(r.conn.take()) != 1 {
			t.Error("no answer after a failure")
		}
		r.finish()
		for _, want := range []string{"announcement not sent", "answer not sent"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("log lacks %q", want)
			}
		}
	})
}
