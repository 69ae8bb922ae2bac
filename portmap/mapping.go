package portmap

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Kind is what is opened: a translated IPv4 port or an IPv6 pinhole.
type Kind uint8

// The kinds.
const (
	NAT4 Kind = iota
	Pinhole6
)

// Transport is the IP protocol number of a mapping; TCP and UDP, nothing else.
type Transport uint8

// The transports.
const (
	TCP Transport = 6
	UDP Transport = 17
)

// String returns the word the configuration and the JSON use.
func (t Transport) String() string {
	switch t {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	}
	return "protocol " + strconv.Itoa(int(t))
}

// Valid reports whether t is one of the two transports.
func (t Transport) Valid() bool { return t == TCP || t == UDP }

// Remote limits who may use a mapping: a source prefix and a source port.
type Remote struct {
	Prefix netip.Prefix // valid, masked
	Port   uint16       // 0: any
}

// String returns "198.51.100.7", "198.51.100.7:53", "198.51.100.0/24" or
// "198.51.100.0/24 port 53".
func (r Remote) String() string {
	switch {
	case r.Port == 0:
		return network(r.Prefix)
	case r.Prefix.IsSingleIP():
		return netip.AddrPortFrom(r.Prefix.Addr(), r.Port).String()
	}
	return network(r.Prefix) + " port " + strconv.Itoa(int(r.Port))
}

// network returns the text of a network, of one host only its address.
func network(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// RemotesString returns the texts of remotes with commas between them, "" where there is
// none.
func RemotesString(remotes []Remote) string {
	var words []string
	for _, r := range remotes {
		words = append(words, r.String())
	}
	return strings.Join(words, ",")
}

// MaxDescription is how many bytes of a description are kept.
const MaxDescription = 256

// MaxRemotes is how many restrictions one mapping may have (RFC 6887 section
// 13.3 leaves the number to the server).
const MaxRemotes = 8

// Request is one wish for a mapping, already decoded and bounded, from any
// protocol. Adding, renewing and changing are the same wish: the state that
// should hold afterwards.
type Request struct {
	Client       Client
	Kind         Kind
	Transport    Transport
	Internal     netip.AddrPort // the address must be the client's own; the owner's client has that of the host
	ExternalPort uint16         // 0: any; a pinhole has none
	Remotes      []Remote       // empty: anyone
	Lifetime     time.Duration  // 0: as long as is allowed; the owner's is without an end
	Exact        bool           // this external port or nothing
	Disabled     bool           // kept and listed, but closed (UPnP's NewEnabled 0)
	Description  string         // untrusted text, capped at MaxDescription

	// What the client's protocol means by it. The zero values are WANIPConnection's, but
	// for ZeroIsEndless.
	Named           Naming
	RemotesAre      RemotesMode
	ZeroIsEndless   bool   // a Lifetime of 0 is without an end, as long as the device is there
	Floored         bool   // the lease is EngineConfig.LeaseMin at least (RFC 6887 section 15)
	Nonce           *Nonce // proves who made the mapping (RFC 6887 section 11.3); nil: there is none
	KeepDescription bool   // the request says nothing of a description (RFC 7220 section 3)
	Parity          bool   // of a set: the external ports start as even or odd as the internal ones (RFC 7753 section 3)
}

// Naming is how a request names the mapping that it would renew or change.
type Naming uint8

// The ways to name one.
const (
	ByExternal Naming = iota // port and restrictions (WANIPConnection:2 section 2.3), or a pinhole's endpoint
	ByInternal               // the client's own port (RFC 6886 section 3.3, RFC 6887 section 11.3)
)

// RemotesMode is what a request's Remotes are to those of a mapping that is there.
type RemotesMode uint8

// The modes. But for the first they are for ByInternal.
const (
	RemotesName    RemotesMode = iota // a part of what names it
	RemotesUnsaid                     // the protocol has none: a restricted mapping is not meant
	RemotesAdd                        // further ones
	RemotesReplace                    // instead of them (RFC 6887 section 13.3)
)

// Nonce is PCP's mapping nonce (RFC 6887 section 11.1). It is a secret between
// the client and the daemon and is never shown to anybody.
type Nonce [12]byte

// String hides the nonce from logs.
func (Nonce) String() string { return "(nonce)" }

// A mapping's ID is a count, and above it the number of the gateway that made the
// mapping: 0 for one that is alone. So gateways that share a table never give the
// same ID twice. JSON readers keep integers of 53 bits.
const (
	MaxID    = 1<<53 - 1
	maxCount = 1<<48 - 1 // at 1,000 grants a second, 8,900 years
)

// countOf returns what an ID says of this gateway's count: 0 when another gave it.
func countOf(id uint64) uint64 {
	if id > maxCount {
		return 0
	}
	return id
}

// Mapping is one granted hole. Its fields are in an order that leaves little room between
// them, because there may be tens of thousands.
type Mapping struct {
	ID       uint64 // 1 to MaxID; unique for the life of the table, never reused
	Client   Client // who asked for it first; Via is by which protocol
	Internal netip.AddrPort
	Remotes  []Remote
	WAN      string // the interface that it was last granted on
	Rule     string // the name of the owner's rule that allowed it, or ""

	Description string

	Created time.Time // carries a monotonic reading, as do the others
	Expires time.Time // zero: never (only the owner can make such a one)

	// Suspended is since when another device has the address of the mapping's host,
	// so that it is closed and kept; zero: none has.
	Suspended time.Time

	// Leases has the protocols of Claims whose lease ends before the mapping does.
	Leases Leases

	Nonce        Nonce // of the last PCP request
	Kind         Kind
	Transport    Transport
	Claims       Vias // the protocols in which its client asked for it and whose lease is not over
	Disabled     bool
	ExternalPort uint16 // of a pinhole the internal one
	Number       uint16 // of a pinhole: random and its own, what UPnP calls UniqueID

	// Endless means that UPnP asked for no end. Its lease is EngineConfig.LeaseMax
	// from when its device was last seen (Engine.Seen).
	Endless bool
}

// Open reports whether the kernel lets packets through.
func (m *Mapping) Open() bool { return !m.Disabled && m.Suspended.IsZero() }

// Left returns the time until the mapping ends, 0 when it is over, and -1 when it
// never ends.
func (m *Mapping) Left(now time.Time) time.Duration {
	if m.Expires.IsZero() {
		return -1
	}
	return max(0, m.Expires.Sub(now))
}

// String is for logs and test output: "udp 5000 -> 192.168.1.20:5000", of a
// pinhole "udp [2001:db8::20]:5000".
func (m *Mapping) String() string {
	var b strings.Builder
	if m.Kind == Pinhole6 {
		fmt.Fprintf(&b, "%s %s", m.Transport, m.Internal)
	} else {
		fmt.Fprintf(&b, "%s %d -> %s", m.Transport, m.ExternalPort, m.Internal)
	}
	for _, r := range m.Remotes {
		fmt.Fprintf(&b, " from %s", r)
	}
	if m.Disabled {
		b.WriteString(" (disabled)")
	}
	if !m.Suspended.IsZero() {
		b.WriteString(" (suspended)")
	}
	return b.String()
}
