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
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed || j.behind != nil {
		return
	}
	err := j.disk.Lost(journalFile, j.f)
	if err == nil {
		return
	}
	j.log.Warn("state directory was changed; rewriting the journal", "err", err)
	now := j.clock.Moment()
	if err := j.rewrite(now); err != nil && j.behind == nil {
		j.fail(now, err)
	}
}

// tick does what is due.
func (j *Journal) tick() {
	j.noteTime()
	j.sync()
	j.mu.Lock()
	defer j.mu.Unlock()
	now := j.clock.Moment()
	switch {
	case j.closed:
	case j.behind != nil:
		if j.mend(now); j.behind != nil {
			j.kick() // to come again
		}
	case j.size >= 2*j.fresh+deadAllowed && now.at() >= j.retryAt:
		if err := j.rewrite(now); err != nil && j.behind == nil {
			j.log.Warn("cannot compact the journal", "err", err)
			j.retryAt = now.at() + noteEvery.Milliseconds()
		}
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
	text, need := j.stamp(now)
	if !need {
		text = clockText(now.Wall, now.Synced)
	}
	_ = j.put(now, []string{text}, false) // it is logged, and mended later
}

// sync brings to the disk what was written until now, without keeping Record
// from writing.
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
	switch {
	case f != j.f: // replaced meanwhile, or closed
	case err != nil:
		// The kernel forgets what it could not write: the file is not to be
		// trusted from here on.
		j.fail(j.clock.Moment(), err)
	default:
		j.synced = seq
	}
}

// rewrite puts a new file with what counts in the place of the old one, whatever
// that was. With an error the old one goes on, or behind says why it cannot. mu is
// held.
func (j *Journal) rewrite(now Moment) error {
	lines := j.everything(now)
	n := uint64(len(lines))
	var b []byte
	for i, text := range lines {
		// They are on the disk before the file has its name.
		b = appendLine(b, uint64(i), n, now.at(), text)
	}
	f, err := replace(j.disk, journalFile, b)
	if f == nil {
		return err
	}
	if j.f != nil {
		_ = j.f.Close() // it has no name any more
	}
	j.f, j.size, j.fresh, j.seq, j.synced = f, int64(len(b)), int64(len(b)), n, n
	j.last = max(j.last, now.at())
	if now.Synced || !j.paired {
		j.paired, j.pair = now.Synced, now.Wall.UnixMilli()-now.at()
	}
	if j.behind, j.retryAt = nil, 0; err != nil {
		j.fail(now, err)
	}
	return err
}

// everything returns the lines of a new file. mu is held.
func (j *Journal) everything(now Moment) []string {
	wall, inSync := now.Wall, now.Synced
	if !inSync && j.paired { // it was right, and still can be told
		wall, inSync = time.UnixMilli(now.at()+j.pair), true
	}
	lines := make([]string, 0, len(j.live)+3)
	lines = append(lines, headText(version, j.boot), clockText(wall, inSync))
	if j.epochs != (epochs{}) {
		lines = append(lines, epochsText(j.epochs))
	}
	for _, id := range slices.Sorted(maps.Keys(j.live)) {
		e := j.live[id]
		lines = append(lines, putText(id, e.made, e.lease, e.fixed))
	}
	return lines
}

// fail remembers that the file does not hold what it should, and marks it so. mu is
// held.
func (j *Journal) fail(now Moment, err error) {
	if j.behind == nil {
		j.log.Error("cannot write the journal; mappings would not survive a crash", "err", err)
		j.retry, j.retryAt = retryFirst.Milliseconds(), now.at()
		if err := j.disk.Mark(journalFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
			j.log.Debug("cannot mark the journal as incomplete", "err", err)
		}
	}
	j.behind = err
	j.kick()
}

// mend writes everything anew if the file is behind, unless that was tried a moment
// ago. mu is held.
func (j *Journal) mend(now Moment) {
	if j.behind == nil || now.at() < j.retryAt {
		return
	}
	if err := j.rewrite(now); err != nil {
		j.behind, j.retryAt = err, now.at()+j.retry
		j.retry = min(2*j.retry, retryMost.Milliseconds())
		return
	}
	j.log.Info("writing the journal again", "mappings", len(j.live))
}

// drop removes the file. mu is held.
func (j *Journal) drop(now Moment) {
	if err := j.disk.Remove(journalFile); err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			j.log.Debug("cannot remove an outdated journal", "err", err)
		}
		return
	}
	_ = j.disk.Sync()
	if j.f != nil {
		_ = j.f.Close()
		j.f = nil
	}
	j.retryAt = now.at() // there is more room now
}

// Overdue returns the mappings that have ended while the machine was off, once,
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
	var lines []string
	for _, id := range slices.Sorted(maps.Keys(j.live)) {
		e := j.live[id]
		if e.settle(now) {
			e.late = true
			lines = append(lines, leaseText(id, e.lease))
		}
		if e.late && e.lease.end <= now.at() {
			e.late = false
			over = append(over, id)
		}
	}
	_ = j.put(now, lines, false) // it is logged, and mended later
	return over
}

// Close brings everything to the disk and gives the directory up.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return nil
	}
	now := j.clock.Moment()
	if j.behind == nil && j.seq != j.synced {
		if err := j.f.Sync(); err != nil {
			j.fail(now, err)
		}
	}
	j.retryAt = 0
	j.mend(now)
	j.closed = true
	var err error
	if j.behind != nil {
		err = fmt.Errorf("%w: %w", ErrBehind, j.behind)
	}
	if j.f != nil {
		err = errors.Join(err, j.f.Close())
		j.f = nil
	}
	return errors.Join(err, j.disk.Close())
}
