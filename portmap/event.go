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
	case Denied:
		return "denied"
	case RevokedEvent:
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
}
