package nft_test

import (
	"fmt"
	"net/netip"
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
// for each, where the library's messages took 34. It counts all of the process, and so is not
// parallel to others.
func TestMany(t *testing.T) {
	const most = 12
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
}
