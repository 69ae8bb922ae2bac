package firewall

// Intrusion is what another program did to the rules of the machine, as far as a
// backend can tell.
type Intrusion struct {
	Program string // its name as the kernel has it, 15 bytes at most; "" where it was not told
	Ours    bool   // our rules were among what it changed, or that is not known
}
