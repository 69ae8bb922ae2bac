package firewall

import (
	"cmp"
	"errors"
	"fmt"
)

// What a person must act on. Each text is a sentence with its remedy; a backend
// wraps the kernel's own error behind it.
var (
	// ErrPermission is given when the process may not change the firewall.
	ErrPermission = errors.New("not permitted to change the firewall: CAP_NET_ADMIN is missing; " +
		"run as root, or give the service AmbientCapabilities=CAP_NET_ADMIN")
	// ErrUnsupported is given when the kernel lacks what the backend is made of.
	ErrUnsupported = errors.New("this kernel has no nf_tables with NAT; " +
		"load or install the modules nf_tables, nft_chain_nat, nft_nat, nft_masq, nft_ct and nft_reject_inet")
	// ErrChanging is given when what was to be compared changed each time it was read.
	// Nothing is known to be wrong.
	ErrChanging = errors.New("it keeps changing while it is listed")
	// ErrFull is given when the kernel's tables hold as many mappings as they may.
	ErrFull = errors.New("the firewall's tables are full")
	// ErrInconsistent is given when what holds the mappings contradicts itself.
	ErrInconsistent = errors.New("the sets of mappings do not agree")
	// ErrClosed is given by a backend that has been closed.
	ErrClosed = errors.New("the firewall backend is closed")
)

// What a Kernel says of itself, for the Driver to act on.
var (
	// ErrDrifted is given when it holds something else than was written.
	ErrDrifted = errors.New("the kernel does not hold what was written")
	// ErrTooLarge is given to a change that does not fit one transaction.
	ErrTooLarge = errors.New("too large for one transaction")
	// ErrUnknown is given when a transaction may have been made or not.
	ErrUnknown = errors.New("the outcome is not known")
	// ErrNothingLeft is given when our table was being written and could not be.
	ErrNothingLeft = errors.New("nothing is left of our table")
)

// FeatureError names the one thing the kernel lacks. It is an ErrUnsupported.
type FeatureError struct {
	Feature string // what it is for, in words
	Module  string // the kernel module that has it
	Err     error  // what the kernel said
}

// Error returns a sentence.
func (e *FeatureError) Error() string {
	return fmt.Sprintf("this kernel lacks %s; load or install the module %s: %v", e.Feature, e.Module, e.Err)
}

// Unwrap returns ErrUnsupported and the kernel's error.
func (e *FeatureError) Unwrap() []error { return []error{ErrUnsupported, e.Err} }

// ChainError is given when the owner's chain that shall let mapped traffic pass
// cannot be used. Everything but that is in force.
type ChainError struct {
	Chain   Chain
	Setting string // what names it, if not accept_chain
	Detail  string // what is wrong with it, and what to do
}

// Error returns a sentence that names the chain and the remedy.
func (e *ChainError) Error() string {
	return fmt.Sprintf("firewall.%s %q: %s", cmp.Or(e.Setting, "accept_chain"), e.Chain, e.Detail)
}
