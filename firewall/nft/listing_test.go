package nft_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"portcullis/firewall/nft"
	"portcullis/internal/netns/netnstest"
	"portcullis/internal/slog"
	"portcullis/portmap"
)

// listed returns mappings with these external ports.
func listed(ports ...uint16) (all []portmap.Mapping) {
	for i, p := range ports {
		all = append(all, portmap.Mapping{
			ID: uint64(i + 1), Transport: portmap.TCP, ExternalPort: p,
			Internal: netip.AddrPortFrom(netip.MustParseAddr("192.168.1.20"), p+1),
		})
	}
	return all
}

// shown returns the rules of the chain that have miniupnpd's form.
func shown(t *testing.T, n *netnstest.Space) (all []string) {
	t.Helper()
	for line := range strings.SplitSeq(list(t, n, "chain", "inet", "fw4", "upnp_prerouting"), "\n") {
		if strings.HasPrefix(line, "\t\tiif ") {
			all = append(all, strings.TrimSpace(line))
		}
	}
	return all
}

func line(iface string, port uint16) string {
	return fmt.Sprintf(`iif "%s" iifname "ONLY/SHOWN" @nh,72,8 0x6 th dport %d dnat ip to 192.168.1.20:%d`, iface, port, port+1)
}

// TestListing: the rules follow the mappings, at little cost where one comes, and are put
// back when another program has removed them; a chain with rules of another's is let be.
func TestListing(t *testing.T) {
	t.Parallel()
	n := netnstest.New(t, "gw")
	n.Up("lo")
	const fw4 = "table inet fw4 {\n\tchain dstnat {\n\t\ttype nat hook prerouting priority dstnat;\n\t}\n}\n"
	var log strings.Builder
	l := nft.NewListing(slog.New(slog.NewTextHandler(&log, nil)), n.FD(), chain("inet fw4 upnp_prerouting"))
	same := func(when string, want ...string) {
		t.Helper()
		if got := shown(t, n); strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%s:\n%s\nwant\n%s\n%s", when, strings.Join(got, "\n"), strings.Join(want, "\n"), &log)
		}
	}
	handles := func() []string {
		return strings.Split(run(t, n, "", "--handle", "list", "chain", "inet", "fw4", "upnp_prerouting"), "\n")
	}
	said := func(text string, times int) {
		t.Helper()
		if got := strings.Count(log.String(), text); got != times {
			t.Errorf("%q is said %d times, want %d\n%s", text, got, times, &log)
		}
	}

	l.Audit(ctx(t)) // before there is anything to show
	for range 2 {
		l.Show(ctx(t), 1, listed(80))
	}
	said("there is no table inet fw4", 1)
	do(t, n, fw4)
	l.Audit(ctx(t))
	same("when the table has come", line("lo", 80))
	said("are listed in miniupnpd.chain again", 1)

	before := handles()
	l.Show(ctx(t), 1, listed(80, 90, 100))
	same("two more", line("lo", 80), line("lo", 90), line("lo", 100))
	if after := handles(); after[3] != before[3] {
		t.Errorf("what was there is written anew: %q, now %q", before[3], after[3])
	}
	before = handles()
	l.Show(ctx(t), 1, listed(80, 100, 110))
	same("one has ended, one has come", line("lo", 80), line("lo", 100), line("lo", 110))
	if after := handles(); after[3] != before[3] || after[4] != before[5] {
		t.Errorf("what stays is written anew:\n%q, now\n%q", before, after)
	}
	l.Show(ctx(t), 1, listed(90, 100))
	same("another first one", line("lo", 90), line("lo", 100))
	handle := strings.Fields(handles()[2])
	do(t, n, "delete rule inet fw4 upnp_prerouting handle "+handle[len(handle)-1]+"\n")
	if left := list(t, n, "chain", "inet", "fw4", "upnp_prerouting"); strings.Contains(left, "return") {
		t.Fatalf("the first rule is there:\n%s", left)
	}
	l.Audit(ctx(t))
	same("the first rule was removed", line("lo", 90), line("lo", 100))
	if back := handles(); !strings.Contains(back[2], "return") {
		t.Errorf("the first rule is not put back: %q", back)
	}
	l.Show(ctx(t), 0, listed(90))
	same("an interface that is not there", line("lo", 90))
	do(t, n, "flush table inet fw4\n")
	l.Audit(ctx(t))
	same("after a reload", line("lo", 90))
	do(t, n, "add rule inet fw4 upnp_prerouting tcp dport 22 dnat ip to 192.168.1.1\n")
	l.Audit(ctx(t))
	same("somebody has added one", line("lo", 90))
	do(t, n, "delete table inet fw4\n"+fw4)
	l.Audit(ctx(t))
	same("after a restart", line("lo", 90))

	var many []uint16
	for i := range uint16(1024) {
		many = append(many, 10000+i)
	}
	l.Show(ctx(t), 1, listed(many...))
	if got := shown(t, n); len(got) != 1024 || got[1023] != line("lo", 11023) {
		t.Errorf("of 1024 there are %d", len(got))
	}

	do(t, n, "flush chain inet fw4 upnp_prerouting\nadd rule inet fw4 upnp_prerouting tcp dport 22 accept\n")
	for range 2 {
		l.Show(ctx(t), 1, listed(80))
	}
	said("rules of another program", 1)
	if err := l.Close(ctx(t), false); err != nil {
		t.Error(err)
	}
	if got := list(t, n, "chain", "inet", "fw4", "upnp_prerouting"); !strings.Contains(got, "tcp dport 22 accept") {
		t.Errorf("another's rules have gone:\n%s", got)
	}
}

// TestListingEnds: a stop and a cleanup leave the owner's table as it was, and a chain that a
// rule of his leads to without our rules.
func TestListingEnds(t *testing.T) {
	t.Parallel()
	for name, ruleset := range map[string]string{
		"no chain":          "table inet fw4 {\n\tchain other {\n\t}\n}\n",
		"a rule leads here": "table inet fw4 {\n\tchain upnp_prerouting {\n\t}\n\n\tchain dstnat {\n\t\ttype nat hook prerouting priority dstnat; policy accept;\n\t\tjump upnp_prerouting\n\t}\n}\n",
	} {
		for _, end := range []string{"close", "clear", "clear without the first rule", "keep"} {
			t.Run(name+", "+end, func(t *testing.T) {
				t.Parallel()
				n := netnstest.New(t, "gw")
				do(t, n, ruleset)
				before := list(t, n, "ruleset")
				l := nft.NewListing(quiet(), n.FD(), chain("inet fw4 upnp_prerouting"))
				l.Show(ctx(t), 1, listed(80, 90))
				if got := shown(t, n); len(got) != 2 {
					t.Fatalf("there are %q", got)
				}
				if err := l.Close(ctx(t), end != "close"); err != nil {
					t.Error(err)
				}
				if end == "clear without the first rule" {
					first := strings.Fields(strings.Split(run(t, n, "", "--handle", "list", "chain", "inet", "fw4", "upnp_prerouting"), "\n")[2])
					do(t, n, "delete rule inet fw4 upnp_prerouting handle "+first[len(first)-1]+"\n")
				}
				if end == "keep" {
					if got := shown(t, n); len(got) != 2 {
						t.Errorf("left are %q", got)
					}
					return
				}
				if strings.HasPrefix(end, "clear") {
					if gone, err := nft.Clear(ctx(t), quiet(), n.FD()); err != nil || len(gone) != 1 || gone[0] != "chain inet fw4 upnp_prerouting" {
						t.Errorf("removed %q, %v", gone, err)
					}
				}
				if after := list(t, n, "ruleset"); after != before {
					t.Errorf("there is\n%s\nbefore\n%s", after, before)
				}
			})
		}
	}
}

// BenchmarkListing: as many rows as there may be, of which one ends and one comes, and of
// which the first comes again, so that all are written.
func BenchmarkListing(b *testing.B) {
	ports := make([]uint16, 1025)
	for i := range ports {
		ports[i] = 10000 + uint16(i)
	}
	all := listed(ports...)
	for name, other := range map[string][]portmap.Mapping{"one": append(slices.Clone(all[:511]), all[512:]...), "all": all[1:]} {
		b.Run(name, func(b *testing.B) {
			n := netnstest.New(b, "gw")
			do(b, n, "table inet fw4 {\n}\n")
			l := nft.NewListing(quiet(), n.FD(), chain("inet fw4 upnp_prerouting"))
			l.Show(ctx(b), 1, other)
			for b.Loop() {
				l.Show(ctx(b), 1, all[:1024])
				l.Show(ctx(b), 1, other)
			}
			if err := l.Close(ctx(b), false); err != nil {
				b.Fatal(err)
			}
		})
	}
}
