package igd

import (
	"context"
	"math"
	"net/netip"
	"strconv"
	"time"

	"portcullis/portmap"
	"portcullis/soap"
)

// WANStatus is what the gateway reports about its connection to the Internet.
type WANStatus struct {
	External        netip.Addr // IPv4; zero while unknown, and where it cannot be reached and the owner did not allow that
	Up              bool       // the connection is there: link and address
	Since           time.Time  // when it came up; carries a monotonic reading
	LinkUp          bool       // the interface has carrier
	RateUp          uint64     // of the link, bits a second; 0: not known
	RateDown        uint64
	BytesSent       uint64 // counters of the WAN interface
	BytesReceived   uint64
	PacketsSent     uint64
	PacketsReceived uint64
}

// visitor is a client, and the state of the gateway as it may see it: nobody sees the
// mappings of another (abuse cases C5 and K7).
type visitor struct {
	device *Device
	client portmap.Client
	igd    int // the version of the gateway that the client was shown

	// What counts tells.
	own      int    // how many IPv4 mappings the client has
	revision uint64 // of the table
}

// counts returns the visitor with the variables that count mappings as they are now.
func (v visitor) counts(ctx context.Context) (visitor, error) {
	p, err := v.device.mapper.Own(ctx, v.client.ID(), 0, 0)
	v.own, v.revision = p.Count, p.Revision
	if !v.client.Addr.Is4() { // what an IPv6 address owns are pinholes
		v.own = 0
	}
	return v, err
}

func (v visitor) connectionStatus() string {
	if v.device.wan.Status().Up {
		return connected
	}
	return disconnected
}

// externalAddress is empty while there is none: WANIPConnection:2 section
// 2.3.10 wants that, and "0.0.0.0" would pass for an address (abuse case K10).
func (v visitor) externalAddress() string {
	if a := v.device.wan.Status().External; a.Is4() && !a.IsUnspecified() {
		return a.String()
	}
	return ""
}

// inboundAllowed reports whether a pinhole can be opened at present.
func (v visitor) inboundAllowed() string {
	return soap.FormatBoolean(v.device.allowed())
}

func (v visitor) linkStatus() string {
	if v.device.wan.Status().LinkUp {
		return linkUp
	}
	return linkDown
}

func (v visitor) entries() string {
	return strconv.Itoa(min(v.own, math.MaxUint16))
}

// systemUpdateID counts the changes of the whole table, modulo 2^32.
func (v visitor) systemUpdateID() string {
	return strconv.FormatUint(v.revision&math.MaxUint32, 10)
}

// defaultConnection names the one connection in the terms of the description that the
// client was shown: the UDN and the type of its device, a comma, the service's id.
func (v visitor) defaultConnection() string {
	return v.device.udns[2] + ":WANConnectionDevice:" + digit(v.igd) + "," + serviceIDPrefix + "WANIPConn1"
}
