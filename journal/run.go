package journal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"
)

// Run brings what was recorded to the disk, at most once a second; makes the
// file small again; notes the time while there are leases; and mends what could
// not be written. It returns the context's error when that ends.
func (j *Journal) Run(ctx context.Context) error {
	pause := time.NewTimer(noteEvery)
	defer pause.Stop()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	noted := time.Now()
	for {
		pause.Reset(noteEvery - time.Since(noted))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-look.C:
			j.look()
			continue
		case <-pause.C:
		case <-j.wake:
			// What comes in within the next second shares the sync.
			pause.Reset(syncEvery)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-pause.C:
			}
		}
		j.tick()
		noted = time.Now()
	}
}

// look finds out whether what was written would be read by the next run. A file that
// was unlinked takes everything without an error, so nothing else tells.
func (j *Journal) look() {
	j.work.Lock()
	defer j.work.Unlock()
	j.mu.Lock()
	f, idle := j.f, j.closed || j.behind != nil || j.f == nil
	j.mu.Unlock()
	if idle {
		return
	}
	err := j.disk.Lost(journalFile, f)
	if err == nil {
		return
	}
	j.log.Warn("the state directory has changed under us, the journal is written anew", "error", err)
	j.mu.Lock()
	j.behind, j.lost, j.retry = err, true, retryFirst.Milliseconds()
	j.mu.Unlock()
	if err := j.rewrite(); err != nil {
		j.fallBehind(err)
	}
}

// tick does what is due.
func (j *Journal) tick() {
	j.work.Lock()
	defer j.work.Unlock()
	j.noteTime()
	j.sync()
	j.mu.Lock()
	now := j.clock.Moment()
	behind := j.behind != nil
	full := j.size-j.bytes >= max(deadAllowed, j.bytes)
	due := !j.closed && (behind || full) && now.at() >= j.retryAt
	if behind {
		j.kick() // to come again
	}
	j.mu.Unlock()
	if !due {
		return
	}
	if err := j.rewrite(); err != nil {
		j.fallBehind(err)
	}
}

// noteTime writes the time down when nothing else has been written for long, so
// that after a power cut no lease gets back more than that.
func (j *Journal) noteTime() {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := j.clock.Moment()
	if j.closed || j.behind != nil || len(j.live) == 0 || now.at()-j.last < noteEvery.Milliseconds()*9/10 {
		return
	}
	if n, need := j.stamp(now); !need {
		n = note{now.at(), clockText(now.Wall, now.Synced)}
		if err := j.write(now, []note{n}); err != nil {
			j.failed(now, err)
		}
	}
}

// sync brings to the disk what was written until now, without keeping Record
// from writing. work is held.
func (j *Journal) sync() {
	j.mu.Lock()
	f, seq := j.f, j.seq
	idle := j.closed || j.behind != nil || seq == j.synced
	j.mu.Unlock()
	if idle {
		return
	}
	err := f.Sync()
	j.mu.Lock()
	defer j.mu.Unlock()
	if err != nil {
		// The kernel forgets what it could not write: the file is not to be
		// trusted from here on.
		j.failed(j.clock.Moment(), err)
		return
	}
	j.synced = seq
}

// failed remembers that the file does not hold what it should. mu is held.
func (j *Journal) failed(now Moment, err error) {
	if j.behind == nil {
		j.log.Error("journal cannot be written, mappings would not survive a crash", "error", err)
		j.retry, j.retryAt = retryFirst.Milliseconds(), now.at()
		if err := j.disk.Mark(journalFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
			j.log.Debug("journal cannot be marked as incomplete", "error", err)
		}
	}
	j.behind = err
	j.kick()
}

// catchUp writes everything anew if the file is behind, unless that was tried a
// moment ago or another goroutine does it.
func (j *Journal) catchUp() error {
	if j.work.TryLock() {
		defer j.work.Unlock()
		j.mu.Lock()
		due := j.behind != nil && j.clock.Moment().at() >= j.retryAt
		j.mu.Unlock()
		if due {
			if err := j.rewrite(); err != nil {
				j.fallBehind(err)
			}
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.behind != nil {
		return fmt.Errorf("%w: %w", ErrBehind, j.behind)
	}
	return nil
}

// fallBehind takes note of a rewrite that failed. A file that is whole is gone on
// with. One that shows what has ended is removed: a crash then loses mappings,
// but brings none back. work is held.
func (j *Journal) fallBehind(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := j.clock.Moment()
	if j.behind == nil && j.f != nil && !j.lost {
		j.log.Warn("journal cannot be compacted", "error", err)
		j.retryAt = now.at() + noteEvery.Milliseconds()
		return
	}
	if j.lost { // look had no doubt that it could be mended
		j.lost, j.behind = false, nil
	}
	j.failed(now, err)
	j.retryAt = now.at() + j.retry
	j.retry = min(2*j.retry, retryMost.Milliseconds())
	if !j.stale {
		return
	}
	switch err := j.disk.Remove(journalFile); {
	case err == nil:
		_ = j.disk.Sync()
		if j.f != nil {
			_ = j.f.Close()
			j.f = nil
		}
		j.stale, j.retryAt = false, now.at() // there is more room now
	case errors.Is(err, fs.ErrNotExist):
		j.stale = false
	default:
		j.log.Debug("journal that is out of date cannot be removed", "error", err)
	}
}

// Overdue gives the mappings that have ended while the machine was off, once,
// and those that end earlier than Open said because it was: each when its time
// has come. What that is shows only when the kernel knows the time of day, which
// on many gateways is some minutes after Open. It is to be called from time to
// time, every few seconds; the caller ends these mappings.
func (j *Journal) Overdue() []uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return nil
	}
	now := j.clock.Moment()
	var over []uint64
	var notes []note
	for _, id := range slices.Sorted(maps.Keys(j.live)) {
		e := j.live[id]
		if e.settle(now) {
			e.late = true
			notes = append(notes, note{now.at(), leaseText(id, e.lease)})
		}
		if e.late && e.lease.end <= now.at() {
			e.late = false
			over = append(over, id)
		}
	}
	_ = j.put(now, notes) // it is logged, and mended later
	return over
}

// Close brings everything to the disk and gives the directory up. Run must have
// ended, or end at the same time.
func (j *Journal) Close() error {
	j.work.Lock()
	defer j.work.Unlock()
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return nil
	}
	behind := j.behind != nil
	j.mu.Unlock()
	if behind {
		if err := j.rewrite(); err != nil {
			j.fallBehind(err)
		}
	}
	j.sync()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.closed = true
	var err error
	if j.behind != nil {
		err = fmt.Errorf("%w: %w", ErrBehind, j.behind)
	}
	if j.f != nil {
		err = errors.Join(err, j.f.Close())
	}
	return errors.Join(err, j.disk.Close())
}
