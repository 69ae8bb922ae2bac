package firewall

import (
	"context"
	"iter"
	"net/netip"

	"portcullis/portmap"
)

// Kernel is what a backend is: six calls that bring values into the kernel and tell
// what is there. The Driver makes them under its lock, one at a time, but for Watch and
// for reading Entries or Counters, which may take seconds.
//
// Errors are the kernel's, or wrap one of ErrDrifted, ErrTooLarge, ErrUnknown and
// ErrNothingLeft.
type Kernel interface {
	// Write makes one change in one transaction, or not at all. It reports whether
	// something of ours is lacking in the owner's tables, for Rewrite to put in.
	Write(context.Context, Update) (lacking bool, err error)
	// Retimes reports whether Write gives mappings another end and leaves their counters as
	// they are, for a Delta of leases only.
	Retimes() bool
	// Rewrite makes one part of the rules be as they should, whatever they were.
	Rewrite(context.Context, Part, Whole) error
	// Read returns what is there. With an error it returns what it read before.
	Read(context.Context, Query) (Held, error)
	// Watch reports what other programs do to the rules until ctx ends. tell must not
	// block for long.
	Watch(ctx context.Context, tell func(Intrusion)) error
	// Remove takes away all that was written.
	Remove(context.Context) error
}

// Update is a change, new facts of the machine, or hosts to be refused; one of these.
type Update struct {
	Delta  *Delta
	Facts  *Facts
	Refuse []Refusal
}

// Refusal is the host at the end of a flow that was ended: when it goes on sending to the
// other end, it is told for a minute that the flow is over.
type Refusal struct {
	Transport portmap.Transport
	From, To  netip.AddrPort
}

// Part is what is written at once.
type Part uint8

// The parts.
const (
	// OurTable has all entries and the facts of the machine. With an error the kernel
	// holds what it held, or the error wraps ErrNothingLeft or ErrUnknown.
	OurTable Part = iota
	// OwnersTables is what stands in tables of the owner that would drop mapped traffic
	// otherwise: holes and pins. What is there already is left as it is, and what stands where it should
	// no longer be is taken away. An error that is a *ChainError stays until its remedy.
	OwnersTables
)

// Whole is all that the kernel should hold. The entries are made while they are walked, as
// often as that is done, because those of many mappings take much memory.
type Whole struct {
	Entries iter.Seq[Entry]
	Facts   Facts
}

// Query is what is to be read; one of these.
type Query struct {
	Quick bool // a client waits: no listing that is under way may hold it up

	Rules        bool            // whether our table and its rules, and the facts of the machine, are as written
	OwnersTables bool            // whether what was written into the owner's tables is
	Copies       iter.Seq[Entry] // whether what is kept of these elsewhere than in the table agrees; not nil
	Holds        iter.Seq[Entry] // whether all entries are these but for their ends; not nil; walked once, before anything is read
	Entries      bool            // all entries
	Counters     bool            // all counters
	CountersOf   []Entry         // those of some holes and pins
}

// Held is what was read.
type Held struct {
	Drift    string // what is wrong with our table, "" for nothing
	Lost     bool   // what had been written into the owner's tables is not as it should be
	Lacking  bool   // something is for Rewrite to put there, or cannot be
	Entries  []Entry
	Counters []Count
}

// Count is the traffic of a hole or a pin since it was written.
type Count struct {
	Entry   Entry
	Counter Counter
}

// Flows ends the connections that a change leaves without a mapping (firewall/flows).
type Flows interface {
	Changed(*Delta)
	Free(*Delta)
	AddressesGone(before, after Facts)
	Close(context.Context, []portmap.Mapping) error
}
