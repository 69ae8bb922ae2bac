package ssdp_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"portcullis/ssdp"
)

// set is one round of notifications, sent in one instant.
type set struct {
	at       time.Time
	kind     string // NTS
	from     netip.Addr
	bootID   string
	location string // of the first row
	rows     []string
}

// sets groups notifications that went out together. Each must be to the group.
func sets(t *testing.T, all []sent) []set {
	t.Helper()
	var out []set
	for _, s := range all {
		m := read(t, s.text)
		if m.line != "NOTIFY * HTTP/1.1" || s.to != ssdp.Group || m.header.Get("HOST") != "239.255.255.250:1900" {
			t.Fatalf("to %v: %q", s.to, s.text)
		}
		next := set{at: s.at, kind: m.header.Get("NTS"), from: s.from,
			bootID: m.header.Get("BOOTID.UPNP.ORG"), location: m.header.Get("LOCATION")}
		last := len(out) - 1
		if last < 0 || !out[last].at.Equal(s.at) || out[last].kind != next.kind || out[last].bootID != next.bootID {
			out = append(out, next)
			last++
		}
		out[last].rows = append(out[last].rows, m.row())
	}
	return out
}

// shape gives "kind bootid" of each set, and checks that each is whole.
func shape(t *testing.T, all []set) []string {
	t.Helper()
	var out []string
	for _, s := range all {
		out = append(out, s.kind+" "+s.bootID)
		if diff := cmp.Diff(announced(), s.rows); diff != "" {
			t.Errorf("%s is not the whole set (-want +got):\n%s", s.kind, diff)
		}
	}
	return out
}

// TestStart: SSDP-19, byebye for all rows, then the alive set three times within
// about a second, under one BOOTID.
func TestStart(t *testing.T) {
	for range 20 { // chance decides the times
		synctest.Test(t, func(t *testing.T) {
			r := start(t, config())
			defer r.finish()
			began := time.Now()
			r.server.SetAddresses([]netip.Addr{gateway}, []netip.Prefix{lan})
			pass(5 * time.Minute)
			got := sets(t, r.conn.take())
			want := []string{"ssdp:byebye 500", "ssdp:alive 500", "ssdp:alive 500", "ssdp:alive 500"}
			if diff := cmp.Diff(want, shape(t, got)); diff != "" {
				t.Fatalf("(-want +got):\n%s", diff)
			}
			if wait := got[0].at.Sub(began); wait != 0 {
				t.Errorf("byebye after %v", wait)
			}
			if wait := got[1].at.Sub(began); wait < 100*time.Millisecond || wait > 200*time.Millisecond {
				t.Errorf("first alive after %v", wait)
			}
			for i := 2; i < len(got); i++ {
				if gap := got[i].at.Sub(got[i-1].at); gap < 200*time.Millisecond || gap > 400*time.Millisecond {
					t.Errorf("alive %d comes %v after the one before", i, gap)
				}
			}
			if got[1].location != "http://192.168.1.1:5000/0123456789abcdef/v0.xml" || got[1].from != gateway {
				t.Errorf("location %q from %v", got[1].location, got[1].from)
			}
		})
	}
}

// TestNotificationText holds an alive and a byebye octet by octet.
func TestNotificationText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, config())
		defer r.finish()
		r.server.SetAddresses([]netip.Addr{gateway}, []netip.Prefix{lan})
		pass(250 * time.Millisecond)
		const row = 9 // WANIPConnection
		usn := "USN: uuid:" + uuidC + "::urn:schemas-upnp-org:service:WANIPConnection:1\r\n"
		want := []string{
			"NOTIFY * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\n" +
				"NT: urn:schemas-upnp-org:service:WANIPConnection:1\r\nNTS: ssdp:byebye\r\n" + usn +
				"BOOTID.UPNP.ORG: 500\r\nCONFIGID.UPNP.ORG: 1001\r\n\r\n",
			"NOTIFY * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nCACHE-CONTROL: max-age=1800\r\n" +
				"LOCATION: http://192.168.1.1:5000/0123456789abcdef/v1.xml\r\nSERVER: Linux UPnP/1.1 Portcullis\r\n" +
				"NT: urn:schemas-upnp-org:service:WANIPConnection:1\r\nNTS: ssdp:alive\r\n" + usn +
				"BOOTID.UPNP.ORG: 500\r\nCONFIGID.UPNP.ORG: 1001\r\n\r\n",
		}
		all := r.conn.take()
		if len(all) < 2*len(announced()) {
			t.Fatalf("%d messages", len(all))
		}
		for _, s := range all {
			if len(s.text) > 512 {
				t.Errorf("%d octets: %q", len(s.text), s.text)
			}
		}
		got := []string{string(all[row].text), string(all[len(announced())+row].text)}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// TestRefresh: SSDP-20, the whole set again before half of the max-age has passed,
// under the same BOOTID, for as long as it runs.
func TestRefresh(t *testing.T) {
	for _, maxAge := range []time.Duration{60 * time.Second, 0} {
		t.Run(fmt.Sprint("SSDP-20/max-age ", maxAge), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := config()
				cfg.MaxAge = maxAge
				if maxAge == 0 {
					maxAge = 1800 * time.Second
				}
				r := settled(t, cfg)
				defer r.finish()
				last := time.Now()
				var gaps []time.Duration
				for range 50 {
					pass(maxAge)
					for _, s := range sets(t, r.conn.take()) {
						if diff := cmp.Diff([]string{"ssdp:alive 500"}, shape(t, []set{s})); diff != "" {
							t.Fatalf("(-want +got):\n%s", diff)
						}
						gaps = append(gaps, s.at.Sub(last))
						last = s.at
					}
				}
				if len(gaps) < 100 {
					t.Fatalf("%d refreshes in 50 times max-age", len(gaps))
				}
				if most := slices.Max(gaps); most >= maxAge/2 {
					t.Errorf("a gap of %v", most)
				}
				if least := slices.Min(gaps[1:]); least < maxAge/4 {
					t.Errorf("a gap of only %v", least)
				}
				slices.Sort(gaps)
				if len(slices.Compact(gaps)) < 50 {
					t.Error("the times are not random")
				}
			})
		})
	}
}

// TestStop: SSDP-21, byebye for every row, twice; then Run returns.
func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := settled(t, config())
		began := time.Now()
		r.finish()
		if took := time.Since(began); took > 200*time.Millisecond {
			t.Errorf("stopping took %v", took)
		}
		want := []string{"ssdp:byebye 500", "ssdp:byebye 500"}
		if diff := cmp.Diff(want, shape(t, sets(t, r.conn.take()))); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// TestRestart: SSDP-22, a greater BOOTID, the same uuids.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := config()
		for _, want := range []string{"500", "501", "502"} {
			r := start(t, cfg)
			r.server.SetAddresses([]netip.Addr{gateway}, []netip.Prefix{lan})
			pass(3 * time.Second)
			r.finish()
			for _, s := range shape(t, sets(t, r.conn.take())) {
				if s != "ssdp:alive "+want && s != "ssdp:byebye "+want {
					t.Errorf("%s, want %s", s, want)
				}
			}
			cfg.BootID = ssdp.NextBootID(cfg.BootID, time.Unix(12, 0))
		}
	})
}

// TestAddressChange: SSDP-23, byebye, then alive with the new location and a greater
// BOOTID; from then on the new address is the one that answers.
func TestAddressChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := config()
		cfg.NewBootID = func(last uint32) uint32 { return last + 7 }
		r := settled(t, cfg)
		defer r.finish()
		r.from(clientA, search("ssdp:all", "MX: 5")) // its answers must not come any more
		synctest.Wait()
		moved := netip.MustParseAddr("192.168.1.2")
		r.server.SetAddresses([]netip.Addr{moved}, []netip.Prefix{lan})
		pass(3 * time.Second)
		got := sets(t, r.conn.take())
		want := []string{"ssdp:byebye 500", "ssdp:alive 507", "ssdp:alive 507", "ssdp:alive 507"}
		if diff := cmp.Diff(want, shape(t, got)); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
		if want := "http://192.168.1.2:5000/0123456789abcdef/v0.xml"; got[1].location != want {
			t.Errorf("location %q, want %q", got[1].location, want)
		}
		for _, s := range got {
			if s.from != moved { // the old address can no longer send
				t.Errorf("%s sent from %v", s.kind, s.from)
			}
		}
		if r.from(clientA, search(root), unicast); len(r.conn.take()) != 0 {
			t.Error("the old address answers")
		}
		r.from(clientA, search(root, "MX: 1"))
		if answers := r.conn.take(); len(answers) != 1 || answers[0].from != moved {
			t.Errorf("answers: %+v", answers)
		}
	})
}

// TestInterfaceDownAndUp: what comes back is new (UDA 1.1 section 1.2.4), and a
// call that changes nothing is none.
func TestInterfaceDownAndUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := settled(t, config())
		defer r.finish()
		r.server.SetAddresses([]netip.Addr{gateway}, []netip.Prefix{lan, netip.MustParsePrefix("10.0.0.0/8")})
		pass(3 * time.Second)
		if got := r.conn.take(); len(got) != 0 {
			t.Fatalf("other prefixes alone: sent %q", got[0].text)
		}
		if r.from(netip.MustParseAddrPort("10.1.1.1:9999"), search(root, "MX: 1")); len(r.conn.take()) != 1 {
			t.Error("the new prefix is not served")
		}
		r.server.SetAddresses(nil, nil)
		pass(time.Hour)
		down := sets(t, r.conn.take())
		if diff := cmp.Diff([]string{"ssdp:byebye 500"}, shape(t, down)); diff != "" {
			t.Fatalf("down (-want +got):\n%s", diff)
		}
		r.server.SetAddresses([]netip.Addr{gateway}, []netip.Prefix{lan})
		pass(3 * time.Second)
		up := sets(t, r.conn.take())
		boot := fmt.Sprint(ssdp.NextBootID(500, up[0].at)) // nobody gave NewBootID
		want := []string{"ssdp:byebye " + boot, "ssdp:alive " + boot, "ssdp:alive " + boot, "ssdp:alive " + boot}
		if diff := cmp.Diff(want, shape(t, up)); diff != "" {
			t.Errorf("up (-want +got):\n%s", diff)
		}
		if boot == "500" {
			t.Error("the same BOOTID again")
		}
	})
}

// TestLastAddressCounts: SetAddress never waits, and only the last of a flurry is
// announced.
func TestLastAddressCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn := newFakeConn()
		s, err := ssdp.New(config(), conn)
		if err != nil {
			t.Fatal(err)
		}
		for n := range 10 { // before Run
			s.SetAddresses([]netip.Addr{netip.AddrFrom4([4]byte{192, 168, 1, byte(100 + n)})}, []netip.Prefix{lan})
		}
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan error, 1)
		go func() { result <- s.Run(ctx) }()
		pass(150 * time.Millisecond)
		got := conn.take()
		if len(got) == 0 {
			t.Error("nothing announced")
		}
		for _, m := range got {
			if m.from != netip.MustParseAddr("192.168.1.109") {
				t.Fatalf("sent from %v", m.from)
			}
		}
		cancel()
		if err := <-result; err != nil {
			t.Error(err)
		}
	})
}
