package portmap

import (
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"strings"
)

// MAC is a link-layer address; the zero value means that the link has none
// (a point-to-point link) or that it is not known.
type MAC [6]byte

// String returns the usual colon form, or "" for the zero value.
func (m MAC) String() string {
	if m == (MAC{}) {
		return ""
	}
	var b strings.Builder
	for i, o := range m {
		if i > 0 {
			b.WriteByte(':')
		}
		b.WriteString(hex.EncodeToString([]byte{o}))
	}
	return b.String()
}

// ParseMAC reads six octets as two digits each with colons or hyphens between them, or as
// switches write them, "aabb.ccdd.eeff"; either case.
func ParseMAC(s string) (MAC, error) {
	var m MAC
	sep, parts, each := ":", len(m), 1
	switch {
	case strings.Contains(s, "."):
		sep, parts, each = ".", len(m)/2, 2
	case strings.Contains(s, "-"):
		sep = "-"
	}
	words := strings.Split(s, sep)
	if len(words) != parts {
		return MAC{}, fmt.Errorf("not a MAC address: %q", s)
	}
	for i, w := range words {
		o, err := hex.DecodeString(w)
		if err != nil || len(o) != each {
			return MAC{}, fmt.Errorf("not a MAC address: %q", s)
		}
		copy(m[i*each:], o)
	}
	return m, nil
}

// Via is the protocol, or the hand, by which a request came.
type Via uint8

// The ways a request can come in.
const (
	ViaUPnP Via = iota + 1
	ViaNATPMP
	ViaPCP
	ViaOwner // the control socket

	viaCount = iota + 1 // keep last: of an array that a Via indexes
)

// String returns the word the configuration and the JSON use.
func (v Via) String() string {
	switch v {
	case ViaUPnP:
		return "upnp"
	case ViaNATPMP:
		return "natpmp"
	case ViaPCP:
		return "pcp"
	case ViaOwner:
		return "owner"
	}
	return fmt.Sprintf("via(%d)", uint8(v))
}

// endlessVia is the protocol that can ask for no end of a lease.
const endlessVia = ViaUPnP

// Vias is a set of protocols.
type Vias uint8

// Has reports whether v is in the set.
func (s Vias) Has(v Via) bool { return s&(1<<v) != 0 }

// With returns the set with v in it.
func (s Vias) With(v Via) Vias { return s | 1<<v }

// Without returns the set without v.
func (s Vias) Without(v Via) Vias { return s &^ (1 << v) }

// allVias is the set of every one.
const allVias = Vias(1<<viaCount - 1<<ViaUPnP)

// paired reports whether one of them keeps both transports of an external port for one client
// (RFC 6886 section 3.3).
func (s Vias) paired() bool { return s.Has(ViaNATPMP) }

// String returns the words of the protocols.
func (s Vias) String() string {
	var words []string
	for v := range s.All() {
		words = append(words, v.String())
	}
	return strings.Join(words, " and ")
}

// All walks the set.
func (s Vias) All() iter.Seq[Via] {
	return func(yield func(Via) bool) {
		for v := ViaUPnP; v < viaCount; v++ {
			if s.Has(v) && !yield(v) {
				return
			}
		}
	}
}

// ErrUnknownHost means that it is not known yet which machine has a client's address.
// Nothing is answered until it is: what is sent to a host that is not there stays in the
// send buffer for seconds, and who forges a hundred sources would silence us for everybody.
var ErrUnknownHost = errors.New("the host's link-layer address is not known yet")

// Client is who asks. Every field comes from the socket and the neighbour
// table, never from what the client wrote; but for the name, which it has told a
// DHCP server.
type Client struct {
	Addr      netip.Addr // unmapped, without zone
	Interface string     // the LAN interface the request came in by
	Name      string     // a host name for people, or ""; never decides anything but a "host:" rule
	MAC       MAC
	Via       Via

	// Unheard means that the client has a MAC and has never answered a question of the
	// gateway's for its address, so that it may be made up.
	Unheard bool
}

// Owner returns the client of a mapping that the gateway's owner makes by hand, for the
// host that it leads to. The owner is no host, and on no interface.
func Owner(host netip.Addr) Client { return Client{Addr: host, Via: ViaOwner} }

// Owner reports whether it is the owner who asks, by hand.
func (c Client) Owner() bool { return c.Via == ViaOwner && c.Interface == "" }

// ClientID is what must be equal for two requests to be from the same client: address and
// MAC and arrival interface. It is comparable.
type ClientID struct {
	Interface string
	Addr      netip.Addr
	MAC       MAC
	Owner     bool // it is nobody's but the owner's own, with the address of the host alone
}

// ID returns the client's identity.
func (c Client) ID() ClientID {
	if c.Owner() {
		return ClientID{Addr: c.Addr, Owner: true}
	}
	return ClientID{Interface: c.Interface, Addr: c.Addr, MAC: c.MAC}
}

// client returns one with this identity.
func (id ClientID) client() Client {
	if id.Owner {
		return Owner(id.Addr)
	}
	return Client{Interface: id.Interface, Addr: id.Addr, MAC: id.MAC}
}

// Device is the unit that quotas count by: the MAC where the link has one, so
// that many addresses of one machine share one quota (abuse case K2), else the
// address.
type Device struct {
	Interface string
	MAC       MAC
	Addr      netip.Addr // only where the MAC is zero
}

// Device returns the unit of quota that the client belongs to.
func (id ClientID) Device() Device {
	if id.MAC != (MAC{}) {
		return Device{Interface: id.Interface, MAC: id.MAC}
	}
	return Device{Interface: id.Interface, Addr: id.Addr}
}
