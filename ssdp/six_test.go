package ssdp_test

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/internal/datagram"
	"portcullis/ssdp"
)

// The LAN of IPv6: the gateway has an address in each scope, a global one beside
// the unique local one, and so has the client.
var (
	linkAddr   = netip.MustParseAddr("fe80::1")
	uniqueAddr = netip.MustParseAddr("fd00:77::1")
	globalAddr = netip.MustParseAddr("2001:db8:77::1")
	prefixes6  = []netip.Prefix{
		netip.MustParsePrefix("fe80::/64"), netip.MustParsePrefix("fd00:77::/64"), netip.MustParsePrefix("2001:db8:77::/64"),
	}
	clientLink   = netip.MustParseAddrPort("[fe80::50]:40000")
	clientGlobal = netip.MustParseAddrPort("[2001:db8:77::50]:40000")
)

// six runs a server of IPv6 with these addresses until its first announcements
// have passed, and gives them.
func six(t *testing.T, locals ...netip.Addr) (*runner, []sent) {
	t.Helper()
	cfg := config()
	cfg.IPv6 = true
	cfg.NewBootID = func(last uint32) uint32 { return last + 1 }
	r := start(t, cfg)
	r.server.SetAddresses(locals, prefixes6)
	pass(3 * time.Second)
	return r, r.conn.take()
}

// said is what is different between the messages of two scopes.
type said struct {
	from           netip.Addr
	to             netip.AddrPort
	host, location string
	kind           string // NTS, or "answer"
	boot           string
}

// kinds counts messages by what they say.
func kinds(t *testing.T, all []sent) map[said]int {
	t.Helper()
	out := make(map[said]int)
	for _, s := range all {
		m := read(t, s.text)
		kind, location := m.header.Get("NTS"), m.header.Get("LOCATION")
		if kind == "" {
			kind = "answer"
		}
		if location != "" {
			location = location[len("http://"):strings.Index(location, ":5000")]
		}
		out[said{s.from, s.to, m.header.Get("HOST"), location, kind, m.header.Get("BOOTID.UPNP.ORG")}]++
	}
	return out
}

func wantKinds(t *testing.T, got, want map[said]int) {
	t.Helper()
	for k, n := range want {
		if got[k] != n {
			t.Errorf("%d of %+v, want %d", got[k], k, n)
		}
	}
	for k, n := range got {
		if want[k] == 0 {
			t.Errorf("%d of %+v, want none", n, k)
		}
	}
}

// TestScopes: UDA 2.0 section A.3. Each group hears of the address that fits it, by its
// own name; the site's is the global one, in which pinholes are asked for.
func TestScopes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, got := six(t, linkAddr, uniqueAddr, globalAddr)
		defer r.finish()
		set := len(announced())
		wantKinds(t, kinds(t, got), map[said]int{
			{linkAddr, ssdp.GroupLink, "[FF02::C]:1900", "[fe80::1]", "ssdp:alive", "500"}:          3 * set,
			{globalAddr, ssdp.GroupSite, "[FF05::C]:1900", "[2001:db8:77::1]", "ssdp:alive", "500"}: 3 * set,
			{linkAddr, ssdp.GroupLink, "[FF02::C]:1900", "", "ssdp:byebye", "500"}:                  set,
			{globalAddr, ssdp.GroupSite, "[FF05::C]:1900", "", "ssdp:byebye", "500"}:                set,
		})
	})
}

// TestSearch6: who searched from a link-local address is shown one, others one that
// they can reach from anywhere on the site; the answer leaves from the address that
// was asked.
func TestSearch6(t *testing.T) {
	t.Parallel()
	to := func(a netip.Addr) func(*datagram.Packet) { return func(p *datagram.Packet) { p.Destination = a } }
	for name, c := range map[string]struct {
		locals   []netip.Addr
		source   netip.AddrPort
		asked    netip.Addr
		from     netip.Addr // zero: silence
		location string
	}{
		"link, by its group":    {[]netip.Addr{linkAddr, globalAddr}, clientLink, ssdp.GroupLink.Addr(), linkAddr, "[fe80::1]"},
		"global, by its group":  {[]netip.Addr{linkAddr, globalAddr}, clientGlobal, ssdp.GroupSite.Addr(), globalAddr, "[2001:db8:77::1]"},
		"global, by the link's": {[]netip.Addr{linkAddr, globalAddr}, clientGlobal, ssdp.GroupLink.Addr(), globalAddr, "[2001:db8:77::1]"},
		"link, by the site's":   {[]netip.Addr{linkAddr, globalAddr}, clientLink, ssdp.GroupSite.Addr(), linkAddr, "[fe80::1]"},
		"link, to an address":   {[]netip.Addr{linkAddr, globalAddr}, clientLink, linkAddr, linkAddr, "[fe80::1]"},
		"global, to an address": {[]netip.Addr{linkAddr, globalAddr}, clientGlobal, globalAddr, globalAddr, "[2001:db8:77::1]"},
		"link, to a global one": {[]netip.Addr{linkAddr, globalAddr}, clientLink, globalAddr, globalAddr, "[fe80::1]"},
		"global, and none fits": {[]netip.Addr{linkAddr}, clientGlobal, ssdp.GroupSite.Addr(), linkAddr, "[fe80::1]"},
		"link, and none fits":   {[]netip.Addr{globalAddr}, clientLink, ssdp.GroupLink.Addr(), globalAddr, "[2001:db8:77::1]"},
		"no address":            {nil, clientLink, ssdp.GroupLink.Addr(), netip.Addr{}, ""},
		"A4/not ours":           {[]netip.Addr{linkAddr}, clientLink, globalAddr, netip.Addr{}, ""},
		"A4/IPv4's group":       {[]netip.Addr{linkAddr}, clientLink, ssdp.Group.Addr(), netip.Addr{}, ""},
		"A6/off link":           {[]netip.Addr{linkAddr}, netip.MustParseAddrPort("[2001:db8:9::9]:40000"), ssdp.GroupSite.Addr(), netip.Addr{}, ""},
		"A8/IPv4-mapped":        {[]netip.Addr{linkAddr}, netip.MustParseAddrPort("[::ffff:192.168.1.50]:40000"), ssdp.GroupLink.Addr(), netip.Addr{}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r, _ := six(t, c.locals...)
				defer r.finish()
				r.from(c.source, search("upnp:rootdevice", "MX: 1"), to(c.asked))
				want := map[said]int{}
				if c.from.IsValid() {
					want[said{c.from, c.source, "", c.location, "answer", "500"}] = 1
				}
				wantKinds(t, kinds(t, r.conn.take()), want)
			})
		})
	}
}

// TestScopesApart: an address that comes or goes in one scope is nothing to the
// other: no message, the same BOOTID, and answers that wait still go out.
func TestScopesApart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, _ := six(t, linkAddr, globalAddr)
		defer r.finish()
		set := len(announced())
		for _, source := range []netip.AddrPort{clientLink, clientGlobal} {
			r.from(source, search("ssdp:all", "MX: 3"), func(p *datagram.Packet) { p.Destination = ssdp.GroupLink.Addr() })
		}
		r.conn.take()
		moved := netip.MustParseAddr("2001:db8:78::1")
		r.server.SetAddresses([]netip.Addr{linkAddr, moved}, prefixes6)
		pass(5 * time.Second)
		got := kinds(t, r.conn.take())
		for k := range got {
			if k.kind == "answer" && k.to == clientGlobal && k.from == globalAddr {
				delete(got, k) // before the change
			}
		}
		wantKinds(t, got, map[said]int{
			{linkAddr, clientLink, "", "[fe80::1]", "answer", "500"}:                           set,
			{moved, ssdp.GroupSite, "[FF05::C]:1900", "", "ssdp:byebye", "500"}:                set,
			{moved, ssdp.GroupSite, "[FF05::C]:1900", "[2001:db8:78::1]", "ssdp:alive", "501"}: 3 * set,
		})
		// Another address of the same kind beside it changes nothing.
		r.server.SetAddresses([]netip.Addr{linkAddr, globalAddr, moved}, prefixes6)
		pass(5 * time.Second)
		wantKinds(t, kinds(t, r.conn.take()), nil)
		r.server.SetAddresses([]netip.Addr{moved}, prefixes6)
		pass(5 * time.Second)
		wantKinds(t, kinds(t, r.conn.take()), map[said]int{
			// From one that is still there: the kernel sends from no other.
			{moved, ssdp.GroupLink, "[FF02::C]:1900", "", "ssdp:byebye", "500"}: set,
		})
		// What comes back is new there, and nothing to the site.
		r.server.SetAddresses([]netip.Addr{linkAddr.WithZone("br-lan"), moved}, prefixes6)
		pass(5 * time.Second)
		wantKinds(t, kinds(t, r.conn.take()), map[said]int{
			{linkAddr, ssdp.GroupLink, "[FF02::C]:1900", "", "ssdp:byebye", "501"}:         set,
			{linkAddr, ssdp.GroupLink, "[FF02::C]:1900", "[fe80::1]", "ssdp:alive", "501"}: 3 * set,
		})
	})
}

// TestSchedule6: SSDP-20 and SSDP-21 in both scopes: the whole set again and again, each at
// times of its own, and at the end byebye twice.
func TestSchedule6(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, _ := six(t, linkAddr, globalAddr)
		set := len(announced())
		const rounds = 50
		pass(rounds * 1800 * time.Second)
		last, together := map[netip.AddrPort]time.Time{}, 0
		got := r.conn.take()
		for i, s := range got {
			before, again := last[s.to]
			if gap := s.at.Sub(before); again && gap >= 900*time.Second {
				t.Fatalf("%v: a gap of %v", s.to, gap)
			}
			last[s.to] = s.at
			if i > 0 && got[i-1].to != s.to && got[i-1].at.Equal(s.at) {
				together++
			}
		}
		for k, n := range kinds(t, got) {
			if k.kind != "ssdp:alive" || k.boot != "500" || n%set != 0 || n < 2*rounds*set || n > 4*rounds*set {
				t.Errorf("%d of %+v", n, k)
			}
		}
		if len(last) != 2 || together > rounds/2 {
			t.Errorf("%d groups hear of it, %d times in one instant", len(last), together)
		}
		began := time.Now()
		r.finish()
		if took := time.Since(began); took > 200*time.Millisecond {
			t.Errorf("stopping took %v", took)
		}
		wantKinds(t, kinds(t, r.conn.take()), map[said]int{
			{linkAddr, ssdp.GroupLink, "[FF02::C]:1900", "", "ssdp:byebye", "500"}:   2 * set,
			{globalAddr, ssdp.GroupSite, "[FF05::C]:1900", "", "ssdp:byebye", "500"}: 2 * set,
		})
	})
}

// TestWaitingAnswers6: answers that were to leave from an address that is gone are
// not tried, whichever scope they speak of.
func TestWaitingAnswers6(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, _ := six(t, linkAddr, uniqueAddr, globalAddr)
		defer r.finish()
		r.from(clientLink, search("ssdp:all"), func(p *datagram.Packet) { p.Destination = uniqueAddr })
		synctest.Wait()
		r.conn.take()
		r.server.SetAddresses([]netip.Addr{linkAddr, globalAddr}, prefixes6)
		pass(5 * time.Second)
		wantKinds(t, kinds(t, r.conn.take()), nil)
	})
}

// TestLocationIsChecked6: a location that cannot be shown silences its scope alone,
// and who would have been shown it is shown the other.
func TestLocationIsChecked6(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := config()
		cfg.IPv6 = true
		describe := cfg.Describe
		cfg.Describe = func(version int, local netip.Addr) ssdp.Description {
			if local == globalAddr {
				return ssdp.Description{Location: "http://[bad]/\r\n"}
			}
			return describe(version, local)
		}
		r := start(t, cfg)
		defer r.finish()
		r.server.SetAddresses([]netip.Addr{linkAddr, globalAddr}, prefixes6)
		pass(3 * time.Second)
		r.from(clientGlobal, search(root, "MX: 1"), func(p *datagram.Packet) { p.Destination = ssdp.GroupSite.Addr() })
		set := len(announced())
		wantKinds(t, kinds(t, r.conn.take()), map[said]int{
			{linkAddr, ssdp.GroupLink, "[FF02::C]:1900", "", "ssdp:byebye", "500"}:         set,
			{linkAddr, ssdp.GroupLink, "[FF02::C]:1900", "[fe80::1]", "ssdp:alive", "500"}: 3 * set,
			{linkAddr, clientGlobal, "", "[fe80::1]", "answer", "500"}:                     1,
		})
	})
}

// TestAnswerSize6: E1, with the longest address there is an answer stays within
// the bounds of IPv4.
func TestAnswerSize6(t *testing.T) {
	t.Parallel()
	longest := netip.MustParseAddr("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff")
	shortest := lines("MAN:ssdp:discover", "ST:ssdp:all")
	answers, err := ssdp.Answers(config(), "ssdp:all", longest, time.Unix(1_700_000_000, 0))
	if err != nil || len(answers) != len(announced()) {
		t.Fatalf("%d answers, %v", len(answers), err)
	}
	for _, a := range answers {
		if len(a) > maxFactor*len(shortest) || len(a) > 512 {
			t.Errorf("%d octets answer %d", len(a), len(shortest))
		}
	}
}
