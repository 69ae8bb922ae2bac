package incumbent_test

import (
	"strings"
	"testing"

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
		if _, err := incumbent.Networks([]byte(in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v", in, err)
		}
	}
	if n, err := incumbent.Networks([]byte(`{"interface":[]}`)); err != nil || len(n) != 0 {
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
		devices, err := incumbent.Networks([]byte(`{"interface":[{` + in + `}]}`))
		got := ""
		for _, device := range devices {
			got = device
		}
		if err != nil || got != want {
			t.Errorf("%s is on %q, want %q: %v", in, got, want, err)
		}
	}
}
