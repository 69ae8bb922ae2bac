package firewall_test

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"portcullis/firewall"
	"portcullis/portmap"
)

// TestSources: whatever the restrictions, the holes of a mapping admit exactly
// whom one of them allows, no two of one class overlap, and they are few.
func TestSources(t *testing.T) {
	t.Parallel()
	v4 := rapid.Custom(func(t *rapid.T) netip.Addr { // few bits, so that networks meet
		return netip.AddrFrom4([4]byte{198, 51, rapid.SampledFrom([]byte{100, 101}).Draw(t, "net"), rapid.SampledFrom([]byte{0, 7, 8, 200}).Draw(t, "host")})
	})
	v6 := rapid.Custom(func(t *rapid.T) netip.Addr {
		a := netip.MustParseAddr("2001:db8:9:64::").As16()
		a[7] = rapid.SampledFrom([]byte{0x64, 0x65}).Draw(t, "net")
		a[15] = rapid.SampledFrom([]byte{0, 7, 8, 200}).Draw(t, "host")
		return netip.AddrFrom16(a)
	})
	t.Run("holes", func(t *testing.T) {
		t.Parallel()
		sources(t, "1 udp 5000 -> 10.0.0.2:5000", v4, []int{0, 16, 23, 24, 29, 31, 32})
	})
	t.Run("pins", func(t *testing.T) {
		t.Parallel()
		sources(t, "1 udp pin -> [2001:db8::2]:5000", v6, []int{0, 48, 63, 64, 125, 127, 128})
	})
}

func sources(t *testing.T, text string, addr *rapid.Generator[netip.Addr], lengths []int) {
	port := rapid.SampledFrom([]uint16{0, 1, 53, 54, 65535})
	remote := rapid.Custom(func(t *rapid.T) portmap.Remote {
		bits := rapid.SampledFrom(lengths).Draw(t, "bits")
		return portmap.Remote{Prefix: netip.PrefixFrom(addr.Draw(t, "address"), bits).Masked(), Port: port.Draw(t, "port")}
	})
	rapid.Check(t, func(t *rapid.T) {
		m := mapping(t, text)
		m.Remotes = rapid.SliceOfN(remote, 1, portmap.MaxRemotes).Draw(t, "restrictions")
		s := firewall.NewState()
		c, err := s.Plan([]portmap.Mapping{m}, nil)
		if err != nil {
			t.Fatal(err)
		}
		s.Commit(c)
		holes := s.Holes(1)
		if len(holes) > 24 {
			t.Errorf("%d holes", len(holes))
		}
		for i, a := range holes {
			for _, b := range holes[:i] {
				same := a.Source.Anyone() == b.Source.Anyone() && a.Source.OneHost() == b.Source.OneHost()
				if same && a.Source.Overlaps(b.Source) {
					t.Errorf("%s overlaps %s", a.Source, b.Source)
				}
			}
		}
		for range 20 {
			src := netip.AddrPortFrom(addr.Draw(t, "source"), port.Draw(t, "source port"))
			want, got := false, false
			for _, r := range m.Remotes {
				want = want || r.Prefix.Contains(src.Addr()) && (r.Port == 0 || r.Port == src.Port())
			}
			for _, h := range holes {
				got = got || h.Source.Admits(src)
			}
			_, governed := s.Governing(portmap.UDP, 5000, src)
			if m.Kind == portmap.Pinhole6 {
				_, governed = s.GoverningPin(portmap.UDP, m.Internal, src)
			}
			if got != want || governed != want {
				t.Fatalf("%v admits %v: %v, governed %v, want %v", holes, src, got, governed, want)
			}
		}
	})
}
