package nft_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"portcullis/firewall/homenet"
	"portcullis/firewall/nft"
	"portcullis/internal/netns/netnstest"
	"portcullis/portmap"
)

// crowd gives n mappings from external port 1 on.
func crowd(n int) []portmap.Mapping {
	all := make([]portmap.Mapping, n)
	for i := range all {
		all[i] = portmap.Mapping{
			ID: uint64(i + 1), Transport: portmap.UDP, ExternalPort: uint16(i + 1),
			Internal: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 5000),
			Created:  time.Now(), Expires: time.Now().Add(time.Hour),
		}
	}
	return all
}

// What one change costs must not depend on how many mappings there are.
func BenchmarkOne(b *testing.B) {
	for _, n := range []int{100, 20_000} {
		backend := open(b, netnstest.New(b, "gateway"), func(c *nft.Config) { c.Log = quiet() })
		if err := backend.Replace(ctx(b), crowd(n)); err != nil {
			b.Fatal(err)
		}
		one := portmap.Mapping{
			ID: 1 << 32, Transport: portmap.TCP, ExternalPort: 9,
			Internal: netip.MustParseAddrPort("192.168.1.10:9"), Created: time.Now(), Expires: time.Now().Add(time.Hour),
		}
		renewed := one
		list := func(m portmap.Mapping) []portmap.Mapping { return []portmap.Mapping{m} }
		apply := func(b *testing.B, add, del []portmap.Mapping) {
			if err := backend.Apply(ctx(b), add, del); err != nil {
				b.Fatal(err)
			}
		}
		b.Run(fmt.Sprintf("AddAndDelete/%d", n), func(b *testing.B) {
			for b.Loop() {
				apply(b, list(one), nil)
				apply(b, nil, list(one))
			}
		})
		b.Run(fmt.Sprintf("Renew/%d", n), func(b *testing.B) {
			apply(b, list(one), nil)
			for b.Loop() {
				renewed.Expires = renewed.Expires.Add(time.Second)
				apply(b, list(renewed), list(one))
			}
			apply(b, nil, list(one))
		})
		b.Run(fmt.Sprintf("Configure/%d", n), func(b *testing.B) {
			for b.Loop() {
				if err := backend.Configure(ctx(b), homenet.Facts()); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("Audit/%d", n), func(b *testing.B) {
			for b.Loop() {
				if drift, err := backend.Audit(ctx(b), false); err != nil || drift != "" {
					b.Fatal(drift, err)
				}
			}
		})
	}
}

// What a change of one filtered mapping costs beside n others, and what it costs
// an unfiltered one. Half of them are TCP.
func BenchmarkFiltered(b *testing.B) {
	filtered := func(m *portmap.Mapping, i int) {
		m.Transport = []portmap.Transport{portmap.TCP, portmap.UDP}[i%2]
		m.Remotes = []portmap.Remote{
			{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{198, byte(i >> 8), byte(i), 0}), 24), Port: uint16(i % 3)},
		}
	}
	for _, n := range []int{0, 100, 1000, 5000} {
		backend := open(b, netnstest.New(b, "gateway"), func(c *nft.Config) { c.Log = quiet() })
		all := crowd(n)
		for i := range all {
			filtered(&all[i], i)
		}
		if err := backend.Replace(ctx(b), all); err != nil {
			b.Fatal(err)
		}
		apply := func(b *testing.B, add, del []portmap.Mapping) {
			if err := backend.Apply(ctx(b), add, del); err != nil {
				b.Fatal(err)
			}
		}
		plain := portmap.Mapping{
			ID: 1 << 32, Transport: portmap.TCP, ExternalPort: 60_000,
			Internal: netip.MustParseAddrPort("192.168.1.10:9"), Created: time.Now(), Expires: time.Now().Add(time.Hour),
		}
		one := plain
		filtered(&one, n)
		for name, m := range map[string]portmap.Mapping{"plain": plain, "filtered": one} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				for b.Loop() {
					apply(b, []portmap.Mapping{m}, nil)
					apply(b, nil, []portmap.Mapping{m})
				}
			})
		}
		b.Run(fmt.Sprintf("replace/%d", n), func(b *testing.B) {
			for b.Loop() {
				if err := backend.Replace(ctx(b), all); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkReplace(b *testing.B) {
	for _, n := range []int{0, 1000, 60_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			backend := open(b, netnstest.New(b, "gateway"), func(c *nft.Config) { c.Log = quiet() })
			all := crowd(n)
			for b.Loop() {
				if err := backend.Replace(ctx(b), all); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
