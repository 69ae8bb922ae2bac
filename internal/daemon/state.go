package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"portcullis/internal/journal"
	"portcullis/pcp"
	"portcullis/portmap"
	"portcullis/ssdp"
)

const (
	overdueEvery = 5 * time.Second
	mostRestored = 1 << 17 // mappings, where the owner sets no limit
)

// state is what outlives the daemon: who it is, and the leases. A state directory
// that cannot be used costs no service, only that the next start knows nothing.
type state struct {
	g        *gate
	journal  *journal.Journal // nil: there is none
	restored journal.Restored
	behind   bool // said so

	mu      sync.Mutex // guards what follows
	id      journal.Identity
	kept    bool              // id is in state.dir, as far as we know
	waiting []portmap.Mapping // of the last run, whose LAN or prefix is not there yet
}

// openState reads what the last run left. Only a directory that another process
// uses is an error: two gates would undo each other's mappings.
func openState(g *gate) (*state, error) {
	s := &state{g: g}
	most := g.cfg.Limits.Mappings
	if most <= 0 {
		most = mostRestored
	}
	var err error
	s.journal, s.restored, err = journal.Open(journal.Config{Dir: string(g.cfg.State.Dir), Log: g.log, MaxMappings: most})
	switch {
	case errors.Is(err, journal.ErrLocked):
		return nil, fmt.Errorf("is another portcullis running? %w", err)
	case err != nil:
		g.log.Error("state.dir is unusable; mappings will not survive a restart", "err", err)
	}
	if s.journal == nil {
		s.id = journal.NewIdentity() // nothing that is there can be trusted
		return s, nil
	}
	if s.id, err = s.journal.Identity(); err != nil {
		g.log.Warn("cannot load the UPnP identity; generating a new one", "err", err)
	}
	s.kept = s.journal.HasIdentity()
	return s, nil
}

// close returns the directory up.
func (s *state) close() error {
	if s.journal == nil {
		return nil
	}
	return s.journal.Close()
}

// Record implements portmap.Store.
func (s *state) Record(ctx context.Context, changes []portmap.Change) error {
	if s.journal == nil {
		return nil
	}
	return s.journal.Record(ctx, changes)
}

// recorded logs once when mappings cannot be kept, and once when they can be again.
// The journal mends itself.
func (s *state) recorded(err error) {
	if behind := err != nil; behind != s.behind {
		s.behind = behind
		if behind {
			s.g.log.Error("cannot save mappings for a restart", "err", err)
		} else {
			s.g.log.Info("saving mappings for a restart again")
		}
	}
}

// restore takes over what the last run held, as far as today's policy allows, and
// says whether nothing is missing.
func (s *state) restore(ctx context.Context) (whole bool, err error) {
	for i := range s.restored.Mappings {
		// Rules by name are asked about the name of today, where one is known.
		c := &s.restored.Mappings[i].Client
		c.Name = cmp.Or(s.g.host(c), c.Name)
	}
	dropped, err := s.g.engine.Restore(ctx, s.restored.Mappings)
	if err != nil {
		return false, fmt.Errorf("restore the mappings of the last run: %w", err)
	}
	n := len(s.restored.Mappings)
	lost := 0
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range dropped {
		if d.Waits() {
			s.waiting = append(s.waiting, d.Mapping)
			continue
		}
		lost++
		s.lost(&d.Mapping, d.Err)
	}
	if n > 0 {
		s.g.log.Info("restored mappings",
			"mappings", n-len(dropped), "dropped", lost, "waiting", len(s.waiting))
	}
	// Who waits can be reached as little as the mapping can, and misses nothing.
	return s.restored.Whole && lost == 0, nil
}

func (s *state) lost(m *portmap.Mapping, err error) {
	s.g.log.Info("mapping not restored", "mapping", m.String(),
		"mac", m.Client.MAC, "reason", portmap.ReasonOf(err).String(), "detail", err.Error())
}

// readmit takes over what has waited for a LAN or a prefix that is there now, and
// forgets what is over or has run out.
func (s *state) readmit(ctx context.Context, over ...uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 {
		return
	}
	lans, now := s.g.network.LANs(), time.Now()
	var ready, rest []portmap.Mapping
	for _, m := range s.waiting {
		if slices.Contains(over, m.ID) {
			m.Expires = now
		}
		if l, served := lans[m.Client.Interface]; served && l.OnLink(m.Internal.Addr()) || m.Left(now) == 0 {
			ready = append(ready, m)
		} else {
			rest = append(rest, m)
		}
	}
	if len(ready) == 0 {
		return
	}
	dropped, err := s.g.engine.Readmit(ctx, ready)
	if err != nil {
		s.g.log.Warn("cannot restore mappings yet", "err", err)
		return
	}
	for _, d := range dropped {
		if d.Waits() {
			rest = append(rest, d.Mapping)
		} else {
			s.lost(&d.Mapping, d.Err)
		}
	}
	if s.waiting = rest; len(dropped) < len(ready) {
		s.g.log.Info("restored mappings after their LAN came up", "mappings", len(ready)-len(dropped), "waiting", len(rest))
		s.g.hosts.Look() // another device may have come with the LAN
	}
}

// run keeps the journal until ctx ends, and ends what turns out to have run out
// while the machine was off.
func (s *state) run(ctx context.Context) error {
	if s.journal == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	ended := make(chan error, 1)
	go func() { ended <- s.journal.Run(ctx) }()
	tick := time.NewTicker(overdueEvery)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			return err
		case <-tick.C:
			s.endOverdue(ctx)
			s.keepIdentity()
		}
	}
}

func (s *state) endOverdue(ctx context.Context) {
	over := s.journal.Overdue()
	s.readmit(ctx, over...)
	if len(over) == 0 {
		return
	}
	for m := range s.g.engine.Snapshot().All() {
		if slices.Contains(over, m.ID) {
			s.g.revoke(ctx, m, portmap.Ended, "its lease ended while the machine was off")
		}
	}
}

// uuid is the gateway's own.
func (s *state) uuid() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.id.UUID
}

// path is the part of its URLs that nobody can guess.
func (s *state) path() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.id.Path
}

// nextBootID takes a BOOTID greater than every one before, and keeps it.
func (s *state) nextBootID(last uint32) uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.id.BootID = ssdp.NextBootID(max(last, s.id.BootID), time.Now())
	s.save()
	return s.id.BootID
}

// resume lets the epochs of the last run go on.
func (s *state) resume(four, six *pcp.Epoch) {
	if e := s.restored.Epochs; !e.V4.IsZero() && !e.V6.IsZero() {
		four.Restart(e.V4)
		six.Restart(e.V6)
	}
}

// keepEpochs writes down when the epochs began.
func (s *state) keepEpochs(four, six *pcp.Epoch) {
	if s.journal == nil {
		return
	}
	if err := s.journal.KeepEpochs(journal.Epochs{V4: four.Began(), V6: six.Began()}); err != nil {
		s.g.log.Warn("cannot save the PCP epochs", "err", err)
	}
}

// keepIdentity writes the identity anew that was removed: at the next start clients
// would take the gateway for another one. One that was never written, or cannot be, is
// not missed.
func (s *state) keepIdentity() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.kept || s.journal.HasIdentity() {
		return
	}
	s.g.log.Warn("UPnP identity was removed from state.dir; rewriting it")
	s.save()
}

// save writes the identity; mu is held.
func (s *state) save() {
	if s.journal == nil {
		return
	}
	err := s.journal.SaveIdentity(s.id)
	if s.kept = err == nil; err != nil {
		s.g.log.Warn("cannot save the UPnP identity", "err", err)
	}
}
