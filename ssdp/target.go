package ssdp

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Bounds of what the caller may describe; with them every message has a bound.
const (
	maxTargets  = 64
	maxVersion  = 9   // of a device or service type
	maxTree     = 2   // of the device tree
	maxType     = 80  // octets
	maxServer   = 64  // octets
	maxLocation = 128 // octets
)

// Plain is the version that Config.Describe is asked for who is shown one description alone.
const Plain = maxTree + 1

// rootDevice is the type every root device has.
const rootDevice = "upnp:rootdevice"

// Target is one thing that can be searched for and is announced: a row of the tables in
// UDA 1.1 section 1.2.2.
type Target struct {
	// Type is a device or service type without its version, for example
	// "urn:schemas-upnp-org:service:WANIPConnection"; or "upnp:rootdevice"; or
	// "" for the row that holds the bare uuid.
	Type string
	// MaxVersion is the highest version of a urn type that is answered, 1 to 9;
	// all from 1 on are. Without a meaning for the two other kinds.
	MaxVersion int
	// UUID of the device the row belongs to, as 8-4-4-4-12 hex digits, without
	// the "uuid:" before it.
	UUID string
	// Tree is the first version of the device tree that has this row: 0 and 1
	// mean all. A row of tree 2 (a service no version 1 gateway has) is answered
	// when it is searched for by its type and then points at the version 2
	// description. It is not announced nor listed for ssdp:all, because those
	// point at the version 1 description.
	Tree int
}

// Description is where a device description is and which one it is.
type Description struct {
	// Location is the absolute URL of the description: printable ASCII without
	// blanks, at most 128 octets, with a literal address.
	Location string
	// ConfigID identifies the set of documents behind Location, 0 to 16777215.
	// It changes whenever one of them does (UDA 1.1 section 2.1).
	ConfigID uint32
}

// check guards the messages against a Location that would break their lines.
func (d Description) check() error {
	if d.Location == "" || len(d.Location) > maxLocation || !printable(d.Location, "") {
		return fmt.Errorf("location %.160q is empty, too long or not printable", d.Location)
	}
	return nil
}

// row is one line of the catalogue, ready to be sent.
type row struct {
	target  string // ST or NT
	usn     string
	version int // of the tree whose description it points at; 0: none was asked
}

// catalogue is what can be found. It never changes.
type catalogue struct {
	all    []row            // announced, and the answer to ssdp:all
	byText map[string][]row // every other search target, exactly as it must be written
}

// match returns the rows that answer a search target, nil for one that is not ours. Types
// are compared exactly; the hex digits of a uuid in either case (UDA 1.1 section
// 1.3.2).
func (c *catalogue) match(target string) []row {
	if target == searchAll {
		return c.all
	}
	if strings.HasPrefix(target, "uuid:") {
		target = strings.ToLower(target)
	}
	return c.byText[target]
}

// newCatalogue spells out every text that can be searched for: the client's own
// is only compared with these and never repeated.
func newCatalogue(targets []Target) (*catalogue, error) {
	if len(targets) == 0 || len(targets) > maxTargets {
		return nil, fmt.Errorf("%d targets, want 1 to %d", len(targets), maxTargets)
	}
	c := &catalogue{byText: map[string][]row{}}
	for _, t := range targets {
		if err := t.check(); err != nil {
			return nil, err
		}
		c.add(t)
	}
	if len(c.all) == 0 {
		return nil, errors.New("no target in tree 1: nothing to announce")
	}
	return c, nil
}

func (t Target) check() error {
	switch {
	case !isUUID(t.UUID):
		return fmt.Errorf("target %q: uuid %q is not 8-4-4-4-12 hex digits", t.Type, t.UUID)
	case t.Tree < 0 || t.Tree > maxTree:
		return fmt.Errorf("target %q: tree %d, want 0 to %d", t.Type, t.Tree, maxTree)
	case t.Type == "" || t.Type == rootDevice:
		return nil
	case !strings.HasPrefix(t.Type, "urn:") || len(t.Type) > maxType || !printable(t.Type, ""):
		return fmt.Errorf("target %q: neither urn, upnp:rootdevice nor empty", t.Type)
	case t.MaxVersion < 1 || t.MaxVersion > maxVersion:
		return fmt.Errorf("target %q: version %d, want 1 to %d", t.Type, t.MaxVersion, maxVersion)
	}
	return nil
}

// add enters the rows of one target. A target that is there already (one device
// with two services of a type) is advertised once (UDA 2.0 section 1.2.2).
func (c *catalogue) add(t Target) {
	uuid := "uuid:" + t.UUID
	switch t.Type {
	case "":
		c.enter(row{target: uuid, usn: uuid, version: t.version(0)}, t.Tree < 2)
	case rootDevice:
		c.enter(row{target: rootDevice, usn: uuid + "::" + rootDevice, version: t.version(0)}, t.Tree < 2)
	default:
		for v := 1; v <= t.MaxVersion; v++ {
			text := t.Type + ":" + strconv.Itoa(v)
			// ST repeats the version asked for (UDA 1.1 section 1.3.2), and USN
			// agrees with it. Unasked, only version 1 is shown: Windows, Xbox
			// and PlayStation ignore a device of which they see version 2.
			r := row{target: text, usn: uuid + "::" + text, version: t.version(v)}
			c.enter(r, v == 1 && t.Tree < 2)
		}
	}
}

// version is the tree shown to who asked for version v of the target, 0 when no
// version was asked.
func (t Target) version(v int) int {
	if t.Tree > 1 {
		v = max(v, t.Tree)
	}
	return min(v, maxTree)
}

func (c *catalogue) enter(r row, announced bool) {
	key := r.target
	if strings.HasPrefix(key, "uuid:") {
		key = strings.ToLower(key)
	}
	for _, known := range c.byText[key] {
		if known.usn == r.usn {
			return
		}
	}
	c.byText[key] = append(c.byText[key], r)
	if announced {
		c.all = append(c.all, r)
	}
}

func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; i {
		case 8, 13, 18, 23:
			if c != '-' {
				return false
			}
		default:
			if !strings.ContainsRune("0123456789abcdefABCDEF", rune(c)) {
				return false
			}
		}
	}
	return true
}

// printable: visible ASCII and what else is allowed.
func printable(s, allowed string) bool {
	for i := range len(s) {
		if (s[i] <= ' ' || s[i] > '~') && strings.IndexByte(allowed, s[i]) < 0 {
			return false
		}
	}
	return true
}

// describe asks the caller for the descriptions that hold for a local address.
func describe(ask func(int, netip.Addr) Description, local netip.Addr) (shown [Plain + 1]Description, err error) {
	for v := range shown {
		shown[v] = ask(v, local)
		if err := shown[v].check(); err != nil {
			return shown, fmt.Errorf("description of version %d: %w", v, err)
		}
	}
	return shown, nil
}
