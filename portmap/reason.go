package portmap

import (
	"errors"
	"time"
)

// Reason is why something was refused or ended. The set is closed: each
// protocol has one table that turns every Reason into its own code, and a test
// walks the whole set through each table.
type Reason uint8

// The reasons. The comment of each is what a person should understand.
const (
	NoReason Reason = iota

	// What no rule can allow (policy/walls.go).
	NotRequester    // the target is another host than the one that asks
	NotAHost        // the target is no host on a LAN: broadcast, multicast, reserved, the WAN address
	GatewayTarget   // the target is the gateway itself
	OffLink         // the client is not on the network of the interface it came in by
	BadTransport    // neither TCP nor UDP
	BadPort         // port 0 where a port is needed
	ForbiddenPort   // a Tier 0 port, which is never mapped
	PrivilegedPort  // a Tier 1 port that no rule of the owner allows by naming it
	BadRemote       // a restriction that cannot be enforced
	IdentityChanged // the address now answers with another MAC than the mapping's client
	NotOwner        // the mapping is another client's
	WrongNonce      // PCP: the nonce is not the one that made the mapping
	TooManyRemotes  // more restrictions than a mapping may have

	// What the owner decided.
	RuleDenied    // a rule of the owner
	DefaultDenied // policy.default is deny
	NeedsApproval // the owner is asked first
	OwnerDenied   // the owner was asked, and has denied it
	ClientQuota   // limits.mappings_per_client, or a rule's max_mappings
	TotalQuota    // limits.mappings
	GrantRate     // limits.grants_per_second

	// What stands in the way.
	PortTaken      // another client holds the external port
	PortReserved   // another client holds, or may still renew, this port or its companion
	PortInUse      // the gateway listens there, or the owner's own rules forward it
	NoPorts        // no external port is left that policy permits
	NoAddress      // the WAN has no address
	PrivateAddress // the WAN address is private, so nobody could reach the port
	UniqueLocal    // a pinhole for a unique local address, which nobody on the Internet could reach
	NoSuchMapping
	AskedElsewhere // what is to be closed was opened in another protocol, and stays open
	FirewallFailed // the kernel refused; nothing was changed
	Busy           // the engine's queue is full, or the daemon is stopping

	// How a mapping ended.
	Ended   // its lease ran out
	Removed // its client deleted it
	Revoked // the owner deleted it, or its client is gone

	reasonCount // keep last
)

// Reasons lists every Reason but NoReason, for the tests that walk the set.
func Reasons() []Reason {
	all := make([]Reason, 0, reasonCount-1)
	for r := NoReason + 1; r < reasonCount; r++ {
		all = append(all, r)
	}
	return all
}

var reasonNames = [reasonCount]string{
	NoReason:        "",
	NotRequester:    "not-requester",
	NotAHost:        "not-a-host",
	GatewayTarget:   "gateway-target",
	OffLink:         "off-link",
	BadTransport:    "bad-transport",
	BadPort:         "bad-port",
	ForbiddenPort:   "forbidden-port",
	PrivilegedPort:  "privileged-port",
	BadRemote:       "bad-remote",
	IdentityChanged: "identity-changed",
	NotOwner:        "not-owner",
	WrongNonce:      "wrong-nonce",
	TooManyRemotes:  "too-many-remotes",
	RuleDenied:      "rule-denied",
	DefaultDenied:   "default-denied",
	NeedsApproval:   "needs-approval",
	OwnerDenied:     "owner-denied",
	ClientQuota:     "client-quota",
	TotalQuota:      "total-quota",
	GrantRate:       "grant-rate",
	PortTaken:       "port-taken",
	PortReserved:    "port-reserved",
	PortInUse:       "port-in-use",
	NoPorts:         "no-ports",
	NoAddress:       "no-address",
	PrivateAddress:  "private-address",
	UniqueLocal:     "unique-local",
	NoSuchMapping:   "no-such-mapping",
	AskedElsewhere:  "asked-elsewhere",
	FirewallFailed:  "firewall-failed",
	Busy:            "busy",
	Ended:           "ended",
	Removed:         "removed",
	Revoked:         "revoked",
}

// String returns the word used in JSON and in the log.
func (r Reason) String() string {
	if r < reasonCount {
		return reasonNames[r]
	}
	return "unknown"
}

// OfExternalPort reports whether the reason is the external port alone, so that another
// one might be granted.
func (r Reason) OfExternalPort() bool {
	switch r {
	case PortTaken, PortReserved, PortInUse, IdentityChanged:
		return true
	}
	return false
}

// Error is a refusal. Reason is what programs branch on, Detail a sentence for
// people (it may quote capped client text with %q), Err the cause if any.
type Error struct {
	Reason Reason
	Detail string
	Err    error
	Left   time.Duration // how long what stands in the way will last, where that is known; else 0

	// External means that the policy refuses this external port only: another one
	// might be granted.
	External bool
}

// Error returns the sentence, or the reason's word where there is none.
func (e *Error) Error() string {
	s := e.Detail
	if s == "" {
		s = e.Reason.String()
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ReasonOf returns the Reason inside err, or NoReason where err is nil. An error
// that carries none is a failure of the daemon itself: FirewallFailed.
func ReasonOf(err error) Reason {
	if err == nil {
		return NoReason
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return FirewallFailed
}
