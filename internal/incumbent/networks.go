package incumbent

import (
	"cmp"
	"encoding/json"
	"fmt"
)

// tunnels are the protocols of OpenWrt's whose device is made when the network comes up, and
// what stands before the network's name in that device's. A modem's (qmi, ncm, mbim) is called
// by its driver, and WireGuard's as the network.
var tunnels = map[string]string{
	"ppp": "ppp-", "pppoe": "pppoe-", "pppoa": "pppoa-", "pptp": "pptp-", "l2tp": "l2tp-", "sstp": "sstp-", "pppossh": "pppossh-", "3g": "3g-",
	"6in4": "6in4-", "6rd": "6rd-", "6to4": "6to4-", "dslite": "ds-", "ipip6": "ipip6-", "map": "map-", "464xlat": "464-", "ipip": "ipip-",
	"gre": "gre4-", "gretap": "gre4t-", "grev6": "gre6-", "grev6tap": "gre6t-", "openconnect": "vpn-",
}

// maxDevice is how long the name of a device can be (IFNAMSIZ without the NUL byte).
const maxDevice = 15

// Networks returns the device of each network of OpenWrt, from what `ubus call
// network.interface dump` prints on the router: the one that packets are seen on, which is the
// same while the network is down. A network without any, or none that is known, is left out.
func Networks(data []byte) (map[string]string, error) {
	if len(data) > MaxFileSize {
		return nil, fmt.Errorf("too large; allowed: at most %d bytes", MaxFileSize)
	}
	var dump struct {
		Interface []network `json:"interface"`
	}
	if err := json.Unmarshal(data, &dump); err != nil {
		return nil, fmt.Errorf("not what `ubus call network.interface dump` prints: %w", err)
	}
	if dump.Interface == nil {
		return nil, fmt.Errorf("not what `ubus call network.interface dump` prints: it has no %q", "interface")
	}
	devices := map[string]string{}
	for _, n := range dump.Interface {
		if device := n.on(); device != "" {
			devices[n.Interface] = device
		}
	}
	return devices, nil
}

// network is one as netifd tells of it, which has a device of the third layer only while it
// is up.
type network struct {
	Interface string `json:"interface"`
	Proto     string `json:"proto"`
	L3Device  string `json:"l3_device"`
	Device    string `json:"device"`
}

// on returns the device that its packets are seen on, now or when it is up; "": it is not known.
// That of PPPoE is never the one below, where the modem is.
func (n network) on() string {
	before, tunnel := tunnels[n.Proto]
	switch name := before + n.Interface; {
	case n.L3Device != "" || !tunnel:
		return cmp.Or(n.L3Device, n.Device)
	case len(name) > maxDevice:
		return ""
	default:
		return name
	}
}
