package igd

import "strconv"

// wanCommonInterfaceConfig is WANCommonInterfaceConfig:1. Desktop systems poll
// the four counters together. SetEnabledForInternet and its variable are left
// out: no host of the LAN may cut the line (abuse case G12).
func wanCommonInterfaceConfig() *service {
	return &service{
		name: "WANCommonInterfaceConfig", id: "WANCommonIFC1", latest: 1,
		variables: []variable{
			{name: "WANAccessType", kind: text, allowed: []string{"DSL", "POTS", "Cable", "Ethernet"}},
			{name: "Layer1UpstreamMaxBitRate", kind: ui4},
			{name: "Layer1DownstreamMaxBitRate", kind: ui4},
			{
				name: "PhysicalLinkStatus", kind: text, allowed: []string{linkUp, linkDown},
				evented: ofWAN, value: visitor.linkStatus,
			},
			{name: "TotalBytesSent", kind: ui4},
			{name: "TotalBytesReceived", kind: ui4},
			{name: "TotalPacketsSent", kind: ui4},
			{name: "TotalPacketsReceived", kind: ui4},
		},
		actions: []action{
			{
				name: "GetCommonLinkProperties",
				out: []argument{
					{name: "NewWANAccessType", variable: "WANAccessType"},
					{name: "NewLayer1UpstreamMaxBitRate", variable: "Layer1UpstreamMaxBitRate"},
					{name: "NewLayer1DownstreamMaxBitRate", variable: "Layer1DownstreamMaxBitRate"},
					{name: "NewPhysicalLinkStatus", variable: "PhysicalLinkStatus"},
				},
				do: getCommonLinkProperties,
			},
			total("TotalBytesSent", func(s WANStatus) uint64 { return s.BytesSent }),
			total("TotalBytesReceived", func(s WANStatus) uint64 { return s.BytesReceived }),
			total("TotalPacketsSent", func(s WANStatus) uint64 { return s.PacketsSent }),
			total("TotalPacketsReceived", func(s WANStatus) uint64 { return s.PacketsReceived }),
		},
	}
}

const (
	linkUp   = "Up"
	linkDown = "Down"
)

// total is one counter and its action. The counters are ui4 and start again at 0 after
// 2^32-1.
func total(name string, read func(WANStatus) uint64) action {
	return action{
		name: "Get" + name,
		out:  []argument{{name: "New" + name, variable: name}},
		do: func(c *call) ([]string, error) {
			return []string{strconv.FormatUint(read(c.device.wan.Status())&0xffffffff, 10)}, nil
		},
	}
}

func getCommonLinkProperties(c *call) ([]string, error) {
	s := c.device.wan.Status()
	return []string{"Ethernet", bitRate(s.RateUp), bitRate(s.RateDown), c.linkStatus()}, nil
}

// fallbackRate is reported where the rate of the link is not known: some clients
// divide by it, or take 0 for a dead line.
const fallbackRate = 1_000_000_000

// bitRate writes bits a second as ui4, the largest value standing for all above.
func bitRate(r uint64) string {
	if r == 0 {
		r = fallbackRate
	}
	return strconv.FormatUint(min(r, 1<<32-1), 10)
}
