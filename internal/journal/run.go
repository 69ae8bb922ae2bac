package journal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"portcullis/internal/pace"
)

// Run brings what was recorded to the disk, at most once a second; makes the
// file small again; notes the time while there are leases; and mends what could
// not be written. It returns the context's error when that ends.
func (j *Journal) Run(ctx context.Context) error {
	due, armed := time.NewTimer(syncEvery), true
	defer due.Stop()
	look := time.NewTimer(pace.Until(lookEvery))
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-j.written:
		case <-look.C:
			look.Reset(pace.Until(lookEvery))
			j.Look()
			if !armed {
				j.tick()
			}
		case <-due.C:
			armed = false
			j.tick()
		}
		if !armed && j.waits() {
			armed = true
			due.Reset(syncEvery)
		}
	}
}

// waits reports whether something is to be done within the second.
func (j *Journal) waits() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return !j.closed && (j.behind != nil || j.seq != j.synced)
}

// Look finds out whether what was written would be read by the next run, and writes it
// anew where it would not. A file that was unlinked takes everything without an error.
func (j *Journal) Look() {
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
	if err := j.rewrite(now); err != nil {
		j.fail(now, err)
	}
}

// tick does what is due.
func (j *Journal) tick() {
	j.sync()
	j.mu.Lock()
	defer j.mu.Unlock()
	now := j.clock.Moment()
	switch {
	case j.closed:
	case j.behind != nil:
		j.catchUp(now)
	case j.size >= 2*j.fresh+deadAllowed && now.at() >= j.retryAt:
		if err := j.rewrite(now); err != nil && j.behind == nil {
			j.log.Warn("cannot compact the journal", "err", err)
			j.retryAt = now.at() + noteEvery.Milliseconds()
		}
	case len(j.leases) > 0 && now.at()-j.last >= (noteEvery-lookEvery).Milliseconds():
		// So that after a power cut no lease gets back more than that.
		_ = j.append(now, []line{j.clockLine(now)}, false) // it is logged, and mended later
	}
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

// rewrite puts a new file with a snapshot in the place of the old one, whatever
// that was. With an error the old one goes on, or behind says why it cannot. mu is
// held.
func (j *Journal) rewrite(now Moment) error {
	b, n := j.snapshot(now)
	f, err := replace(j.disk, journalFile, b)
	if f == nil {
		return err
	}
	if j.f != nil {
		_ = j.f.Close() // it has no name any more
	}
	j.f, j.size, j.fresh, j.seq, j.synced = f, int64(len(b)), int64(len(b)), n, n
	j.last = max(j.last, now.at())
	if j.behind, j.retryAt = nil, 0; err != nil {
		j.fail(now, err)
	}
	return err
}

// snapshot returns all that the log has to say, and in how many lines. They are on the
// disk before the file has its name. mu is held.
func (j *Journal) snapshot(now Moment) (b []byte, lines uint64) {
	n := uint64(len(j.leases) + 2) // a header and the clock
	if j.epochs != (epochs{}) {
		n++
	}
	b = make([]byte, 0, max(j.fresh, int64(len(j.leases))*usualLine))
	add := func(l line) {
		l.seq, l.synced, l.at = lines, n, now.at()
		b = l.append(b)
		lines++
	}
	add(line{verb: verbHeader, version: version, boot: j.boot})
	add(j.clockLine(now))
	if j.epochs != (epochs{}) {
		add(line{verb: verbEpochs, epochs: j.epochs})
	}
	for _, id := range j.ids() {
		add(j.leases[id].line(id))
	}
	return b, n
}

// fail remembers that the file does not say what it should, and marks it so. mu is
// held.
func (j *Journal) fail(now Moment, err error) {
	if j.behind == nil {
		j.log.Error("cannot write the journal; mappings would not survive a crash", "err", err)
		j.retryAt = now.at()
		if err := j.disk.Mark(journalFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
			j.log.Debug("cannot mark the journal as incomplete", "err", err)
		}
	}
	j.behind = err
	j.stir()
}

// stir has Run do what is due within the second.
func (j *Journal) stir() {
	select {
	case j.written <- struct{}{}:
	default:
	}
}

// catchUp writes everything anew if the file is behind, unless that was tried a moment
// ago. mu is held.
func (j *Journal) catchUp(now Moment) {
	if j.behind == nil || now.at() < j.retryAt {
		return
	}
	if err := j.rewrite(now); err != nil {
		j.behind, j.retryAt = err, now.at()+retryEvery.Milliseconds()
		return
	}
	j.log.Info("writing the journal again", "mappings", len(j.leases))
}

// remove removes the file. mu is held.
func (j *Journal) remove(now Moment) {
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
// on many gateways is some minutes after Open. While there are more of them, which more
// reports, it is to be called again, every few seconds; the caller ends these mappings.
func (j *Journal) Overdue() (over []uint64, more bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return nil, false
	}
	now := j.clock.Moment()
	var lines []line
	for _, id := range j.ids() {
		k := j.leases[id]
		if k.settle(now) {
			k.sooner = true
			lines = append(lines, line{verb: verbLease, id: id, lease: k.lease})
		}
		if k.sooner && k.lease.end <= now.at() {
			k.sooner = false
			over = append(over, id)
		}
		more = more || k.sooner || k.lease.until != 0
	}
	_ = j.append(now, lines, false) // it is logged, and mended later
	return over, more
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
	j.catchUp(now)
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
