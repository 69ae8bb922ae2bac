package special_test

import (
	"net/netip"
	"testing"

	"portcullis/internal/special"
)

func addrs(texts ...string) []netip.Addr {
	var all []netip.Addr
	for _, s := range texts {
		all = append(all, netip.MustParseAddr(s))
	}
	return all
}

func TestPublic(t *testing.T) {
	t.Parallel()
	for _, a := range addrs("8.8.8.8", "1.0.0.1", "100.63.255.255", "100.128.0.0", "172.15.255.255", "172.32.0.0",
		"192.0.1.0", "198.17.255.255", "198.20.0.0", "223.255.255.255", "::ffff:8.8.8.8",
		"192.0.2.1", "198.51.100.1", "203.0.113.255", // documentation
		"2001:db8::1", "2a00::1", "3fff::1") {
		if !special.Public(a) {
			t.Errorf("%s is not public", a)
		}
	}
	for _, a := range addrs("0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.0", "100.127.255.255", "127.0.0.1",
		"169.254.1.1", "172.16.0.0", "172.31.255.255", "192.0.0.2", "192.88.99.1", "192.168.0.1", "198.18.0.1", "198.19.255.255",
		"224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "::ffff:192.168.1.1",
		"::", "::1", "fe80::1", "fe80::1%eth0", "fd00::1", "fc00::1", "ff02::1") {
		if special.Public(a) {
			t.Errorf("%s is public", a)
		}
	}
	if special.Public(netip.Addr{}) {
		t.Error("the zero address is public")
	}
}

func TestHosts(t *testing.T) {
	t.Parallel()
	for _, a := range addrs("8.8.8.8", "10.0.0.1", "100.64.0.1", "172.16.0.1", "192.168.1.1", "198.18.0.1", "192.0.2.1", "223.255.255.255",
		"2001:db8::1", "fd00::1", "64:ff9b::1") {
		if !special.Hosts(a) {
			t.Errorf("%s is no host's", a)
		}
	}
	for _, a := range addrs("0.0.0.0", "0.1.2.3", "127.0.0.1", "169.254.1.1", "192.0.0.1", "192.88.99.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255",
		"::", "::1", "fe80::1", "ff02::1") {
		if special.Hosts(a) {
			t.Errorf("%s is a host's", a)
		}
	}
	if special.Hosts(netip.Addr{}) {
		t.Error("the zero address is a host's")
	}
}

func TestEdge(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		network, addr string
		want          bool
	}{
		{"192.168.1.0/24", "192.168.1.0", true},
		{"192.168.1.0/24", "192.168.1.255", true},
		{"192.168.1.0/24", "192.168.1.1", false},
		{"192.168.1.0/24", "192.168.1.254", false},
		{"192.168.1.0/24", "192.168.2.255", false},
		{"192.168.1.77/24", "192.168.1.0", true}, // not masked
		{"10.0.0.0/8", "10.255.255.255", true},
		{"10.0.0.0/8", "10.0.0.255", false},
		{"10.0.0.4/30", "10.0.0.4", true},
		{"10.0.0.4/30", "10.0.0.7", true},
		{"10.0.0.4/31", "10.0.0.4", false},
		{"10.0.0.4/31", "10.0.0.5", false},
		{"10.0.0.4/32", "10.0.0.4", false},
		{"0.0.0.0/0", "255.255.255.255", true},
		{"192.168.1.0/24", "::ffff:192.168.1.255", false},
		{"2001:db8::/64", "2001:db8::", true},
		{"2001:db8::/64", "2001:db8::ffff:ffff:ffff:ffff", false},
		{"2001:db8::/126", "2001:db8::", true},
		{"2001:db8::/127", "2001:db8::", false},
		{"2001:db8::/128", "2001:db8::", false},
	} {
		if got := special.Edge(netip.MustParsePrefix(c.network), netip.MustParseAddr(c.addr)); got != c.want {
			t.Errorf("%s in %s: %v", c.addr, c.network, got)
		}
	}
}
