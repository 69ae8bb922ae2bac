package dhcp_test

import (
	"net/netip"
	"slices"
	"testing"

	"portcullis/internal/dhcp"
	"portcullis/portmap"
)

// sound fails the test when what was parsed is not as promised.
func sound(t *testing.T, p dhcp.Parsed) {
	t.Helper()
	if len(p.Leases) > dhcp.MaxLeases {
		t.Errorf("%d leases", len(p.Leases))
	}
	seen := make(map[netip.Addr]bool)
	for _, l := range p.Leases {
		if seen[l.Addr] {
			t.Errorf("%s has two leases", l.Addr)
		}
		seen[l.Addr] = true
		checkLease(t, l)
	}
}

// fuzz checks a parser: what it gives is sound, always the same, and whatever comes
// before it, a good lease at the end is found.
func fuzz(f *testing.F, format dhcp.Format, good string) {
	want := portmap.MAC{2, 0, 0, 0, 0, 7}
	for name, kind := range files {
		if kind == format {
			f.Add(read(f, name))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		data = data[:min(len(data), dhcp.MaxFile-1024)]
		p := dhcp.Parse(format, data)
		sound(t, p)
		if again := dhcp.Parse(format, data); !slices.Equal(p.Leases, again.Leases) {
			t.Error("the same file says something else")
		}
		whole := dhcp.Parse(format, append(append(slices.Clone(data), '\n'), good...))
		sound(t, whole)
		if whole.Left == 0 && !slices.ContainsFunc(whole.Leases, func(l dhcp.Lease) bool {
			return l.MAC == want && l.Addr == netip.MustParseAddr("10.9.8.7") && l.Name == "tv"
		}) {
			t.Errorf("the lease at the end is lost: %+v", whole)
		}
	})
}

func FuzzDnsmasq(f *testing.F) {
	fuzz(f, dhcp.Dnsmasq, "1795482000 02:00:00:00:00:07 10.9.8.7 tv *\n")
}

func FuzzOdhcpd(f *testing.F) {
	fuzz(f, dhcp.Odhcpd, "# br-lan 020000000007 ipv4 tv -1 a090807 32 10.9.8.7/32\n")
}

func FuzzISC(f *testing.F) {
	fuzz(f, dhcp.ISC, "lease 10.9.8.7 {\n  hardware ethernet 02:00:00:00:00:07;\n  client-hostname \"tv\";\n}\n")
}

func FuzzKea(f *testing.F) {
	fuzz(f, dhcp.Kea, "address,hwaddr,valid_lifetime,expire,hostname,state\n10.9.8.7,02:00:00:00:00:07,3600,1795482000,tv,0\n")
}

func FuzzRecognise(f *testing.F) {
	for name := range files {
		f.Add(read(f, name))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		sound(t, dhcp.Parse(dhcp.Recognise(data), data))
	})
}
