package portmap

import (
	"fmt"
	"net/netip"
	"time"
)

// Action is what a policy says to a request.
type Action uint8

// The actions. Ask refuses until the owner has answered, and reports that somebody asked.
const (
	Deny Action = iota
	Allow
	Ask
)

// String returns the word the configuration and the JSON use.
func (a Action) String() string {
	switch a {
	case Allow:
		return "allow"
	case Ask:
		return "ask"
	}
	return "deny"
}

// Policy decides; it is pure, quick, and safe for concurrent use.
type Policy interface {
	Decide(Request, Facts) Decision
}

// Facts is what a policy may know of the world when it decides. It is a value:
// deciding twice over the same facts yields the same verdict.
type Facts struct {
	Now            time.Time
	View           *View                 // the gateway's network, never nil
	Renewal        bool                  // the client already holds this mapping: quotas do not apply
	Change         bool                  // and would make something else of it than a longer lease: the rate does
	Mappings       int                   // all mappings in the table
	ClientMappings int                   // those of this client's device
	LANMappings    int                   // those of all clients on this client's interface
	RuleMappings   func(rule string) int // those of this client's device that the named rule allowed; may be nil
	RuleTotal      func(rule string) int // those of everybody; may be nil
	GrantReadyAt   time.Time             // the grant limiter's state for this device, see Decision.GrantReadyAt
	Answer         *Answer               // what the owner has said when he was asked; nil: nothing
}

// Decision is a verdict, with a sentence that a person understands.
type Decision struct {
	Action Action
	Reason Reason // NoReason when allowed
	Detail string // the sentence; never empty when not allowed
	Rule   string // the owner's rule that decided, or ""
	Wall   bool   // true: no rule could have allowed it

	// NeedsRule means that a rule of the owner, above the others, would take away what the
	// refusal speaks of.
	NeedsRule bool

	// OverExternalPort is true when the same request with another external
	// port might be allowed: who asked for any port gets another one.
	OverExternalPort bool
	// Elsewhere is where such a port may be found, when the owner's rules
	// permit only some; nil means anywhere. It is a hint: each candidate is
	// decided upon again.
	Elsewhere []PortRange

	MaxLifetime time.Duration // 0: no limit but the engine's own

	// Answer is what the owner has said, where the policy asks him; nil: he was not asked, or
	// has said nothing.
	Answer *Answer

	// GrantReadyAt is the limiter's state after this grant (generic cell rate
	// algorithm: the theoretical arrival time), to be kept if it is committed.
	GrantReadyAt time.Time
}

// PortRange is First..Last, inclusive, First <= Last.
type PortRange struct{ First, Last uint16 }

// Contains reports whether p lies in the range.
func (r PortRange) Contains(p uint16) bool { return r.First <= p && p <= r.Last }

// View is the gateway's own network at one moment. It is immutable once
// published; a change makes a new one.
type View struct {
	WANs     []WAN // in order of preference; one today, or none while there is none
	LAN      map[string]LAN
	Local    map[netip.Addr]struct{} // every address of the gateway itself, WAN included
	WANAddrs []netip.Addr            // those of the WAN interfaces
	WAN6     string                  // the IPv6 WAN interface, "" while there is none
	WAN6Up   bool                    // the link is up and has an IPv6 address of the Internet

	InUse    []PortsInUse // external ports that are nobody's to map
	InUseErr error        // why these are not known; then no port is granted
}

// PortsInUse are external ports that the gateway itself listens on, or that the owner's
// own rules forward already.
type PortsInUse struct {
	Transport Transport // 0: both
	Ports     PortRange
	By        string // what uses them, for people
}

// InUse returns what uses an external port, if anything does: the first of the list.
func InUse(list []PortsInUse, tr Transport, port uint16) (by string, used bool) {
	for _, u := range list {
		if (u.Transport == 0 || u.Transport == tr) && u.Ports.Contains(port) {
			return u.By, true
		}
	}
	return "", false
}

// Vacant returns a nil error where nobody uses an external port, else one with PortInUse,
// or with FirewallFailed where that is not known.
func (v *View) Vacant(tr Transport, port uint16) error {
	if v.InUseErr != nil {
		return &Error{Reason: FirewallFailed, Detail: "cannot tell whether the port is in use", Err: v.InUseErr}
	}
	if by, used := InUse(v.InUse, tr, port); used {
		return &Error{Reason: PortInUse, Detail: fmt.Sprintf("%s port %d is in use: %s", tr, port, by)}
	}
	return nil
}

// WAN is one way to the Internet by IPv4.
type WAN struct {
	Name     string     // the interface
	Up       bool       // the link is up and has an address
	External netip.Addr // the address reported to clients; zero while unknown
	Private  bool       // External cannot be reached from the Internet, and the owner did not allow that
}

// WAN returns the one that mappings are made on, the zero WAN while there is none.
func (v *View) WAN() WAN {
	if len(v.WANs) == 0 {
		return WAN{}
	}
	return v.WANs[0]
}

// name returns the interface by which packets come to a mapping of a kind, "" while
// there is none.
func (v *View) name(k Kind) string {
	if k == Pinhole6 {
		return v.WAN6
	}
	return v.WAN().Name
}

// LAN is one served interface.
type LAN struct {
	Prefixes []netip.Prefix // on-link, masked; with the owner's extra_prefixes
	Addrs    []netip.Addr   // the gateway's own addresses there
}

// OnLink reports whether a is inside one of the interface's prefixes.
func (l LAN) OnLink(a netip.Addr) bool {
	for _, p := range l.Prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
