package incumbent_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"portcullis/internal/incumbent"
)

// TestNetworks: what netifd has not printed is no list of networks, rather than an empty one.
func TestNetworks(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                                "not what `ubus call network.interface dump` prints",
		"Command failed: Not found\n":     "not what `ubus",
		"{}":                              `it has no "interface"`,
		`{"interface":{"lan":"br-lan"}}`:  "not what `ubus",
		`{"interface":[{"interface":1}]}`: "not what `ubus",
		strings.Repeat(" ", 1<<20) + "{}": "too large",
	} {
		if _, err := incumbent.Networks([]byte(in), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v", in, err)
		}
	}
	if n, err := incumbent.Networks([]byte(`{"interface":[]}`), nil); err != nil || len(n) != 0 {
		t.Error(n, err)
	}
}

// TestNetworksDown: a network is on the same device while it is down, so that a WAN that comes
// and goes changes nothing; what only its driver knows is not guessed.
func TestNetworksDown(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`"interface":"wan","up":true,"l3_device":"pppoe-wan","proto":"pppoe","device":"eth1.7"`: "pppoe-wan",
		`"interface":"wan","up":false,"proto":"pppoe","device":"eth1.7"`:                        "pppoe-wan",
		`"interface":"wan","up":false,"pending":true,"proto":"pppoe","device":"dsl0"`:           "pppoe-wan",
		`"interface":"wan","up":true,"l3_device":"dsl-isp","proto":"pppoe","device":"eth1"`:     "dsl-isp",
		`"interface":"adsl","up":false,"proto":"pppoa"`:                                         "pppoa-adsl",
		`"interface":"vpn","up":false,"proto":"l2tp"`:                                           "l2tp-vpn",
		`"interface":"stick","up":false,"proto":"3g"`:                                           "3g-stick",
		`"interface":"wan_6","up":false,"proto":"dslite"`:                                       "ds-wan_6",
		`"interface":"wan","up":true,"l3_device":"ds-wan","proto":"dslite"`:                     "ds-wan",
		`"interface":"he","up":false,"proto":"6in4"`:                                            "6in4-he",
		`"interface":"tun","up":false,"proto":"gre"`:                                            "gre4-tun",
		`"interface":"a_long_name","up":false,"proto":"pppoe","device":"eth1"`:                  "",
		`"interface":"wan","up":false,"proto":"dhcp","device":"eth1"`:                           "eth1",
		`"interface":"lan","up":false,"proto":"static","device":"br-lan"`:                       "br-lan",
		`"interface":"lte","up":true,"l3_device":"wwan0","proto":"qmi"`:                         "wwan0",
		`"interface":"lte","up":false,"proto":"qmi"`:                                            "",
		`"interface":"wg0","up":false,"proto":"wireguard"`:                                      "", // its name is the network's
		`"interface":"wan","up":false,"device":"eth1"`:                                          "eth1",
	} {
		devices, err := incumbent.Networks([]byte(`{"interface":[{`+in+`}]}`), nil)
		got := ""
		for _, device := range devices {
			got = device
		}
		if err != nil || got != want {
			t.Errorf("%s is on %q, want %q: %v", in, got, want, err)
		}
	}
}

// TestAliases: an alias is on the device of its network, up or down; so is what PPP makes for
// IPv6. What is none of these, or in a circle, is on none.
func TestAliases(t *testing.T) {
	t.Parallel()
	const file = `package network
config interface 'loopback'
	option device 'lo'
config globals 'globals'
	option ula_prefix 'fd00::/48'
config device
	option name 'br-lan'
	list ports 'lan1'
config interface 'wan'
	option device 'eth1'
	option proto 'pppoe'
config interface 'wan6'
	option device '@wan'
	option proto 'dhcpv6'
config interface 'old6'
	option ifname '@wan6'
config interface 'a'
	option device '@b'
config interface 'b'
	option device '@a'
config interface 'lost'
	option device '@nowhere'
config interface 'own_6'
	option device 'eth2'
config route
	option interface 'wan'
`
	aliases, err := incumbent.Aliases("network", []byte(file))
	if err != nil {
		t.Fatal(err)
	}
	const down = `{"interface":[
		{"interface":"wan","up":false,"pending":true,"proto":"pppoe","device":"eth1"},
		{"interface":"wan6","up":false,"proto":"dhcpv6"}, {"interface":"old6","up":false,"proto":"dhcpv6"},
		{"interface":"a","up":false,"proto":"static"}, {"interface":"b","up":false,"proto":"static"}, {"interface":"lost","up":false,"proto":"static"},
		{"interface":"own","up":true,"proto":"pppoe","l3_device":"pppoe-own"}, {"interface":"own_6","up":false,"proto":"dhcpv6"},
		{"interface":"eth","up":true,"proto":"dhcp","l3_device":"eth3","device":"eth3"}]}`
	const up = `{"interface":[
		{"interface":"wan","up":true,"proto":"pppoe","l3_device":"pppoe-wan","device":"eth1"},
		{"interface":"wan6","up":true,"proto":"dhcpv6","l3_device":"pppoe-wan","device":"pppoe-wan"}, {"interface":"old6","up":false,"proto":"dhcpv6","device":"pppoe-wan"},
		{"interface":"wan_6","up":true,"proto":"dhcpv6","l3_device":"pppoe-wan","device":"pppoe-wan"},
		{"interface":"own","up":false,"proto":"pppoe"},
		{"interface":"eth","up":true,"proto":"dhcp","l3_device":"eth3","device":"eth3"}]}`
	want := map[string]string{
		"wan": "pppoe-wan", "wan6": "pppoe-wan", "old6": "pppoe-wan", "wan_4": "pppoe-wan", "wan_6": "pppoe-wan",
		"own": "pppoe-own", "own_4": "pppoe-own", "eth": "eth3",
	}
	for _, dump := range []string{down, up} {
		got, err := incumbent.Networks([]byte(dump), aliases)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%v (-want +got)\n%s", err, diff)
		}
	}
	for text, want := range map[string]string{"config interface 'wan\n": "network:1: ", "interface wan\n": "is no line of a UCI file", strings.Repeat("#", 1<<20+1): "too large"} {
		if _, err := incumbent.Aliases("network", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v", text, err)
		}
	}
}
