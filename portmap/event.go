package portmap

import "time"

// EventType is what happened; the words are the contract of `events --json`.
type EventType uint8

// The event types.
const (
	Granted EventType = iota + 1
	Renewed
	Deleted
	Expired
	Denied
	RevokedEvent
	Pending
	Drift
	Suspended // closed while another device has its host's address
	Resumed   // open again
	Resync    // the watcher was too slow and lost events: read the snapshot again
	Approved  // the owner has approved what was asked for (Engine.Answered)
	Refused   // he has denied it
	Withdrawn // he has taken back what he had said

	eventTypeCount // keep last
)

// String returns the contract's word.
func (t EventType) String() string {
	switch t {
	case Granted:
		return "granted"
	case Renewed:
		return "renewed"
	case Deleted:
		return "deleted"
	case Expired:
		return "expired"
	case Denied, Refused:
		return "denied"
	case RevokedEvent, Withdrawn:
		return "revoked"
	case Pending:
		return "pending"
	case Drift:
		return "drift"
	case Suspended:
		return "suspended"
	case Resumed:
		return "resumed"
	case Resync:
		return "resync"
	case Approved:
		return "approved"
	}
	return "unknown"
}

// Event is one thing that happened to the table. Mapping is the state after it
// (for an end: the last state); for Denied it shows what was asked for.
type Event struct {
	Time    time.Time
	Type    EventType
	Reason  Reason
	Detail  string // the sentence of a refusal
	Rule    string // the owner's rule that decided, or ""
	Client  Client
	Mapping Mapping

	Wall, NeedsRule bool // of a refusal, as in Decision

	Answer  Answer // of Approved, Refused and Withdrawn
	Waiting uint64 // of Pending: the number under which it waits for the owner, where that is known
}
