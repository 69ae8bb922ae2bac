package pcp_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"portcullis/pcp"
)

// TestEpochs: an epoch ends when mappings are lost or have another external address
// (RFC 6887 section 8.5), and goes on through everything else.
func TestEpochs(t *testing.T) {
	t.Parallel()
	network := func(external string, up6 bool, prefixes ...string) pcp.Network {
		n := pcp.Network{Up6: up6}
		if external != "" {
			n.External = netip.MustParseAddr(external)
		}
		for _, p := range prefixes {
			n.Prefixes = append(n.Prefixes, netip.MustParsePrefix(p))
		}
		return n
	}
	const (
		a, b   = "203.0.113.1", "203.0.113.2"
		p6, q6 = "2001:db8:1::/64", "2001:db8:2::/64"
		local  = "fd00:1::/64"
	)
	for name, steps := range map[string][]struct {
		is   pcp.Network
		want string // new4, new6: an epoch begins; tell4, tell6: it is announced; was; lost
	}{
		"nothing changes": {
			{network(a, true, p6), ""},
			{network(a, true, p6), ""},
		},
		"the first address is not another one": {
			{network("", false), ""},
			{network(a, false), "tell4"},
		},
		"an address that is back": {
			{network(a, true), ""},
			{network("", true), ""},
			{network("", true), ""},
			{network(a, true), "tell4"},
			{network(a, true), ""},
		},
		"another address": {
			{network(a, true), ""},
			{network(b, true), "new4 tell4 was 203.0.113.1"},
			{network(b, true), ""},
			{network(a, true), "new4 tell4 was 203.0.113.2"},
		},
		"another address after a while without": {
			{network(a, true), ""},
			{network("", true), ""},
			{network(b, true), "new4 tell4 was 203.0.113.1"},
		},
		"a prefix comes": {
			{network(a, true), ""},
			{network(a, true, p6), ""},
			{network(a, true, p6, local), ""},
		},
		"a prefix goes": {
			{network(a, true, p6, local), ""},
			{network(a, true, local), "new6 tell6 lost 2001:db8:1::/64"},
			{network(a, true, local), ""},
		},
		"a prefix is replaced": {
			{network(a, true, p6), ""},
			{network(a, true, q6), "new6 tell6 lost 2001:db8:1::/64"},
		},
		"the same prefixes in another order": {
			{network(a, true, p6, q6), ""},
			{network(a, true, q6, p6), ""},
		},
		"a link-local prefix goes": {
			{network(a, true, "fe80::/64", p6), ""},
			{network(a, true, p6), ""},
		},
		"a prefix of IPv4 goes": {
			{network(a, true, "192.168.1.0/24", p6), ""},
			{network(a, true, p6), ""},
		},
		"the way out by IPv6 is back": {
			{network(a, true, p6), ""},
			{network(a, false, p6), ""},
			{network(a, true, p6), "tell6"},
		},
		"a prefix goes while there is no way out": {
			{network(a, false, p6), ""},
			{network(a, false), "new6 tell6 lost 2001:db8:1::/64"},
			{network(a, true, q6), "tell6"},
		},
		"both families at once": {
			{network(a, true, p6), ""},
			{network(b, true), "new4 new6 tell4 tell6 was 203.0.113.1 lost 2001:db8:1::/64"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			now := time.Now()
			e := pcp.NewEpochs(now)
			for i, s := range steps {
				now = now.Add(time.Minute)
				turn := e.Follow(now, s.is)
				if got := turned(e, now, turn); got != s.want {
					t.Errorf("step %d: %q, want %q", i+1, got, s.want)
				}
			}
		})
	}
}

// turned says what has come of a look.
func turned(e *pcp.Epochs, now time.Time, t pcp.Turn) string {
	var all []string
	for word, is := range map[string]bool{
		"new4": e.V4.Began().Equal(now), "new6": e.V6.Began().Equal(now), "tell4": t.Announce4, "tell6": t.Announce6,
	} {
		if is {
			all = append(all, word)
		}
	}
	slices.Sort(all)
	if t.Was.IsValid() {
		all = append(all, fmt.Sprintf("was %s", t.Was))
	}
	for _, p := range t.Lost {
		all = append(all, fmt.Sprintf("lost %s", p))
	}
	return strings.Join(all, " ")
}

// TestEpochsLoseSeveral: every network that is gone is named.
func TestEpochsLoseSeveral(t *testing.T) {
	t.Parallel()
	now := time.Now()
	e := pcp.NewEpochs(now)
	e.Follow(now, pcp.Network{Prefixes: []netip.Prefix{netip.MustParsePrefix("2001:db8:1::/64"), netip.MustParsePrefix("2001:db8:2::/64")}})
	if turn := e.Follow(now.Add(time.Second), pcp.Network{}); len(turn.Lost) != 2 {
		t.Errorf("lost %v", turn.Lost)
	}
}

// TestEpochSeconds: an epoch is never younger than nothing, and counts whole seconds.
func TestEpochSeconds(t *testing.T) {
	t.Parallel()
	start := time.Now()
	e := pcp.NewEpoch(start)
	for after, want := range map[time.Duration]uint32{
		-time.Second: 0, 0: 0, 999 * time.Millisecond: 0, time.Second: 1, time.Hour: 3600,
	} {
		if got := e.Seconds(start.Add(after)); got != want {
			t.Errorf("after %v: %d, want %d", after, got, want)
		}
	}
}
