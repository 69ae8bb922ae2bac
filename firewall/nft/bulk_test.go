package nft_test

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"

	"portcullis/firewall"
	"portcullis/firewall/homenet"
	"portcullis/firewall/nft"
	"portcullis/internal/netns/netnstest"
	"portcullis/portmap"
)

// TestMany: more than fit one transaction, with elements of every set, are in the kernel as
// they should be when they are there first, and after a repair; that takes a few allocations
// for each, where the library's messages took 34. A full audit has no list of them, and finds
// what is missing of any set. It counts all of the process, and so is not
// parallel to others.
func TestMany(t *testing.T) {
	const most, mostOfAudit = 9, 3000
	n := netnstest.New(t, "gateway")
	b := open(t, n, func(c *nft.Config) { c.Log = quiet() })
	all := crowd(9000)
	from := func(m *portmap.Mapping, remote string, port uint16) {
		m.Remotes = []portmap.Remote{{Prefix: netip.MustParsePrefix(remote), Port: port}}
	}
	for i := range 200 {
		from(&all[3*i], fmt.Sprintf("198.51.100.%d/32", i), 0)
		from(&all[3*i+1], fmt.Sprintf("198.51.%d.0/24", i), uint16(i))
		if i%2 == 0 {
			all[3*i+1].Transport = portmap.TCP
		}
		pin := homenet.Pinhole(uint64(len(all)+1), "udp", fmt.Sprintf("[2001:db8:77::10]:%d", 6000+i))
		switch i % 3 {
		case 1:
			from(&pin, "2001:db8:1::1/128", 0)
		case 2:
			from(&pin, "2001:db8:1::/48", 53)
		}
		all = append(all, pin)
	}
	if err := b.Replace(ctx(t), all); err != nil {
		t.Fatal(err)
	}
	s := firewall.NewState()
	c, err := s.Plan(all, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Commit(c)
	want := firewall.World(s.Entries())
	if diff := cmp.Diff(want, world(t, b)); diff != "" {
		t.Fatalf("(-want +got):\n%s", diff)
	}
	got := testing.AllocsPerRun(1, func() {
		foreign(t, n, func(q *nftables.Conn) { q.FlushRuleset() })
		if drift, err := b.Audit(ctx(t), false); err != nil || drift == "" {
			t.Fatal(drift, err)
		}
	}) / float64(len(all))
	if t.Logf("%.1f allocations a mapping", got); got > most {
		t.Errorf("%.1f allocations for a mapping, and not %d at most", got, most)
	}
	if diff := cmp.Diff(want, world(t, b)); diff != "" {
		t.Errorf("after a repair (-want +got):\n%s", diff)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	drift, err := b.Audit(ctx(t), true)
	runtime.ReadMemStats(&after)
	if err != nil || drift != "" {
		t.Errorf("the next audit found %q, %v", drift, err)
	}
	octets := int(after.TotalAlloc-before.TotalAlloc) / len(all) // #nosec G115 -- of this machine
	if t.Logf("%d octets a mapping for a full audit", octets); octets > mostOfAudit {
		t.Errorf("%d octets for a mapping at a full audit, and not %d at most", octets, mostOfAudit)
	}
	for _, set := range []string{
		"map inet portcullis mapped", "map inet portcullis mapped_from", "map inet portcullis mapped_filtered", "map inet portcullis kept_ports",
		"set inet portcullis mapped_ports", "set inet portcullis mapped_flows", "set inet portcullis mapped_flows_from",
		"set inet portcullis mapped_flows_filtered_tcp", "set inet portcullis mapped_flows_filtered_udp",
		"set inet portcullis pinholes", "set inet portcullis pinholes_from", "set inet portcullis pinholes_filtered",
	} {
		do(t, n, "flush "+set)
		if drift, err := b.Audit(ctx(t), true); err != nil || drift != "our mappings were changed" {
			t.Errorf("%s is empty, and the audit finds %q, %v", set, drift, err)
		}
	}
}

// TestManyRefused: what the kernel refuses in one of many transactions is the error of all,
// whichever of them it is, and no rule leads to what is left.
func TestManyRefused(t *testing.T) {
	n := netnstest.New(t, "gateway")
	b := open(t, n, func(c *nft.Config) { c.Log = quiet() })
	all := crowd(12000)
	for i := range 9000 { // more than a set of such has room for
		all[i].Remotes = []portmap.Remote{{Prefix: netip.MustParsePrefix(fmt.Sprintf("198.51.%d.0/24", i%256))}}
	}
	if err := b.Replace(ctx(t), all); !errors.Is(err, firewall.ErrFull) {
		t.Fatalf("there is no room for 800 of these mappings, but: %v", err)
	}
	if err := b.Replace(ctx(t), all[9000:]); err != nil {
		t.Fatal(err)
	}
	s := firewall.NewState()
	c, err := s.Plan(all[9000:], nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Commit(c)
	if diff := cmp.Diff(firewall.World(s.Entries()), world(t, b)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
