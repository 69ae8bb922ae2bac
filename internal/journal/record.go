package journal

import (
	"context"
	"errors"
	"fmt"

	"portcullis/portmap"
)

// Record implements portmap.Store: it writes down which mappings are new, changed or
// renewed, and which have ended, in one write(2). When it returns nil the record
// survives the death of this process; the disk has it a second later at most.
//
// Of a mapping that is only renewed the new end is written, and when that was
// done less than ten seconds ago, with ten seconds more: what a client asks for
// in a loop then needs no line, and after a crash its lease ends up to ten
// seconds late, never early.
//
// With an error some of it may not be in the file (ErrBehind); it is kept in
// memory and written when that is possible, with everything else. A mapping that
// portmap cannot have made, or one too many, is left out with an error of its
// own.
func (j *Journal) Record(_ context.Context, changes []portmap.Change) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return ErrClosed
	}
	now := j.clock.Moment()
	var lines []string
	var left error
	final := false
	for _, c := range changes {
		text, over := "", false
		if c.New == nil {
			text, over = j.end(c.Old.ID)
		} else {
			var err error
			if text, over, err = j.take(now, c.New); err != nil {
				left = errors.Join(left, fmt.Errorf("mapping %d is not kept: %w", c.New.ID, err))
			}
		}
		if text != "" {
			lines, final = append(lines, text), final || over
		}
	}
	return errors.Join(left, j.put(now, lines, final))
}

// KeepEpochs keeps the beginnings of the epochs, both of which must be set. It is
// to be called whenever one begins. Its errors are those of Record.
func (j *Journal) KeepEpochs(e Epochs) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return ErrClosed
	}
	now := j.clock.Moment()
	// Rounded down, so that no epoch goes back by a second.
	j.epochs = epochs{now.ofRun(e.V4) - 1, now.ofRun(e.V6) - 1}
	return j.put(now, []string{epochsText(j.epochs)}, false)
}

// put appends lines to the file; where it is behind, all is written anew instead,
// which is more. final says that something has ended or is another now: a file that
// shows it as it was, and cannot be told, is removed. Then a crash loses mappings, but
// brings none back, and there is more room. mu is held.
func (j *Journal) put(now Moment, lines []string, final bool) error {
	if j.behind != nil {
		j.mend(now)
	} else if len(lines) > 0 {
		if err := j.write(now, lines); err != nil {
			j.fail(now, err)
		}
	}
	if final && j.behind != nil {
		if j.mend(now); j.behind != nil {
			j.drop(now)
			j.mend(now)
		}
	}
	if j.behind != nil {
		return fmt.Errorf("%w: %w", ErrBehind, j.behind)
	}
	return nil
}

// end returns the line for a mapping that is no more, "" if it is not known.
func (j *Journal) end(id uint64) (text string, known bool) {
	if j.live[id] == nil {
		return "", false
	}
	delete(j.live, id)
	return endText(id), true
}

// errTooMany means that there are more mappings than Config.MaxMappings.
var errTooMany = errors.New("too many mappings")

// take returns the line for one mapping, "" if none is needed, and whether it was
// known and is another now, other than by renewal.
func (j *Journal) take(now Moment, m *portmap.Mapping) (text string, changed bool, err error) {
	at := now.at()
	e := j.live[m.ID]
	if err = check(m); err == nil && e == nil && len(j.live) >= j.max {
		err = errTooMany
	}
	if err != nil {
		// What it was is not what it is: better nothing than that.
		text, changed = j.end(m.ID)
		return text, changed, err
	}
	j.buf = appendFixed(j.buf[:0], m)
	if e != nil && e.fixed == string(j.buf) {
		return e.renew(now, m), false, nil
	}
	known := e != nil
	if !known {
		e = &entry{made: min(now.ofRun(m.Created), at)}
		j.live[m.ID] = e
	}
	if !known || !e.told.Equal(m.Expires) {
		e.lease, e.written, e.late = lease{end: now.end(m)}, at, false
	}
	e.told, e.fixed = m.Expires, string(j.buf)
	return putText(m.ID, e.made, e.lease, e.fixed), known, nil
}

// end returns a mapping's end on the run's clock.
func (m Moment) end(of *portmap.Mapping) int64 {
	if of.Expires.IsZero() {
		return never
	}
	return m.ofRun(of.Expires)
}

// renew returns the line for a mapping of which only the end is another, "" if
// what was written before will do.
func (e *entry) renew(now Moment, m *portmap.Mapping) string {
	if e.told.Equal(m.Expires) {
		return ""
	}
	at, end, slack := now.at(), now.end(m), renewSlack.Milliseconds()
	e.told, e.late = m.Expires, false
	if end != never && e.lease.end != never && e.lease.until == 0 {
		if end <= e.lease.end && e.lease.end-end <= slack {
			return ""
		}
		if end > e.lease.end && at-e.written < slack {
			end += slack
		}
	}
	e.lease, e.written = lease{end: end}, at
	return leaseText(m.ID, e.lease)
}

// write appends lines in one write; nothing of them is in the file if it fails.
func (j *Journal) write(now Moment, lines []string) error {
	if stamp, need := j.stamp(now); need {
		lines = append([]string{stamp}, lines...)
	}
	b := j.buf[:0]
	for i, text := range lines {
		b = appendLine(b, j.seq+uint64(i), j.synced, now.at(), text)
	}
	if j.buf = b; cap(b) > keepBuffer {
		j.buf = nil
	}
	if j.size+int64(len(b)) > j.limit {
		return fmt.Errorf("the file has reached %d bytes", j.limit)
	}
	if n, err := j.f.Write(b); err != nil {
		if n > 0 {
			err = errors.Join(err, j.f.Truncate(j.size))
		}
		return err
	}
	j.size += int64(len(b))
	j.seq += uint64(len(lines))
	j.last = now.at()
	j.kick()
	return nil
}

// keepBuffer is how large a buffer is kept for the next record.
const keepBuffer = 64 << 10

// stamp returns the line that ties the day's clock to the run's, and whether it is
// needed: the day's clock has become right, or was set.
func (j *Journal) stamp(now Moment) (text string, need bool) {
	pair := now.Wall.UnixMilli() - now.at()
	if !now.Synced || j.paired && max(pair-j.pair, j.pair-pair) <= 1000 {
		return "", false
	}
	j.paired, j.pair = true, pair
	return clockText(now.Wall, true), true
}

func (j *Journal) kick() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}
