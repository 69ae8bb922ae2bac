package nft_test

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"portcullis/firewall"
	"portcullis/firewall/homenet"
	"portcullis/firewall/nft"
	"portcullis/internal/netns/netnstest"
	"portcullis/portmap"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares with a file below testdata.
func golden(t *testing.T, file, got string) {
	t.Helper()
	path := "testdata/" + file
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

// TestLongLists: a list may take longer than any one message of it may.
func TestLongLists(t *testing.T) {
	t.Parallel()
	const mappings = 15000
	b := open(t, netnstest.New(t, "gw"))
	all := make([]portmap.Mapping, mappings)
	for i := range all {
		all[i] = homenet.Mapping(uint64(i+1), fmt.Sprintf("udp %d", 30000+i), fmt.Sprintf("%s:%d", homenet.Alice, 30000+i))
	}
	if err := b.Replace(t.Context(), all); err != nil { // as long as it takes
		t.Fatal(err)
	}
	b.ListPatience(30 * time.Millisecond)
	counters, err := b.Counters(context.Background())
	if err != nil || len(counters) != mappings {
		t.Errorf("counted %d mappings, %v", len(counters), err)
	}
}

// The table as a person sees it, and as nft must be able to load it again.
func TestList(t *testing.T) {
	t.Parallel()
	n := netnstest.New(t, "gateway")
	do(t, n, `table inet fw4 {
		chain forward {
			type filter hook forward priority filter; policy drop;
			ct state established,related accept comment "the owner's own"
		}
	}`)
	b := open(t, n)
	g := homenet.Facts()
	g.AcceptChain = chain("inet fw4 forward")
	if err := b.Configure(ctx(t), g); err != nil {
		t.Fatal(err)
	}
	endless := func(m *portmap.Mapping) { m.Expires = time.Time{} }
	err := b.Apply(ctx(t), []portmap.Mapping{
		homenet.Mapping(1, "udp 5000", homenet.Alice+":6000", endless),
		homenet.Mapping(2, "tcp 8080", homenet.Bob+":80", endless, homenet.From(homenet.PeerX)),
		homenet.Mapping(3, "udp 5001", homenet.Alice+":6001", endless, func(m *portmap.Mapping) {
			m.Remotes = []portmap.Remote{{Prefix: netip.MustParsePrefix("198.51.100.0/24"), Port: 53}, {Prefix: netip.MustParsePrefix("192.0.2.0/24")}}
		}),
		homenet.Pinhole(4, "udp", homenet.Alice6+":6000", endless),
		homenet.Pinhole(5, "tcp", homenet.Bob6+":80", endless, homenet.From("2001:db8:5::66/128")),
		homenet.Pinhole(6, "udp", homenet.Alice6+":6001", endless, homenet.From("2001:db8:9::/64 53", "2001:db8:5::67/128 7000", "2001:db8:8::/61")),
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "portcullis.nft", list(t, n, "table", "inet", "portcullis"))
	golden(t, "accept.nft", list(t, n, "table", "inet", "fw4"))

	ruleset := list(t, n, "ruleset")
	do(t, n, "flush ruleset\n"+ruleset)
	if diff := cmp.Diff(ruleset, list(t, n, "ruleset")); diff != "" {
		t.Errorf("nft loads another ruleset than it listed (-want +got):\n%s", diff)
	}
}

// Every entry that the model can ask for is read back as what it was.
func TestElements(t *testing.T) {
	t.Parallel()
	four := []portmap.Source{{}, portmap.Host(netip.MustParseAddr(homenet.PeerX))}
	for _, p := range []string{"0.0.0.0/0", "198.51.100.0/24", "198.51.100.8/31", "198.51.100.8/32", "255.255.255.255/32", "128.0.0.0/1"} {
		four = append(four, portmap.Source{Prefix: netip.MustParsePrefix(p), Low: 53, High: 65534})
	}
	six := []portmap.Source{{}, portmap.Host(netip.MustParseAddr("2001:db8:5::66"))}
	for _, p := range []string{"::/0", "2001:db8::/29", "2001:db8:5::/64", "2001:db8:5::66/127", "2001:db8:5::66/128", "8000::/1"} {
		six = append(six, portmap.Source{Prefix: netip.MustParsePrefix(p), Low: 53, High: 65534})
	}
	var all []firewall.Entry
	for _, proto := range []portmap.Transport{portmap.TCP, portmap.UDP} {
		for _, src := range four {
			all = append(all, firewall.Entry{Kind: firewall.Hole, Transport: proto, External: 5000, Source: src, Internal: netip.MustParseAddrPort(homenet.Alice + ":6000")})
		}
		for _, src := range six {
			all = append(all, firewall.Entry{Kind: firewall.Pin, Transport: proto, Source: src, Internal: netip.MustParseAddrPort(homenet.Alice6 + ":6000")})
		}
	}
	for _, e := range all {
		if hole, flow, ok := nft.Element(e); !ok || hole != e || flow != e {
			t.Errorf("%s is read as %s and %s, %v", e, hole, flow, ok)
		}
	}
}
