package config

import (
	"log/slog"
	"net/netip"
	"regexp"
	"time"

	"portcullis/portmap"
)

// DefaultPath is where the file is looked for when none is named. Without a
// file there the defaults hold.
const DefaultPath = "/etc/portcullis/portcullis.toml"

// Config is the whole configuration, checked as far as that is possible
// without looking at the system. It is a value; nobody changes it after Parse.
type Config struct {
	LAN      LAN
	WAN      WAN
	UPnP     UPnP
	PCP      PCP
	Lease    Lease
	Limits   Limits
	Policy   Policy
	Rules    []Rule // in the order of the file; the first match wins; nil: none
	Firewall Firewall
	State    State
	Control  Control
	Metrics  Metrics
	Log      Log
}

// LAN says who is served.
type LAN struct {
	Interfaces    []string       // nil: detect
	ExtraPrefixes []netip.Prefix // routed LAN prefixes; masked, none contains WAN.ExternalIP; nil: none
	Leases        []string       // lease files of DHCP servers: absolute clean paths, with or without "format:" before them; nil: the usual places
}

// WAN says where the Internet is.
type WAN struct {
	Interface           string     // "": the one with the IPv4 default route
	Interface6          string     // "": the one with the IPv6 default route
	ExternalIP          netip.Addr // public IPv4, told to clients instead of the interface's address; zero: not set
	AllowPrivateAddress bool       // serve although the WAN address itself is private, CGNAT or link-local
}

// UPnP is the Internet Gateway Device.
type UPnP struct {
	Enabled      bool
	HTTPPort     uint16 // never 0, 1900 or 5351
	Events       bool
	FriendlyName string // 1 to 63 printable characters
}

// PCP is port 5351.
type PCP struct {
	NATPMP      bool
	PCP         bool
	StrictNonce bool // only the nonce that made a mapping may renew it (RFC 6887 section 11.3)
}

// Lease bounds how long a mapping lives; both are whole seconds from 1 s to
// 2^32-1 s, and Min is never above Max.
type Lease struct {
	Max time.Duration // a request for 0, or for more, gets this
	Min time.Duration // the floor for PCP alone (RFC 6887 section 15)
}

// Limits bounds what one client, or all together, can take.
type Limits struct {
	MappingsPerClient int // 1 to 65535
	Mappings          int // 1 to 65535
	GrantsPerSecond   int // new grants a client, after a burst of 16; 0: no limit
	RequestsPerSecond int // datagrams and HTTP requests a client; 0: no limit
}

// Policy is what holds where no rule matches.
type Policy struct {
	Default     portmap.Action
	SameDevice  bool // a device may open pinholes to its other addresses, as its MAC shows
	UniqueLocal bool // pinholes may be for unique local addresses
}

// Firewall says how the kernel is told.
type Firewall struct {
	Backend      Backend
	AcceptChain  Chain  // gets one jump to our forward chain; zero: none
	AcceptChain6 Chain  // the same for pinholes; zero: AcceptChain
	Mark         uint32 // by which a rule of iptables knows what may pass; never 0
	KeepOnStop   bool
}

// Backend is a kind of firewall.
type Backend string

// The backends.
const (
	BackendAuto     Backend = "auto"
	BackendNFTables Backend = "nftables"
	BackendIPTables Backend = "iptables"
)

// Chain names a chain of somebody else's nftables table. Family is "inet",
// "ip" or "ip6".
type Chain struct {
	Family, Table, Name string
}

// String gives the three words of the file, or "" for the zero value.
func (c Chain) String() string {
	if c == (Chain{}) {
		return ""
	}
	return c.Family + " " + c.Table + " " + c.Name
}

// State says where leases are kept.
type State struct {
	Dir string // absolute and clean
}

// Control is the unix socket of the subcommands.
type Control struct {
	Socket string // absolute and clean, at most 107 bytes (sun_path)
	Group  string // its members may use the socket beside root; "": root only
}

// Metrics is the Prometheus listener.
type Metrics struct {
	Listen netip.AddrPort // zero: off; always off in this version
}

// Log says what is logged and how.
type Log struct {
	Level slog.Level
	JSON  bool
}

// Rule is one of the owner's rules. A condition that is nil, or zero, holds
// for every request; a list holds when one of its elements does.
type Rule struct {
	Name          string // unique, 1 to 64 printable characters
	Action        portmap.Action
	Clients       []ClientMatch
	ExternalPorts []portmap.PortRange // 1 to 65535
	InternalPorts []portmap.PortRange
	Protocols     []portmap.Transport
	Via           []portmap.Via  // never ViaOwner
	Description   *regexp.Regexp // searched in the client's own text, which is no proof of anything
	MaxLifetime   time.Duration  // whole seconds; 0: no limit of its own
	MaxMappings   int            // of one client, by this rule; 0: no limit of its own
}

// ClientKind says what a ClientMatch compares.
type ClientKind uint8

// The kinds of client conditions.
const (
	ByMAC ClientKind = iota + 1
	ByPrefix
	ByHost
	ByInterface
)

// ClientMatch is one element of a rule's clients; Kind says which one of the
// other fields holds.
type ClientMatch struct {
	Kind      ClientKind
	MAC       portmap.MAC
	Prefix    netip.Prefix // masked; a single address is a /32 or /128
	Host      string       // lower case; * is any run of characters, ? any one: path.Match reads it
	Interface string
}

// String gives the form of the file.
func (m ClientMatch) String() string {
	switch m.Kind {
	case ByMAC:
		return m.MAC.String()
	case ByPrefix:
		return m.Prefix.String()
	case ByHost:
		return hostTag + m.Host
	case ByInterface:
		return interfaceTag + m.Interface
	}
	return ""
}

// Default gives the configuration that holds without a file, and the value of
// every key that a file leaves out.
func Default() Config {
	return Config{
		UPnP:     UPnP{Enabled: true, HTTPPort: 5000, Events: true, FriendlyName: "Portcullis"},
		PCP:      PCP{NATPMP: true, PCP: true},
		Lease:    Lease{Max: 168 * time.Hour, Min: 2 * time.Minute},
		Limits:   Limits{MappingsPerClient: 32, Mappings: 1024, GrantsPerSecond: 1, RequestsPerSecond: 50},
		Policy:   Policy{Default: portmap.Allow},
		Firewall: Firewall{Backend: BackendAuto, Mark: 0x40000000},
		State:    State{Dir: "/var/lib/portcullis"},
		Control:  Control{Socket: "/run/portcullis/control.sock"},
		Log:      Log{Level: slog.LevelInfo},
	}
}
