package wall

import (
	"time"

	"portcullis/portmap"
)

// A front is told at once that a client's mappings have changed, and of what follows within
// gatherTime once, when that is over: a message costs both processes a wake-up, and who
// renews a hundred mappings changes them a hundred times. What the front has to know before
// it answers anybody, Turn says.
const (
	gatherTime  = 20 * time.Millisecond
	maxGathered = 256 // what else changes meanwhile is told as it comes
)

// teller tells one front of changes.
type teller struct {
	send func(*Event) error
	told map[Event]bool // what was said since the timer began; true: it has happened again
}

// tell passes on whose mappings changed, until there are no more events.
func (s *Server) tell(events <-chan portmap.Event) error {
	t := teller{send: func(e *Event) error { return s.conn.send(Message{Body: e}) }}
	return t.run(events)
}

func (t *teller) run(events <-chan portmap.Event) error {
	t.told = make(map[Event]bool)
	timer := time.NewTimer(gatherTime)
	defer timer.Stop()
	timer.Stop()
	for {
		var err error
		select {
		case ev, open := <-events:
			if !open {
				return nil
			}
			if len(t.told) == 0 {
				timer.Reset(gatherTime)
			}
			err = t.change(ev)
		case <-timer.C:
			err = t.again()
			if len(t.told) > 0 {
				timer.Reset(gatherTime)
			}
		}
		if err != nil {
			return err
		}
	}
}

// change tells of an event that changes mappings, or keeps it for again.
func (t *teller) change(ev portmap.Event) error {
	switch ev.Type {
	case portmap.Granted, portmap.Renewed, portmap.Deleted, portmap.Expired, portmap.RevokedEvent, portmap.Resync:
	default:
		return nil
	}
	e := Event{Type: ev.Type, Kind: ev.Mapping.Kind, Client: ev.Mapping.Client.ID()}
	if _, told := t.told[e]; told {
		t.told[e] = true
		return nil
	}
	if len(t.told) < maxGathered {
		t.told[e] = false
	}
	return t.send(&e)
}

// again tells of what has happened again meanwhile, and begins anew.
func (t *teller) again() error {
	for e, more := range t.told {
		if !more {
			delete(t.told, e)
			continue
		}
		t.told[e] = false
		if err := t.send(&e); err != nil {
			return err
		}
	}
	return nil
}
