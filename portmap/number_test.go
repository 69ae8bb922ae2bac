package portmap

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

// TestNumbers: every pinhole has a number of its own until all are taken, and a
// number is found wherever the search begins.
func TestNumbers(t *testing.T) {
	t.Parallel()
	table := NewTable()
	random := rand.New(rand.NewPCG(1, 2))
	c := Client{Addr: netip.MustParseAddr("2001:db8::a"), Interface: "lan", Via: ViaUPnP}
	grant := func(i int, start uint16) error {
		r := Request{Kind: Pinhole6, Client: c, Transport: Transport([]byte{6, 17}[i>>15&1]), Internal: netip.AddrPortFrom(c.Addr, uint16(i&0x7fff)+1)}
		if i>>16 > 0 {
			r.Remotes = []Remote{{Prefix: netip.MustParsePrefix("2001:db8:9::/64")}}
		}
		change, err := table.Plan(time.Now(), r, Decision{Action: Allow}, time.Hour, start)
		if err == nil {
			table = table.Commit(change)
		}
		return err
	}
	for i := range 1 << 16 {
		start := uint16(random.Uint32())
		_, taken := table.Pinhole(start)
		if err := grant(i, start); err != nil {
			t.Fatalf("the %d. pinhole: %v", i, err)
		}
		if _, now := table.Pinhole(start); !taken && !now {
			t.Fatalf("number %d was free and is not used", start)
		}
	}
	if err := grant(1<<16, 7); ReasonOf(err) != TotalQuota {
		t.Errorf("one too many: %v", err)
	}
}
