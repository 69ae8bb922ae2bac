package portmap_test

import (
	"encoding"
	"fmt"
	"net/netip"
	"testing"

	"portcullis/portmap"
)

// TestTexts: each text that is read comes back as it was, and nothing else is read.
func TestTexts(t *testing.T) {
	t.Parallel()
	type value interface {
		encoding.TextUnmarshaler
		fmt.Stringer
	}
	for name, tc := range map[string]struct {
		into      func() value
		good, bad []string
	}{
		"action": {
			func() value { return new(portmap.Action) },
			[]string{"allow", "ask", "deny"}, []string{"", "Allow", "allow ", "drop"},
		},
		"transport": {
			func() value { return new(portmap.Transport) },
			[]string{"tcp", "udp"}, []string{"", "TCP", "sctp", "6", "protocol 6"},
		},
		"via": {
			func() value { return new(portmap.Via) },
			[]string{"upnp", "natpmp", "pcp"}, []string{"", "owner", "UPnP", "via(1)"},
		},
		"ports": {
			func() value { return new(portmap.PortRange) },
			[]string{"1", "80", "65535", "8000-8999", "1-65535"},
			[]string{"", "0", "0-5", "65536", "+80", "080", " 80", "80 ", "8999-8000", "1-2-3", "1-", "-1", "-", "0x50", "80\x00", "\u0668\u0660"},
		},
	} {
		for _, s := range tc.good {
			v := tc.into()
			if err := v.UnmarshalText([]byte(s)); err != nil || v.String() != s {
				t.Errorf("%s %q: reads as %s, %v", name, s, v, err)
			}
		}
		for _, s := range tc.bad {
			v := tc.into()
			if err := v.UnmarshalText([]byte(s)); err == nil || v.String() != tc.into().String() {
				t.Errorf("%s %q: reads as %s, %v", name, s, v, err)
			}
		}
	}
	var one portmap.PortRange
	if err := one.UnmarshalText([]byte("7-7")); err != nil || one.String() != "7" {
		t.Errorf("a range of one port is %s, %v", one, err)
	}
}

// TestParsePrefix: host bits are a mistake that is told, not cut off.
func TestParsePrefix(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"192.168.7.0/24":      "",
		"0.0.0.0/0":           "",
		"2001:db8:7::/64":     "",
		"192.168.7.1/24":      `has host bits set, the network is "192.168.7.0/24"`,
		"2001:db8::1/64":      `has host bits set, the network is "2001:db8::/64"`,
		"::ffff:10.0.0.0/104": "is an IPv4 network in IPv6 form",
		"192.168.7.0":         "is not a network",
		"192.168.7.0/33":      "is not a network",
		"192.168.7.0/024":     "is not a network",
		"fe80::%eth0/64":      "is not a network",
		"":                    "is not a network",
	} {
		p, err := portmap.ParsePrefix(text)
		switch {
		case want == "" && (err != nil || p.String() != text):
			t.Errorf("%q: reads as %s, %v", text, p, err)
		case want != "" && (err == nil || err.Error() != want || p.IsValid()):
			t.Errorf("%q: reads as %s, %v; want %s", text, p, err, want)
		}
	}
}

// TestRemotesString: the words are those of the JSON, and of the log.
func TestRemotesString(t *testing.T) {
	t.Parallel()
	remote := func(prefix string, port uint16) portmap.Remote {
		return portmap.Remote{Prefix: netip.MustParsePrefix(prefix), Port: port}
	}
	for want, remotes := range map[string][]portmap.Remote{
		"":                          nil,
		"198.51.100.7":              {remote("198.51.100.7/32", 0)},
		"198.51.100.7:53":           {remote("198.51.100.7/32", 53)},
		"198.51.100.0/24":           {remote("198.51.100.0/24", 0)},
		"198.51.100.0/24 port 53":   {remote("198.51.100.0/24", 53)},
		"2001:db8::7":               {remote("2001:db8::7/128", 0)},
		"[2001:db8::7]:53":          {remote("2001:db8::7/128", 53)},
		"::/0 port 1,2001:db8::/32": {remote("::/0", 1), remote("2001:db8::/32", 0)},
	} {
		if got := portmap.RemotesString(remotes); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
