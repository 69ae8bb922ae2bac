package policy

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"portcullis/portmap"
)

// NamingWidth is how many ports a range may span and still name each of them,
// as a Tier 1 port needs (see the package documentation).
const NamingWidth = 100

// MaxPattern bounds a rule's description, in bytes.
const MaxPattern = 1024

// maxHost bounds a host name, in bytes.
const maxHost = 255

// Rule is one of the owner's rules. Every condition must hold; a list holds if
// one of its entries does, an empty list always. The tags are the keys of a
// [[rule]] in the configuration.
type Rule struct {
	Name        string              `toml:"name"` // not empty, unique
	Action      portmap.Action      `toml:"action"`
	Clients     []ClientMatch       `toml:"clients,omitempty"`
	External    []portmap.PortRange `toml:"external_ports,omitempty"` // of a pinhole, its one port
	Internal    []portmap.PortRange `toml:"internal_ports,omitempty"`
	Transports  []portmap.Transport `toml:"protocols,omitempty"`
	Via         []portmap.Via       `toml:"via,omitempty"`
	Description *regexp.Regexp      `toml:"description,omitempty"`                  // nil: any; only Allow, where the client writes what it likes, gives no safety
	MaxLifetime time.Duration       `toml:"max_lifetime,omitempty"`                 // for what the rule allows; 0: the engine's own limit
	MaxMappings int                 `toml:"max_mappings,omitempty" range:"1-65535"` // the mappings of one device that the rule allows; 0: no limit

	MaxMappingsTotal int `toml:"max_mappings_total,omitempty" range:"1-65535"` // the mappings of all devices that it allows; 0: no limit
}

// names reports whether a range names its ports.
func names(p portmap.PortRange) bool { return int(p.Last)-int(p.First) < NamingWidth }

// fits reports whether every condition holds but the external port's.
func (rl *Rule) fits(r *portmap.Request) bool {
	if len(rl.Transports) > 0 && !slices.Contains(rl.Transports, r.Transport) {
		return false
	}
	if len(rl.Via) > 0 && !slices.Contains(rl.Via, r.Client.Via) {
		return false
	}
	if len(rl.Internal) > 0 && !contains(rl.Internal, r.Internal.Port()) {
		return false
	}
	if len(rl.Clients) > 0 && !rl.meant(&r.Client) {
		return false
	}
	if rl.Description == nil {
		return true
	}
	text := r.Description
	if len(text) > portmap.MaxDescription {
		text = text[:portmap.MaxDescription]
	}
	return rl.Description.MatchString(text)
}

// meant reports whether one of the rule's clients is this one.
func (rl *Rule) meant(c *portmap.Client) bool {
	for i := range rl.Clients {
		if rl.Clients[i].matches(c) {
			return true
		}
	}
	return false
}

// contains reports whether one of the ranges holds the port.
func contains(list []portmap.PortRange, port uint16) bool {
	for _, p := range list {
		if p.Contains(port) {
			return true
		}
	}
	return false
}

// named reports whether one of the ranges holds the port and names it.
func named(list []portmap.PortRange, port uint16) bool {
	for _, p := range list {
		if p.Contains(port) && names(p) {
			return true
		}
	}
	return false
}

// PortError says that an element of a rule's ports cannot be what the rule says.
type PortError struct {
	Side  Side // whose list it is in
	Index int  // from 0
	Text  string
}

// Error returns the sentence.
func (e *PortError) Error() string { return e.Text }

// Check returns what is wrong with a rule, its name apart; New refuses the same.
// The configuration calls it, which knows the line of the file.
func (rl Rule) Check() error {
	_, err := compile(rl)
	return err
}

// compile checks a rule and returns a copy that shares nothing the caller could
// change.
func compile(rl Rule) (Rule, error) {
	rl.Clients = slices.Clone(rl.Clients)
	rl.External = slices.Clone(rl.External)
	rl.Internal = slices.Clone(rl.Internal)
	rl.Transports = slices.Clone(rl.Transports)
	rl.Via = slices.Clone(rl.Via)
	if !validAction(rl.Action) {
		return Rule{}, fmt.Errorf("unknown action %d", rl.Action)
	}
	for i := range rl.Clients {
		if err := rl.Clients[i].compile(); err != nil {
			return Rule{}, err
		}
	}
	for _, t := range rl.Transports {
		if !t.Valid() {
			return Rule{}, fmt.Errorf("%s is neither tcp nor udp", t)
		}
	}
	if rl.Description != nil && len(rl.Description.String()) > MaxPattern {
		return Rule{}, fmt.Errorf("the description pattern is longer than %d bytes", MaxPattern)
	}
	if rl.MaxLifetime < 0 || rl.MaxMappings < 0 || rl.MaxMappingsTotal < 0 {
		return Rule{}, errors.New("max_lifetime, max_mappings and max_mappings_total must not be negative")
	}
	if err := rl.checkPorts(Internal, rl.Internal); err != nil {
		return Rule{}, err
	}
	return rl, rl.checkPorts(External, rl.External)
}

// checkPorts refuses ranges that are none, and a rule that would open a Tier 0
// port and says so: it could never do what its author believes. A range that
// only covers such ports among others is no promise about them.
func (rl *Rule) checkPorts(side Side, list []portmap.PortRange) error {
	transports := rl.Transports
	if len(transports) == 0 {
		transports = []portmap.Transport{portmap.TCP, portmap.UDP}
	}
	for i, p := range list {
		if p.First == 0 || p.Last < p.First {
			return fmt.Errorf("%s ports %d-%d: ports run from 1 to 65535, the lower first", side, p.First, p.Last)
		}
		if rl.Action == portmap.Deny || p.First != p.Last {
			continue
		}
		for _, t := range transports {
			if tier, why := TierOf(side, t, p.First); tier == Forbidden {
				return &PortError{side, i, fmt.Sprintf("%s port %d can never be opened: it is %s", t, p.First, why)}
			}
		}
	}
	return nil
}

// validAction reports whether a is one of the three.
func validAction(a portmap.Action) bool {
	return a == portmap.Deny || a == portmap.Allow || a == portmap.Ask
}
