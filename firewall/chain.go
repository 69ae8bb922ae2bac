package firewall

import (
	"errors"
	"fmt"
	"strings"
)

// Chain names a chain of an nf_tables table; the zero value is none.
type Chain struct {
	Family string // "inet", "ip" or "ip6"
	Table  string
	Name   string
}

// Nowhere is an interface that cannot be: the kernel refuses a slash in a name. Rules that are
// only shown (miniupnpd.chain) ask for it, and so do nothing, wherever they stand. Older pages
// of OpenWrt take the first small letters of iptables' line for the protocol.
const Nowhere = "ONLY/SHOWN"

// ownTable is the table of firewall/nft, where a jump to ourselves would loop.
const ownTable = "portcullis"

// UnmarshalText reads "family table chain", as the configuration has it. Its error
// returns what is wrong as the rest of a sentence that begins with the text.
func (c *Chain) UnmarshalText(text []byte) error {
	w := strings.Split(string(text), " ")
	if len(w) != 3 || !isChainWord(w[1]) || !isChainWord(w[2]) {
		return errors.New(`is not a chain; allowed: a family (inet, ip or ip6), a table and a chain, like "inet fw4 forward", or ""`)
	}
	if w[1] == ownTable {
		return errors.New("is in our own table; allowed: the table of the host's firewall")
	}
	*c = Chain{Family: w[0], Table: w[1], Name: w[2]}
	return nil
}

// String returns the same three words, or "" for the zero value.
func (c Chain) String() string {
	if c == (Chain{}) {
		return ""
	}
	return c.Family + " " + c.Table + " " + c.Name
}

// OfIPTables reports whether it is the chain of the programs of iptables that filters
// what is forwarded, by name.
func (c Chain) OfIPTables() bool {
	return (c.Family == "ip" || c.Family == "ip6") && c.Table == "filter" && c.Name == "FORWARD"
}

// OfNAT reports whether it is a chain of the nat table of the program iptables.
func (c Chain) OfNAT() bool { return c.Family == "ip" && c.Table == "nat" }

// Check4 returns what keeps it from being an accept chain: only inet and ip see IPv4
// packets on their way through the machine.
func (c Chain) Check4() error { return c.check("IPv4", "ip") }

// Check6 returns the same for IPv6, which only inet and ip6 see.
func (c Chain) Check6() error { return c.check("IPv6", "ip6") }

func (c Chain) check(what, family string) error {
	if !isChainWord(c.Table) || !isChainWord(c.Name) {
		return fmt.Errorf("not a chain: %.64q; it has a family, a table and a name, as in \"inet fw4 forward\"", c)
	}
	if c.Family != "inet" && c.Family != family {
		return fmt.Errorf("not a chain that forwards %s: %.64q; its family must be inet or %s", what, c, family)
	}
	return nil
}

// isChainWord reports whether s can be the name of a table or chain: a letter or "_",
// then letters, digits, "_", "-" and ".", at most 128. The names go into netlink
// messages and into remedies that people paste into a shell, so they are plain.
func isChainWord(s string) bool {
	for i, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_'
		if !letter && (i == 0 || !(c >= '0' && c <= '9' || c == '-' || c == '.')) {
			return false
		}
	}
	return s != "" && len(s) <= 128
}
