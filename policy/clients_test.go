package policy_test

import (
	"net/netip"
	"strings"
	"testing"

	"portcullis/policy"
	"portcullis/portmap"
)

// TestClientTexts: the forms of a rule's clients, and how they are written again.
func TestClientTexts(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		client policy.ClientMatch
		again  string
	}{
		"AA:bb:cc:00:00:01": {policy.ClientMatch{MAC: portmap.MAC{0xaa, 0xbb, 0xcc, 0, 0, 1}}, "aa:bb:cc:00:00:01"},
		"AA-BB-cc-00-00-01": {policy.ClientMatch{MAC: portmap.MAC{0xaa, 0xbb, 0xcc, 0, 0, 1}}, "aa:bb:cc:00:00:01"},
		"aabb.CC00.0001":    {policy.ClientMatch{MAC: portmap.MAC{0xaa, 0xbb, 0xcc, 0, 0, 1}}, "aa:bb:cc:00:00:01"},
		"192.168.1.64/26":   {policy.ClientMatch{Prefix: netip.MustParsePrefix("192.168.1.64/26")}, "192.168.1.64/26"},
		"192.168.1.20":      {policy.ClientMatch{Prefix: netip.MustParsePrefix("192.168.1.20/32")}, "192.168.1.20/32"},
		"2001:db8::5":       {policy.ClientMatch{Prefix: netip.MustParsePrefix("2001:db8::5/128")}, "2001:db8::5/128"},
		"host:CAM-?.lan":    {policy.ClientMatch{Host: "cam-?.lan"}, "host:cam-?.lan"},
		"iface:br-iot":      {policy.ClientMatch{Interface: "br-iot"}, "iface:br-iot"},
	} {
		var got, again policy.ClientMatch
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want.client || got.String() != want.again {
			t.Errorf("%q: reads as %+v, written as %q, %v", text, got, got, err)
		}
		if err := again.UnmarshalText([]byte(got.String())); err != nil || again != got {
			t.Errorf("%q: reads as %+v, %v", got, again, err)
		}
		if err := (policy.Rule{Action: portmap.Deny, Clients: []policy.ClientMatch{got}}).Check(); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	for text, want := range map[string]string{
		"":                                 "is not a client",
		"camera":                           `is not a client; the name of a device is written "host:camera"`,
		"aa-bb-cc-dd-ee":                   "is not a client; allowed",
		"aa-bb:cc-dd-ee-ff":                "is not a client; allowed",
		"aabb.ccdd.eef":                    "is not a client; allowed",
		"aabb.ccdd":                        "is not a client; allowed",
		"192.168.1.300":                    "is not a client; allowed",
		"iface:":                           "is not a client",
		"fe80::1%eth0":                     "is not a client",
		"::ffff:192.168.1.20":              "is not a client",
		"00:00:00:00:00:00":                "is not the MAC of a device",
		"01:00:5e:00:00:01":                "is not the MAC of a device",
		"192.168.1.65/26":                  "has host bits set",
		"::ffff:192.168.1.0/120":           "is an IPv4 network in IPv6 form",
		"host:":                            "is not a host name",
		"host:[ab]":                        "is not a host name",
		`host:a\`:                          "is not a host name",
		"host:" + strings.Repeat("a", 256): "is not a host name",
	} {
		var got policy.ClientMatch
		if err := got.UnmarshalText([]byte(text)); err == nil || !strings.HasPrefix(err.Error(), want) || got != (policy.ClientMatch{}) {
			t.Errorf("%.40q: reads as %+v, %v; want %s", text, got, err, want)
		}
	}
}
