package restore

import (
	"sync"
	"time"

	"portcullis/internal/journal"
	"portcullis/internal/slog"
)

// Identity is who the gateway is for control points, from one run to the next. Its
// methods are safe for concurrent use.
type Identity struct {
	log     *slog.Logger
	journal Journal // nil: there is none
	next    func(previous uint32, now time.Time) uint32
	writes  *writes // of BOOTIDs

	mu   sync.Mutex // guards what follows
	id   journal.Identity
	kept bool // id is on disk, as far as we know
}

// NewIdentity returns the identity of the last run, or a new one; next is the rule by
// which a BOOTID follows another (ssdp.NextBootID).
func NewIdentity(log *slog.Logger, j Journal, next func(previous uint32, now time.Time) uint32) *Identity {
	i := &Identity{log: log, journal: j, next: next, writes: newWrites()}
	if j == nil {
		i.id = journal.NewIdentity() // nothing that is there can be trusted
		return i
	}
	var err error
	if i.id, err = j.Identity(); err != nil {
		log.Warn("cannot load the UPnP identity; generating a new one", "err", err)
	}
	i.kept = j.HasIdentity()
	return i
}

// UUID returns the gateway's own.
func (i *Identity) UUID() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.id.UUID
}

// Path returns the part of its URLs that nobody can guess.
func (i *Identity) Path() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.id.Path
}

// NextBootID returns a BOOTID greater than last and every one before, and keeps it, soon
// where that is asked for too often.
func (i *Identity) NextBootID(last uint32) uint32 {
	i.mu.Lock()
	i.id.BootID = i.next(max(last, i.id.BootID), time.Now())
	id := i.id.BootID
	i.mu.Unlock()
	i.writes.do(func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.save()
	})
	return id
}

// Flush writes down what waits for its turn, before the journal is closed.
func (i *Identity) Flush() { i.writes.flush() }

// Keep writes the identity anew that was removed: at the next start clients would take
// the gateway for another one. One that was never written, or cannot be, is not missed.
func (i *Identity) Keep() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.kept || i.journal.HasIdentity() {
		return
	}
	i.log.Warn("UPnP identity was removed from state.dir; rewriting it")
	i.save()
}

// save writes the identity; mu is held.
func (i *Identity) save() {
	if i.journal == nil {
		return
	}
	err := i.journal.SaveIdentity(i.id)
	if i.kept = err == nil; err != nil {
		i.log.Warn("cannot save the UPnP identity", "err", err)
	}
}
