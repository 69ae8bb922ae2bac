package config

import (
	"net/netip"
	"time"

	"portcullis/firewall"
	"portcullis/policy"
	"portcullis/portmap"
)

// Config is the whole configuration, checked as far as that is possible
// without looking at the system. It is a value; nobody changes it after Parse.
//
// Each field with a tag in one of the structs below is a key of the file, and
// there is no other list of them: bind.go reads by these fields, effective.go
// writes by them. What a key takes is in its type (text.go), for a number in
// its range; what only several keys show is in check.go. A key that a running
// daemon takes over has the tag live; any other needs a restart (Adopt).
type Config struct {
	LAN       LAN           `toml:"lan"`
	WAN       WAN           `toml:"wan"`
	UPnP      UPnP          `toml:"upnp"`
	PCP       PCP           `toml:"pcp"`
	Lease     Lease         `toml:"lease"`
	Limits    Limits        `toml:"limits"`
	Policy    Policy        `toml:"policy"`
	Rules     []policy.Rule `toml:"rule" live:"yes"` // in the order of the file; the first match wins; nil: none
	Firewall  Firewall      `toml:"firewall"`
	State     State         `toml:"state"`
	Control   Control       `toml:"control"`
	Metrics   Metrics       `toml:"metrics"`
	Miniupnpd Miniupnpd     `toml:"miniupnpd"`
	Sandbox   Sandbox       `toml:"sandbox"`
	Hook      Hook          `toml:"hook"`
	Log       Log           `toml:"log"`
}

// LAN configures the inside of the network.
type LAN struct {
	Interfaces    []Interface `toml:"interfaces" live:"yes"`     // nil: detect
	ExtraPrefixes []Network   `toml:"extra_prefixes" live:"yes"` // routed LAN prefixes; none contains WAN.ExternalIP; nil: none
	Leases        []LeaseFile `toml:"leases"`                    // of DHCP servers; nil: the usual places
	IPv6          bool        `toml:"ipv6" live:"yes"`           // is served: requests by it, and pinholes
}

// WAN configures the way to the Internet.
type WAN struct {
	Interface      Interface      `toml:"interface" live:"yes"`       // "": the one with the IPv4 default route
	Interface6     Interface      `toml:"interface6" live:"yes"`      // "": the one with the IPv6 default route
	ExternalIP     PublicIP       `toml:"external_ip" live:"yes"`     // reported to clients instead of the interface's address; zero: not set
	PrivateAddress PrivateAddress `toml:"private_address" live:"yes"` // what to do when the WAN address itself is private, CGNAT or link-local
}

// UPnP is the Internet Gateway Device.
type UPnP struct {
	Enabled  bool   `toml:"enabled"`
	HTTPPort uint16 `toml:"http_port" range:"1-65535"` // never 1900 or 5351
	Events   bool   `toml:"events"`

	// What the description says of the gateway. All texts but the first may be empty.
	FriendlyName     Label     `toml:"friendly_name"`
	Manufacturer     Label     `toml:"manufacturer"`
	ManufacturerURL  URL       `toml:"manufacturer_url"`
	ModelName        Label     `toml:"model_name"`
	ModelNumber      Label     `toml:"model_number"`
	ModelDescription LongLabel `toml:"model_description"`
	ModelURL         URL       `toml:"model_url"`
	SerialNumber     Label     `toml:"serial_number"`
	PresentationURL  URL       `toml:"presentation_url"`
	UUID             UUID      `toml:"uuid"` // "": made once, and kept in State.Dir

	UploadKbps   int `toml:"upload_kbps" range:"0-100000000"` // told as the rate of the WAN; 0: what the interface says
	DownloadKbps int `toml:"download_kbps" range:"0-100000000"`

	NotifyInterval time.Duration `toml:"notify_interval"` // the longest between two announcements, which hold for twice as long; 1 m to 12 h

	IGDv1        bool   `toml:"igdv1"`         // every client is shown the description of version 1
	IGDv1Clients []Host `toml:"igdv1_clients"` // these are; nil: none
}

// PCP is port 5351.
type PCP struct {
	NATPMP bool  `toml:"natpmp"`
	PCP    bool  `toml:"pcp"`
	Nonce  Nonce `toml:"nonce"`
}

// Lease bounds how long a mapping lives; both are whole seconds from 1 s to
// 2^32-1 s, and Min is never above Max.
type Lease struct {
	Max time.Duration `toml:"max" live:"yes"` // a request for 0, or for more, gets this
	Min time.Duration `toml:"min" live:"yes"` // the floor for PCP alone (RFC 6887 section 15)
}

// Limits bounds what one client, or all together, can take. The kernel's maps
// have room for 131072 elements: twice the most mappings that are allowed here,
// because an element lives 60 s longer there than its mapping here.
type Limits struct {
	MappingsPerClient int `toml:"mappings_per_client" range:"1-65535" live:"yes"`
	MappingsPerLAN    int `toml:"mappings_per_lan" range:"0-65535" live:"yes"` // 0: policy.Config says
	Mappings          int `toml:"mappings" range:"1-65535" live:"yes"`
	GrantsPerSecond   int `toml:"grants_per_second" range:"0-1000" live:"yes"` // new grants a client, after a burst of 16; 0: no limit
	RequestsPerSecond int `toml:"requests_per_second" range:"0-100000"`        // datagrams and HTTP requests a client; 0: no limit
}

// Policy is what holds where no rule matches.
type Policy struct {
	Default     portmap.Action `toml:"default" live:"yes"`
	SameDevice  bool           `toml:"same_device"`             // a device may open pinholes to its other addresses, as its MAC shows
	UniqueLocal bool           `toml:"unique_local" live:"yes"` // pinholes may be for unique local addresses
}

// Firewall configures the kernel's firewall.
type Firewall struct {
	Backend      Backend        `toml:"backend"`
	AcceptChain  firewall.Chain `toml:"accept_chain"`  // of family inet or ip; gets one jump to our forward chain; zero: none
	AcceptChain6 firewall.Chain `toml:"accept_chain6"` // of family inet or ip6; the same for pinholes; zero: AcceptChain
	Mark         Mark           `toml:"mark"`          // by which a rule of iptables knows what may pass
	KeepOnStop   bool           `toml:"keep_on_stop"`
}

// State configures where leases are kept.
type State struct {
	Dir Path `toml:"dir"`
}

// Control is the unix socket of the subcommands.
type Control struct {
	Socket Socket `toml:"socket"`
	Group  Group  `toml:"group"` // its members may use the socket beside root; "": root only
}

// Metrics configures where numbers are read, as Prometheus does.
type Metrics struct {
	Listen   Loopback `toml:"listen"`              // zero: by the control socket alone
	Mappings bool     `toml:"mappings" live:"yes"` // a line for each mapping's packets, and one for its octets
}

// Miniupnpd configures what is shown to programs that were made for miniupnpd.
type Miniupnpd struct {
	LeaseFile  Path           `toml:"lease_file"`  // of IPv4; "": none
	LeaseFile6 Path           `toml:"lease_file6"` // of IPv6; "": none
	Chain      firewall.Chain `toml:"chain"`       // of family inet or ip; gets rules that no packet reaches; zero: none
}

// Sandbox configures what the daemon takes from itself before it reads the first packet.
type Sandbox struct {
	Mode SandboxMode `toml:"mode"`
}

// Hook is a program that is told of events.
type Hook struct {
	Command []string    `toml:"command" repeat:"yes"` // an absolute path, and arguments; nil: none
	Events  []HookEvent `toml:"events"`               // nil: those that wait for the owner
}

// Log configures what is logged, and how.
type Log struct {
	Level  Level  `toml:"level"`
	Format Format `toml:"format"`
}

// Default returns the configuration that holds without a file, and the value of
// every key that a file leaves out.
func Default() Config {
	return Config{
		LAN:      LAN{IPv6: true},
		WAN:      WAN{PrivateAddress: RefusePrivate},
		UPnP:     UPnP{Enabled: true, HTTPPort: 5000, Events: true, FriendlyName: "Portcullis", NotifyInterval: 15 * time.Minute},
		PCP:      PCP{NATPMP: true, PCP: true, Nonce: NonceSameClient},
		Lease:    Lease{Max: 168 * time.Hour, Min: 2 * time.Minute},
		Limits:   Limits{MappingsPerClient: 32, Mappings: 1024, GrantsPerSecond: 1, RequestsPerSecond: 50},
		Policy:   Policy{Default: portmap.Allow},
		Firewall: Firewall{Backend: BackendAuto, Mark: 0x40000000},
		State:    State{Dir: "/var/lib/portcullis"},
		Control:  Control{Socket: "/run/portcullis/control.sock"},
		Sandbox:  Sandbox{Mode: SandboxSplit},
		Log:      Log{Level: LevelInfo, Format: FormatText},
	}
}

// Prefixes returns ExtraPrefixes as they are.
func (l LAN) Prefixes() []netip.Prefix {
	var all []netip.Prefix
	for _, n := range l.ExtraPrefixes {
		all = append(all, n.Prefix)
	}
	return all
}
