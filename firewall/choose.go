package firewall

import "fmt"

// The names of the backends.
const (
	NFTables = "nftables"
	IPTables = "iptables"
)

// Machine is what the choice of a backend depends on, where nf_tables can be used.
type Machine struct {
	IPTables    error // why iptables cannot be used; nil: it can
	LegacyRules bool  // somebody else's rules stand in the legacy tables of iptables
	Hidden      bool  // only root can tell whether there are such
	NFTRules    bool  // somebody else's rules stand in nf_tables, those of iptables-nft among them
}

// Choose returns the backend for a machine whose owner leaves it to us, and why, in a
// sentence. It takes the one where the owner's rules are: what these drop, mappings
// cannot open else.
func Choose(h Machine) (backend, why string) {
	switch {
	case h.Hidden:
		return NFTables, "nftables; only root can see whether iptables-legacy has rules of this machine, so name the backend if it has"
	case !h.LegacyRules:
		return NFTables, "nftables, because no rules of this machine are in iptables-legacy"
	case h.NFTRules:
		return NFTables, "nftables, which has rules of this machine, though iptables-legacy has some too"
	case h.IPTables != nil:
		return NFTables, fmt.Sprintf("nftables, though the rules of this machine are in iptables-legacy, because iptables cannot be used: %v", h.IPTables)
	}
	return IPTables, "iptables, because the rules of this machine are in iptables-legacy and none are in nf_tables"
}
