package control

import (
	"time"

	"portcullis/portmap"
)

// Status is the answer to GET /v1/status.
type Status struct {
	Version  string `json:"version"`
	Uptime   int64  `json:"uptime"` // seconds
	WAN      WAN    `json:"wan"`
	LAN      []LAN  `json:"lan"`
	Mappings int    `json:"mappings"`       // of IPv4
	Pinholes int    `json:"pinholes"`       // of IPv6
	Limit    int    `json:"mappings_limit"` // how many there may be of both
	Denied   uint64 `json:"denied"`         // requests refused since the start
	Pending  int    `json:"pending"`        // requests that wait for the owner
	// LastRefused is the last of these; nil: there was none.
	LastRefused *Event   `json:"last_refused"`
	Firewall    Firewall `json:"firewall"`
	Sandbox     Sandbox  `json:"sandbox"`
	// Configuration is what the daemon runs.
	Configuration Configuration `json:"configuration"`
	Hook          *Hook         `json:"hook,omitempty"` // nil: none is configured
}

// Hook is the program that is told of events.
type Hook struct {
	Command []string `json:"command"`
	PID     int      `json:"pid"`      // 0: it does not run now
	Over    bool     `json:"over"`     // it is not started again before the daemon is
	Ended   int      `json:"ended"`    // how often it has ended
	LastEnd string   `json:"last_end"` // how it did last, or why it is not started
	Missed  uint64   `json:"missed"`   // events that it was not told, because it was slow, or they too many
}

// Effective is the answer to GET /v1/configuration.
type Effective struct {
	TOML string `json:"toml"` // every key with the value that holds now
}

// Configuration is where the daemon's configuration came from.
type Configuration struct {
	File    string   `json:"file"`    // "": none, the defaults
	SHA256  string   `json:"sha256"`  // of its octets, as they were read; "" without a file
	Since   string   `json:"since"`   // when it was read; RFC 3339
	Restart []string `json:"restart"` // keys of that file that hold only after a restart
}

// Reloaded is the answer to POST /v1/reload.
type Reloaded struct {
	File    string    `json:"file"`    // as in Configuration
	Changed []string  `json:"changed"` // keys that hold now; "rule" stands for all rules
	Restart []string  `json:"restart"` // keys that hold only after a restart
	Revoked []Revoked `json:"revoked"` // mappings that are not allowed any more
}

// Revoked is a mapping that was ended, and why.
type Revoked struct {
	Mapping
	Reason string `json:"reason"` // portmap.Reason's word
	Why    string `json:"why"`    // a sentence
}

// NewRevoked returns the JSON form of mappings that were ended.
func NewRevoked(dropped []portmap.Dropped) []Revoked {
	all, now := make([]Revoked, len(dropped)), time.Now()
	for i, d := range dropped {
		all[i] = Revoked{NewMapping(d.Mapping, nil, now), portmap.ReasonOf(d.Err).String(), d.Err.Error()}
	}
	return all
}

// WAN is the outside as the daemon sees it.
type WAN struct {
	Interface  string `json:"interface"`
	ExternalIP string `json:"external_ip"` // "" while unknown
	Private    bool   `json:"private"`     // not reachable from the Internet
	Up         bool   `json:"up"`
}

// LAN is one served interface.
type LAN struct {
	Interface string   `json:"interface"`
	Prefixes  []string `json:"prefixes"`
}

// Firewall is what programs the kernel.
type Firewall struct {
	Backend       string `json:"backend"`
	DriftRepaired uint64 `json:"drift_repaired"` // how often somebody else's change was put right
	// Senders is how it is seen which machine sent a datagram: "mark" or "packet
	// socket"; "" where it is not, and then NAT-PMP and PCP are not served.
	Senders string `json:"senders"`
	// Askers means that the kernel remembers which machines have sent requests lately, and
	// that no other gets a mapping.
	Askers bool `json:"askers"`
}

// Sandbox is what the daemon's process has left, as the kernel says.
type Sandbox struct {
	Mode         string   `json:"mode"` // of the configuration, as far as this machine can do it
	User         uint32   `json:"user"`
	Capabilities []string `json:"capabilities"` // that are effective
	NoNewPrivs   bool     `json:"no_new_privs"`
	Seccomp      bool     `json:"seccomp"`  // a filter is on every thread
	Landlock     int      `json:"landlock"` // the version of its interface that is in force; 0: none
	Dumpable     bool     `json:"dumpable"` // others of the same user may look into the process
	Missing      []string `json:"missing"`  // why something is not in force that should be
	Front        *Front   `json:"front"`    // nil: it is no process of its own
}

// Front is the process that parses what the network sends.
type Front struct {
	PID          int      `json:"pid"` // 0: there is none now
	User         uint32   `json:"user"`
	Capabilities []string `json:"capabilities"` // that are effective
	NoNewPrivs   bool     `json:"no_new_privs"`
	Seccomp      bool     `json:"seccomp"`
	Unknown      string   `json:"unknown"`  // why nothing is known of the above
	Ended        int      `json:"ended"`    // how many have ended that should not have
	LastEnd      string   `json:"last_end"` // why the last of them did
}

// Mapping is one line of `portcullis list`.
type Mapping struct {
	ID           uint64 `json:"id"`
	Protocol     string `json:"protocol"` // tcp or udp
	Family       int    `json:"family"`   // 4 or 6
	ExternalPort uint16 `json:"external_port"`
	InternalIP   string `json:"internal_ip"`
	InternalPort uint16 `json:"internal_port"`
	Remote       string `json:"remote"` // "" means anyone
	ClientMAC    string `json:"client_mac"`
	ClientHost   string `json:"client_host"`
	Via          string `json:"via"`
	Description  string `json:"description"`
	Rule         string `json:"rule"`
	WAN          string `json:"wan"` // the interface that it was granted on
	Enabled      bool   `json:"enabled"`
	Created      string `json:"created"`    // RFC 3339
	ExpiresIn    int64  `json:"expires_in"` // seconds; 0: never
	Endless      bool   `json:"endless"`    // goes on by itself while its device is seen; ExpiresIn is from when it was seen last
	Suspended    bool   `json:"suspended"`  // closed, because another device has its host's address
	Packets      uint64 `json:"packets"`
	Bytes        uint64 `json:"bytes"`
	Uncounted    bool   `json:"uncounted,omitempty"` // packets and bytes are not known, and 0
}

// Traffic is what went through a mapping.
type Traffic struct{ Packets, Bytes uint64 }

// NewMapping returns the JSON form of a mapping; t is nil where it is not known.
func NewMapping(m portmap.Mapping, t *Traffic, now time.Time) Mapping {
	uncounted := t == nil
	if uncounted {
		t = new(Traffic)
	}
	return Mapping{
		ID:           m.ID,
		Protocol:     m.Transport.String(),
		Family:       family(m.Kind),
		ExternalPort: m.ExternalPort,
		InternalIP:   m.Internal.Addr().String(),
		InternalPort: m.Internal.Port(),
		Remote:       portmap.RemotesString(m.Remotes),
		ClientMAC:    m.Client.MAC.String(),
		ClientHost:   m.Client.Name,
		Via:          m.Client.Via.String(),
		Description:  m.Description,
		Rule:         m.Rule,
		WAN:          m.WAN,
		Enabled:      !m.Disabled,
		Created:      m.Created.UTC().Format(time.RFC3339),
		ExpiresIn:    expiresIn(m.Left(now)),
		Endless:      m.Endless,
		Suspended:    !m.Suspended.IsZero(),
		Packets:      t.Packets,
		Bytes:        t.Bytes,
		Uncounted:    uncounted,
	}
}

func family(k portmap.Kind) int {
	if k == portmap.Pinhole6 {
		return 6
	}
	return 4
}

// expiresIn rounds up, so that a live mapping never shows the 0 of "never".
func expiresIn(left time.Duration) int64 {
	if left < 0 {
		return 0
	}
	return max(1, int64((left+time.Second-1)/time.Second))
}

// Deletion is the body of POST /v1/delete: exactly one of ID, All, or a
// protocol with a port.
type Deletion struct {
	ID       uint64 `json:"id,omitempty"`
	All      bool   `json:"all,omitempty"`
	Protocol string `json:"protocol,omitempty"`
	Port     uint16 `json:"port,omitempty"` // external
}

// Failure is the body of every answer that is not 200.
type Failure struct {
	Reason string `json:"reason"` // portmap.Reason's word, or "bad-request", "forbidden", "not-served"
	Error  string `json:"error"`
}
