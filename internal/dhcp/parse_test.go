package dhcp_test

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"portcullis/internal/dhcp"
	"portcullis/portmap"
)

// device is a MAC of the files in testdata.
func device(n byte) portmap.MAC { return portmap.MAC{0x52, 0x54, 0, 0xab, 0xcd, n} }

func lease(mac byte, addr, name string, ends int64) dhcp.Lease {
	l := dhcp.Lease{MAC: device(mac), Addr: netip.MustParseAddr(addr), Name: name}
	if ends != 0 {
		l.Expires = time.Unix(ends, 0)
	}
	return l
}

var opts = cmp.Options{cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty()}

const evening, night = 1795482000, 1795485600

func read(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// files are those of testdata, as the servers write them.
var files = map[string]dhcp.Format{
	"dnsmasq.leases": dhcp.Dnsmasq, "odhcpd.leases": dhcp.Odhcpd, "dhcpd.leases": dhcp.ISC,
	"kea-leases4.csv": dhcp.Kea, "kea-leases6.csv": dhcp.Kea,
}

func TestFiles(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][]dhcp.Lease{
		"dnsmasq.leases": {
			lease(1, "192.168.1.10", "Console-A", evening),
			lease(2, "192.168.1.11", "", night),
			lease(3, "192.168.1.12", "nas.lan", 0),
			lease(4, "192.168.1.13", "no-clock", 0),
			lease(1, "fd00:77::10", "Console-A", evening),
			lease(1, "fd00:77::11", "Console-A", evening),
		},
		"odhcpd.leases": {
			lease(1, "2001:db8:1::5ab", "console-a", evening),
			lease(1, "fd00:77::5ab", "console-a", evening),
			lease(6, "fd00:77::6", "", 0),
			lease(1, "192.168.1.10", "console-a", evening),
			lease(2, "192.168.1.11", "", 0),
		},
		"dhcpd.leases": {
			lease(1, "192.168.1.10", "Console-A", evening),
			lease(2, "192.168.1.11", "", night),
			lease(3, "192.168.1.12", "nas", 0),
		},
		"kea-leases4.csv": {
			lease(1, "192.168.1.10", "console-a.home.lan", evening),
			lease(2, "192.168.1.11", "", night),
			lease(3, "192.168.1.12", "nas", 0),
			lease(6, "192.168.1.16", "", evening),
		},
		"kea-leases6.csv": {
			lease(1, "2001:db8:1::10", "console-a", evening),
			lease(2, "2001:db8:1::11", "tablet", evening),
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data := read(t, name)
			format := dhcp.Recognise(data)
			if format != files[name] {
				t.Errorf("taken for %q", format)
			}
			got := dhcp.Parse(format, data)
			if diff := cmp.Diff(dhcp.Parsed{Leases: want}, got, opts); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			windows := strings.ReplaceAll(string(data), "\n", "\r\n")
			if diff := cmp.Diff(got, dhcp.Parse(dhcp.Recognise([]byte(windows)), []byte(windows)), opts); diff != "" {
				t.Errorf("other ends of lines, -want +got:\n%s", diff)
			}
		})
	}
}

// TestTorn: whatever is cut off, a file never gives more than the whole, but for
// what its end would have taken back.
func TestTorn(t *testing.T) {
	t.Parallel()
	for name, format := range files {
		data := read(t, name)
		for n := range data {
			p := dhcp.Parse(format, data[:n])
			if p.Damaged > 1 {
				t.Errorf("%s cut at %d: %d damaged", name, n, p.Damaged)
			}
			for _, l := range p.Leases {
				checkLease(t, l)
			}
		}
	}
}

// TestHostile: what must not become a lease, or a name.
func TestHostile(t *testing.T) {
	t.Parallel()
	const mac = "52:54:00:ab:cd:01"
	dnsmasq := func(name string) string { return "1795482000 " + mac + " 192.168.1.10 " + name + " *\n" }
	isc := func(body string) string { return "lease 192.168.1.10 {\n  binding state active;\n" + body + "}\n" }
	const hard, ends, tv = "hardware ethernet " + mac + ";\n", "ends epoch 1795482000;\n", "client-hostname \"tv\";\n"
	head := "address,hwaddr,valid_lifetime,expire,hostname,state\n"
	good := lease(1, "192.168.1.10", "tv", evening)
	bare := lease(1, "192.168.1.10", "", evening)
	long := strings.Repeat("a", 63)
	for name, c := range map[string]struct {
		format  dhcp.Format
		text    string
		want    []dhcp.Lease
		damaged int
	}{
		"a name/escape sequence":     {dhcp.Dnsmasq, dnsmasq("\x1b[2Jtv"), []dhcp.Lease{bare}, 0},
		"a name/not ASCII":           {dhcp.Dnsmasq, dnsmasq("t\u0301v"), []dhcp.Lease{bare}, 0},
		"a name/NUL":                 {dhcp.Dnsmasq, dnsmasq("tv\x00"), []dhcp.Lease{bare}, 0},
		"a name/glob":                {dhcp.Dnsmasq, dnsmasq("tv*"), []dhcp.Lease{bare}, 0},
		"a name/slash":               {dhcp.Dnsmasq, dnsmasq("a/tv"), []dhcp.Lease{bare}, 0},
		"a name/empty label":         {dhcp.Dnsmasq, dnsmasq("a..b"), []dhcp.Lease{bare}, 0},
		"a name/begins with a dot":   {dhcp.Dnsmasq, dnsmasq(".a"), []dhcp.Lease{bare}, 0},
		"a name/dots only":           {dhcp.Dnsmasq, dnsmasq("."), []dhcp.Lease{bare}, 0},
		"a name/marks only":          {dhcp.Dnsmasq, dnsmasq("-_-"), []dhcp.Lease{bare}, 0},
		"a name/64 octets":           {dhcp.Dnsmasq, dnsmasq(long + "a"), []dhcp.Lease{bare}, 0},
		"a name/63 octets":           {dhcp.Dnsmasq, dnsmasq(long), []dhcp.Lease{lease(1, "192.168.1.10", long, evening)}, 0},
		"a name/254 octets":          {dhcp.Dnsmasq, dnsmasq(long + "." + long + "." + long + "." + long[:62]), []dhcp.Lease{bare}, 0},
		"a name/dot at the end":      {dhcp.Dnsmasq, dnsmasq("tv."), []dhcp.Lease{good}, 0},
		"a name/several words":       {dhcp.Dnsmasq, dnsmasq("tv set of mine"), []dhcp.Lease{good}, 0},
		"dnsmasq/too few words":      {dhcp.Dnsmasq, "1795482000 " + mac + " 192.168.1.10\n" + dnsmasq("tv"), []dhcp.Lease{good}, 1},
		"dnsmasq/no time":            {dhcp.Dnsmasq, "-1 " + mac + " 192.168.1.10 x *\n99999999999999 " + mac + " 192.168.1.10 x *\n", nil, 2},
		"dnsmasq/no address":         {dhcp.Dnsmasq, "1 " + mac + " 192.168.1.010 x *\n1 " + mac + " fe80::1%eth0 x *\n1 " + mac + " ::ffff:10.0.0.1 x *\n", nil, 3},
		"dnsmasq/nobody's address":   {dhcp.Dnsmasq, "1 " + mac + " 0.0.0.0 x *\n1 " + mac + " 239.1.1.1 x *\n", nil, 2},
		"dnsmasq/group MAC":          {dhcp.Dnsmasq, strings.Replace(dnsmasq("tv"), "52:", "53:", 1), nil, 0},
		"dnsmasq/zero MAC":           {dhcp.Dnsmasq, strings.Replace(dnsmasq("tv"), mac, "00:00:00:00:00:00", 1), nil, 0},
		"dnsmasq/address moves on":   {dhcp.Dnsmasq, dnsmasq("tv") + strings.Replace(dnsmasq("pc"), "cd:01", "cd:02", 1), []dhcp.Lease{lease(2, "192.168.1.10", "pc", evening)}, 0},
		"dnsmasq/a long line":        {dhcp.Dnsmasq, dnsmasq(strings.Repeat("a ", 1<<14)) + dnsmasq("tv"), []dhcp.Lease{good}, 1},
		"dnsmasq/rubbish":            {dhcp.Dnsmasq, "\x00\xff\n\n \t\n" + dnsmasq("tv"), []dhcp.Lease{good}, 1},
		"odhcpd/families mixed":      {dhcp.Odhcpd, "# br 525400abcd01 ipv4 tv 1795482000 1 32 fd00::1/128\n# br 00030001525400abcd01 1 tv 1795482000 1 128 192.168.1.10/32\n", nil, 2},
		"odhcpd/no end":              {dhcp.Odhcpd, "# br 525400abcd01 ipv4 tv soon 1 32 192.168.1.10/32\n# a comment\n#\n", nil, 3},
		"odhcpd/long DUID":           {dhcp.Odhcpd, "# br " + strings.Repeat("00", 4000) + " 1 tv 1795482000 1 128 fd00::1/128\n", nil, 0},
		"odhcpd/MAC of the length 5": {dhcp.Odhcpd, "# br 525400abcd ipv4 tv 1795482000 1 32 192.168.1.10/32\n", nil, 0},
		"isc/quotes":                 {dhcp.ISC, isc(hard + ends + "client-hostname \"tv\\\";}\";\n"), []dhcp.Lease{bare}, 0},
		"isc/braces in a name":       {dhcp.ISC, isc(hard + ends + "client-hostname \"} {\";\n"), []dhcp.Lease{bare}, 0},
		"isc/a name of two words":    {dhcp.ISC, isc(hard + ends + "client-hostname \"tv set\";\n"), []dhcp.Lease{bare}, 0},
		"isc/block without end":      {dhcp.ISC, "lease 192.168.1.11 {\n" + hard + "on x {\nif y {\n" + isc(hard+ends+tv), []dhcp.Lease{good}, 1},
		"isc/end without block":      {dhcp.ISC, "}\n}\n" + isc(hard+ends+tv), []dhcp.Lease{good}, 2},
		"isc/begins before it ends":  {dhcp.ISC, isc(hard + ends + tv + "if x {\n} else {\nclient-hostname \"no\";\n}\n"), []dhcp.Lease{good}, 0},
		"isc/no MAC":                 {dhcp.ISC, isc("hardware ethernet 1;\n") + isc(tv), nil, 1},
		"isc/another kind of MAC":    {dhcp.ISC, isc("hardware token-ring " + mac + ";\n" + tv), nil, 0},
		"isc/no time":                {dhcp.ISC, isc(hard+"ends 1 tomorrow now;\n") + isc(hard+"ends epoch x;\n") + isc(hard+"ends tomorrow;\n") + isc(hard+"ends 1 1969/12/31 00:00:00;\n"), nil, 4},
		"isc/torn":                   {dhcp.ISC, "lease 192.168.1.10 {\n" + hard + tv, nil, 1},
		"isc/not a lease":            {dhcp.ISC, "subnet {\nhost {\n" + hard + tv + "}\n}\nlease x {\n}\nlease {\n}\nlease 192.168.1.10 {}\n", nil, 1},
		"isc/deep":                   {dhcp.ISC, strings.Repeat("{\n", 1<<18) + strings.Repeat("}\n", 1<<18), nil, 0},
		"kea/no header":              {dhcp.Kea, "192.168.1.10," + mac + ",4000,1795482000,tv,0\n", nil, 1},
		"kea/short line":             {dhcp.Kea, head + "192.168.1.10\n,,,\n", nil, 2},
		"kea/columns in any order":   {dhcp.Kea, "address,state,hostname,expire,hwaddr\n192.168.1.10,0,tv,1795482000," + mac + "\n", []dhcp.Lease{good}, 0},
		"kea/formula":                {dhcp.Kea, head + "192.168.1.10," + mac + ",4000,1795482000,=cmd|' /C calc'!A0,0\n", []dhcp.Lease{bare}, 0},
		"kea/state unknown":          {dhcp.Kea, head + "192.168.1.10," + mac + ",4000,1795482000,tv,7\n", nil, 0},
		"unknown/anything":           {dhcp.Unknown, dnsmasq("tv"), nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := dhcp.Parse(c.format, []byte(c.text))
			if diff := cmp.Diff(dhcp.Parsed{Leases: c.want, Damaged: c.damaged}, got, opts); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestRecognise(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]dhcp.Format{
		"":                                     dhcp.Unknown,
		"hello\n":                              dhcp.Unknown,
		"# a comment\n#\n":                     dhcp.Unknown,
		"127.0.0.1\tlocalhost\n":               dhcp.Odhcpd,
		"\n\n0 52:54:00:ab:cd:01 10.0.0.2 x\n": dhcp.Dnsmasq,
		"duid 00:01:00:01\n":                   dhcp.Dnsmasq,
		"lease 10.0.0.2 {\n":                   dhcp.ISC,
		"address,hwaddr\n":                     dhcp.Kea,
		strings.Repeat("x", 1<<15) + "\nlease 10.0.0.2 {\n": dhcp.ISC,
	} {
		if got := dhcp.Recognise([]byte(text)); got != want {
			t.Errorf("%.20q is taken for %q, want %q", text, got, want)
		}
	}
}

// TestBounds: more than there is room for is counted, not kept.
func TestBounds(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	for i := range dhcp.MaxLeases + 10 {
		fmt.Fprintf(&b, "0 52:54:00:ab:cd:01 10.0.%d.%d x *\n", i/250, i%250+1)
	}
	p := dhcp.Parse(dhcp.Dnsmasq, []byte(b.String()))
	if len(p.Leases) != dhcp.MaxLeases || p.Left != 10 || p.Damaged != 0 {
		t.Errorf("%d leases, %d left, %d damaged", len(p.Leases), p.Left, p.Damaged)
	}
	big := append([]byte(strings.Repeat("\n", dhcp.MaxFile)), b.String()...)
	if p := dhcp.Parse(dhcp.Dnsmasq, big); len(p.Leases) != 0 {
		t.Error("what is behind the bound was read")
	}
}

// checkLease fails the test when a lease is not as its type promises.
func checkLease(t *testing.T, l dhcp.Lease) {
	t.Helper()
	if l.MAC == (portmap.MAC{}) || l.MAC[0]&1 != 0 {
		t.Errorf("%s is the MAC of %s", l.MAC, l.Addr)
	}
	if !l.Addr.IsValid() || l.Addr.Zone() != "" || l.Addr.Is4In6() || l.Addr.IsMulticast() || l.Addr.IsUnspecified() {
		t.Errorf("%s is an address", l.Addr)
	}
	if len(l.Name) > 253 || strings.Trim(l.Name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") != "" {
		t.Errorf("%q is a name", l.Name)
	}
	for label := range strings.SplitSeq(l.Name, ".") {
		if l.Name != "" && (label == "" || len(label) > 63) {
			t.Errorf("%q is a name", l.Name)
		}
	}
	if !l.Expires.IsZero() && (l.Expires.Unix() < 0 || l.Expires.Year() > 40000) {
		t.Errorf("%v is an end", l.Expires)
	}
}
