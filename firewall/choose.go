package firewall

import "fmt"

// The names of the backends.
const (
	NFTables = "nftables"
	IPTables = "iptables"
)

// Machine is what the choice of a backend depends on.
type Machine struct {
	NFTables    error // why nf_tables cannot be used; nil: it can
	IPTables    error // why iptables cannot be used; nil: it can
	LegacyRules bool  // somebody else's rules stand in the legacy tables of iptables
	NFTRules    bool  // somebody else's rules stand in nf_tables, those of iptables-nft among them
}

// Choose gives the backend for a machine whose owner leaves it to us, and why, in a
// sentence. Of two that work it takes the one where the owner's rules are: they
// are judged together, and who lists the one sees nothing of the other.
func Choose(h Machine) (backend, why string) {
	switch {
	case h.NFTables != nil && h.IPTables == nil:
		return IPTables, fmt.Sprintf("iptables, because nf_tables cannot be used: %v", h.NFTables)
	case h.NFTables != nil:
		return NFTables, fmt.Sprintf("nftables, though it cannot be used, because iptables cannot either: %v", h.IPTables)
	case h.LegacyRules && !h.NFTRules && h.IPTables == nil:
		return IPTables, "iptables, because the rules of this machine are in iptables-legacy and none are in nf_tables"
	case h.LegacyRules && h.NFTRules:
		return NFTables, "nftables, which has rules of this machine, though iptables-legacy has some too"
	case h.LegacyRules:
		return NFTables, fmt.Sprintf("nftables, though the rules of this machine are in iptables-legacy, because iptables cannot be used: %v", h.IPTables)
	}
	return NFTables, "nftables, because this kernel has nf_tables"
}
