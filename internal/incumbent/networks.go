package incumbent

import (
	"cmp"
	"fmt"
	"strings"

	"portcullis/internal/json"
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
// same while the network is down. A network without any, or none that is known, is left out. An
// alias has the device of the network that it is one of (Aliases).
func Networks(data []byte, aliases map[string]string) (map[string]string, error) {
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
	for _, n := range dump.Interface {
		of := n.Interface
		for again := 0; devices[of] == "" && again < maxAliases; again++ {
			of = aliases[of]
		}
		if device := devices[of]; device != "" {
			devices[n.Interface] = device
		}
	}
	for _, n := range dump.Interface {
		for _, suffix := range []string{"_4", "_6"} {
			_, configured := aliases[n.Interface+suffix]
			if device := devices[n.Interface]; device != "" && aliases != nil && !configured && devices[n.Interface+suffix] == "" && makers[n.Proto] {
				devices[n.Interface+suffix] = device
			}
		}
	}
	return devices, nil
}

// makers are the protocols that make a network for each family while theirs is up, on the same
// device and with its name before _4 and _6.
var makers = map[string]bool{
	"ppp": true, "pppoe": true, "pppoa": true, "pptp": true, "l2tp": true, "sstp": true, "pppossh": true, "3g": true,
	"qmi": true, "ncm": true, "mbim": true, "modemmanager": true,
}

// maxAliases is how many aliases of aliases are followed, which may be in a circle.
const maxAliases = 8

// Aliases returns the networks that OpenWrt's /etc/config/network has, and for an alias of which
// network it is one: wan6 of wan, where its device is @wan. While that is down, netifd tells
// no device of an alias.
func Aliases(name string, data []byte) (map[string]string, error) {
	f := File{Name: name, Kind: UCI}
	if len(data) > MaxFileSize {
		return nil, &Error{name, 1, fmt.Sprintf("the file is too large; allowed: at most %d bytes", MaxFileSize)}
	}
	sections, err := f.sections(strings.Split(string(data), "\n"))
	if err != nil {
		return nil, err
	}
	aliases := map[string]string{}
	for _, s := range sections {
		if s.kind != "interface" {
			continue
		}
		of, alias := strings.CutPrefix(s.get("", "device", "ifname"), "@") // ifname until OpenWrt 21.02
		if aliases[s.name] = ""; alias {
			aliases[s.name] = of
		}
	}
	return aliases, nil
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
