package iptables_test

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"portcullis/firewall"
	"portcullis/firewall/homenet"
	"portcullis/firewall/iptables"
	"portcullis/internal/netns/netnstest"
	"portcullis/internal/slog"
	"portcullis/portmap"
)

// What OpenWrt's page looks for, in what `iptables --line-numbers -t nat -xnvL CHAIN` prints:
// its older releases in MINIUPNPD, the newest in MINIUPNPD-POSTROUTING.
var (
	olderPage  = regexp.MustCompile(`^(\d+).*?([a-z]+).*?dpt:(\d+) to:(\S*?):(\d+)`)
	newestPage = regexp.MustCompile(`^([0-9]+) .+ \* +([0-9.]+) .+ ([ut].p) spt:([0-9]+) .+ ports: ([0-9]+)`)
)

// pages returns what each page shows.
func pages(t *testing.T, n *netnstest.Space, flavour string) (older, newest []string) {
	t.Helper()
	look := func(chain string) []string {
		out, err := n.Run("", "iptables-"+flavour, "--line-numbers", "-t", "nat", "-xnvL", chain)
		if err != nil {
			return nil // it is not there
		}
		return strings.Split(out, "\n")
	}
	for _, line := range look("MINIUPNPD") {
		if m := olderPage.FindStringSubmatch(line); m != nil {
			older = append(older, fmt.Sprintf("%s %s %s %s:%s", m[1], m[2], m[3], m[4], m[5]))
		}
	}
	for _, line := range look("MINIUPNPD-POSTROUTING") {
		if m := newestPage.FindStringSubmatch(line); m != nil {
			newest = append(newest, fmt.Sprintf("%s %s %s %s:%s", m[1], m[3], m[5], m[2], m[4]))
		}
	}
	return older, newest
}

// mapped returns mappings with these external ports, of two protocols in turn.
func mapped(ports ...uint16) (all []portmap.Mapping) {
	for i, p := range ports {
		m := portmap.Mapping{ID: uint64(i + 1), Transport: portmap.TCP, ExternalPort: p, Internal: netip.AddrPortFrom(netip.MustParseAddr("192.168.1.20"), p+1)}
		if p%2 == 1 {
			m.Transport = portmap.UDP
		}
		all = append(all, m)
	}
	return all
}

var natChain = firewall.Chain{Family: "ip", Table: "nat", Name: "MINIUPNPD"}

// TestListing: what is listed has the form that OpenWrt's pages look for, follows the mappings,
// is put back, and is not written where another program has rules.
func TestListing(t *testing.T) {
	each(t, func(t *testing.T, flavour string) {
		n := netnstest.New(t, "gw")
		ctx := homenet.Context(t)
		var log strings.Builder
		l := iptables.NewListing(slog.New(slog.NewTextHandler(&log, nil)), n.FD(), "iptables-"+flavour, natChain)
		same := func(when string, want ...string) {
			t.Helper()
			older, newest := pages(t, n, flavour)
			if !slices.Equal(older, want) || !slices.Equal(newest, want) {
				t.Errorf("%s the pages show\n%q and\n%q, want\n%q\n%s", when, older, newest, want, &log)
			}
		}
		l.Audit(ctx) // before there is anything to show
		l.Show(ctx, 1, mapped(80, 91))
		same("at first", "1 tcp 80 192.168.1.20:81", "2 udp 91 192.168.1.20:92")
		l.Show(ctx, 1, mapped(91, 100))
		same("later", "1 udp 91 192.168.1.20:92", "2 tcp 100 192.168.1.20:101")
		do(t, n, flavour, "iptables -t nat -D MINIUPNPD 1\n") // which older pages do themselves
		l.Audit(ctx)
		same("after one was removed", "1 udp 91 192.168.1.20:92", "2 tcp 100 192.168.1.20:101")
		do(t, n, flavour, "iptables -t nat -F\niptables -t nat -X\n")
		l.Audit(ctx)
		same("after a wipe", "1 udp 91 192.168.1.20:92", "2 tcp 100 192.168.1.20:101")
		before := save(t, n, flavour, "")
		do(t, n, flavour, "iptables -t nat -Z MINIUPNPD\n")
		l.Audit(ctx)
		if strings.Count(before, "ONLY/SHOWN") != 4 {
			t.Errorf("not each rule is of an interface that cannot be:\n%s", before)
		}

		var many []uint16
		for i := range uint16(1024) {
			many = append(many, 10000+i)
		}
		l.Show(ctx, 1, mapped(many...))
		if older, newest := pages(t, n, flavour); len(older) != 1024 || !slices.Equal(older, newest) || older[1023] != "1024 udp 11023 192.168.1.20:11024" {
			t.Errorf("of 1024 there are %d and %d\n%s", len(older), len(newest), &log)
		}
		l.Show(ctx, 1, nil)
		same("without mappings")
		do(t, n, flavour, "iptables -t nat -A MINIUPNPD -p tcp --dport 22 -j DNAT --to-destination 192.168.1.1\n")
		for range 2 {
			l.Show(ctx, 1, mapped(80))
		}
		if got := strings.Count(log.String(), "rules of another program"); got != 1 {
			t.Errorf("it is said %d times\n%s", got, &log)
		}
		if err := l.Close(ctx, false); err != nil {
			t.Error(err)
		}
		if left := save(t, n, flavour, ""); !strings.Contains(left, "192.168.1.1") {
			t.Errorf("another's rule is gone:\n%s", left)
		}
	})
}

// TestListingForNothing: what is listed in iptables-legacy is looked at by a program once, and
// again when the table has changed.
func TestListingForNothing(t *testing.T) {
	if flavours(t)[0] != "legacy" {
		return
	}
	n := netnstest.New(t, "gw")
	ran, ctx := counted(t, "legacy"), homenet.Context(t)
	l := iptables.NewListing(quiet(), n.FD(), "iptables-legacy", natChain)
	audit := func(want int) {
		t.Helper()
		ran()
		if l.Audit(ctx); len(ran()) != want {
			t.Errorf("an audit does not run %d programs", want)
		}
	}
	l.Show(ctx, 1, mapped(80, 91))
	audit(1)
	audit(0)
	do(t, n, "legacy", "iptables -t nat -A POSTROUTING -j ACCEPT\n")
	audit(1)
	audit(0)
	do(t, n, "legacy", "iptables -t nat -D MINIUPNPD 1\n")
	audit(3)
	l.Show(ctx, 1, mapped(80))
	if older, _ := pages(t, n, "legacy"); len(older) != 1 {
		t.Errorf("the page shows %q", older)
	}
	audit(1)
	audit(0)
	if err := l.Close(ctx, false); err != nil {
		t.Error(err)
	}
}

// TestListingEnds: a stop and a cleanup leave what was there before, and rules that lead to a
// chain keep it.
func TestListingEnds(t *testing.T) {
	each(t, func(t *testing.T, flavour string) {
		for name, script := range map[string]string{
			"none": "iptables -t nat -A POSTROUTING -o wan0 -j MASQUERADE\n",
			"led":  "iptables -t nat -N MINIUPNPD\niptables -t nat -A PREROUTING -i wan0 -j MINIUPNPD\n",
		} {
			for _, end := range []string{"close", "clear", "keep"} {
				t.Run(name+", "+end, func(t *testing.T) {
					n := netnstest.New(t, "gw")
					ctx := homenet.Context(t)
					do(t, n, flavour, script)
					before := rulesOf(save(t, n, flavour, ""))
					l := iptables.NewListing(quiet(), n.FD(), "iptables-"+flavour, natChain)
					l.Show(ctx, 1, mapped(80))
					if older, newest := pages(t, n, flavour); len(older) != 1 || len(newest) != 1 {
						t.Fatalf("the pages show %q and %q", older, newest)
					}
					if err := l.Close(ctx, end != "close"); err != nil {
						t.Error(err)
					}
					if end == "keep" {
						if older, _ := pages(t, n, flavour); len(older) != 1 {
							t.Errorf("left are %q", older)
						}
						return
					}
					if end == "clear" {
						gone, err := iptables.Clear(ctx, quiet(), n.FD())
						if err != nil || !strings.Contains(strings.Join(gone, " "), "chain MINIUPNPD-POSTROUTING of iptables") {
							t.Errorf("removed %q, %v", gone, err)
						}
					}
					if after := rulesOf(save(t, n, flavour, "")); after != before {
						t.Errorf("there is\n%s\nbefore\n%s", after, before)
					}
				})
			}
		}
	})
}

// rulesOf returns the chains and rules of what a program saves.
func rulesOf(saved string) string {
	var b strings.Builder
	for line := range strings.Lines(saved) {
		if strings.HasPrefix(line, "-A ") || strings.HasSuffix(strings.Fields(line + " x")[0], "MINIUPNPD") || strings.Contains(line, "POSTROUTING -") {
			name, _, _ := strings.Cut(line, "[")
			b.WriteString(strings.TrimSpace(name) + "\n")
		}
	}
	return b.String()
}
