package incumbent

import (
	"cmp"
	"encoding/json"
	"fmt"
)

// Networks returns the device of each network of OpenWrt, from what `ubus call
// network.interface dump` prints on the router: the one that packets are seen on, or, while
// the network is down, the one that it is configured on. A network without any is left out.
func Networks(data []byte) (map[string]string, error) {
	if len(data) > MaxFileSize {
		return nil, fmt.Errorf("too large; allowed: at most %d bytes", MaxFileSize)
	}
	var dump struct {
		Interface []struct {
			Interface string `json:"interface"`
			L3Device  string `json:"l3_device"`
			Device    string `json:"device"`
		} `json:"interface"`
	}
	if err := json.Unmarshal(data, &dump); err != nil {
		return nil, fmt.Errorf("not what `ubus call network.interface dump` prints: %w", err)
	}
	if dump.Interface == nil {
		return nil, fmt.Errorf("not what `ubus call network.interface dump` prints: it has no %q", "interface")
	}
	devices := map[string]string{}
	for _, n := range dump.Interface {
		if device := cmp.Or(n.L3Device, n.Device); device != "" {
			devices[n.Interface] = device
		}
	}
	return devices, nil
}
