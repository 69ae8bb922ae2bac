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
	var lines []line
	var refused error
	revokes := false
	for _, c := range changes {
		l, less, err := j.change(now, c)
		if err != nil {
			refused = errors.Join(refused, fmt.Errorf("mapping %d is not kept: %w", c.New.ID, err))
		}
		if l.verb != "" {
			lines, revokes = append(lines, l), revokes || less
		}
	}
	return errors.Join(refused, j.append(now, lines, revokes))
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
	return j.append(now, []line{{verb: verbEpochs, epochs: j.epochs}}, false)
}

// errTooMany means that there are more mappings than Config.MaxMappings.
var errTooMany = errors.New("too many mappings")

// change returns the line for a change of one mapping, none (without a verb) if it needs
// none, and whether it revokes what the file says: the mapping has ended, or is
// another now, other than by renewal.
func (j *Journal) change(now Moment, c portmap.Change) (l line, revokes bool, err error) {
	m := c.New
	if m == nil {
		l, revokes = j.end(c.Old.ID)
		return l, revokes, nil
	}
	k := j.leases[m.ID]
	known := k != nil
	if err = check(m); err == nil && !known && len(j.leases) >= j.max {
		err = errTooMany
	}
	if err != nil {
		// What it was is not what it is: better nothing than that.
		l, revokes = j.end(m.ID)
		return l, revokes, err
	}
	text := encodeMapping(m)
	if known && k.mapping == text {
		return k.renew(now, m), false, nil
	}
	if !known {
		k = &kept{created: min(now.ofRun(m.Created), now.at())}
		j.leases[m.ID] = k
	}
	if !known || !k.expires.Equal(m.Expires) {
		k.lease, k.written, k.sooner = lease{end: now.end(m)}, now.at(), false
	}
	k.expires, k.mapping = m.Expires, text
	return k.line(m.ID), known, nil
}

func (k *kept) line(id uint64) line {
	return line{verb: verbPut, id: id, created: k.created, lease: k.lease, mapping: k.mapping}
}

// end returns the line for a mapping that is no more, none if it is not known.
func (j *Journal) end(id uint64) (l line, known bool) {
	if j.leases[id] == nil {
		return line{}, false
	}
	delete(j.leases, id)
	return line{verb: verbEnd, id: id}, true
}

// end returns a mapping's end on the run's clock.
func (m Moment) end(of *portmap.Mapping) int64 {
	if of.Expires.IsZero() {
		return never
	}
	return m.ofRun(of.Expires)
}

// renew returns the line for a mapping of which only the end is another, none if
// what was written before will do.
func (k *kept) renew(now Moment, m *portmap.Mapping) line {
	if k.expires.Equal(m.Expires) {
		return line{}
	}
	end, slack := now.end(m), renewSlack.Milliseconds()
	k.expires, k.sooner = m.Expires, false
	if end != never && k.lease.end != never && k.lease.until == 0 {
		if end <= k.lease.end && k.lease.end-end <= slack {
			return line{}
		}
		if end > k.lease.end && now.at()-k.written < slack {
			end += slack
		}
	}
	k.lease, k.written = lease{end: end}, now.at()
	return line{verb: verbLease, id: m.ID, lease: k.lease}
}

// append appends lines to the file; while that is behind, it is written anew instead.
// One that cannot be, and still says what the lines revoke, is removed: then a crash
// loses mappings, but brings none back, and there is more room. mu is held.
func (j *Journal) append(now Moment, lines []line, revokes bool) error {
	if j.behind != nil {
		j.catchUp(now)
	} else if len(lines) > 0 {
		if err := j.write(now, lines); err != nil {
			j.fail(now, err)
		}
	}
	j.stir()
	if revokes && j.behind != nil {
		if j.catchUp(now); j.behind != nil {
			j.remove(now)
			j.catchUp(now)
		}
	}
	if j.behind != nil {
		return fmt.Errorf("%w: %w", ErrBehind, j.behind)
	}
	return nil
}

// write appends lines in one write; nothing of them is in the file if it fails.
func (j *Journal) write(now Moment, lines []line) error {
	if ahead := now.ahead(); now.Synced && (!j.day.known || max(ahead-j.day.ahead, j.day.ahead-ahead) > 1000) {
		lines = append([]line{j.clockLine(now)}, lines...) // it has become right, or was set
	}
	var b []byte
	for i := range lines {
		l := &lines[i]
		l.seq, l.synced, l.at = j.seq+uint64(i), j.synced, now.at()
		b = l.append(b)
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
	return nil
}

// clockLine returns the line that ties the day's clock to the run's. Where that is not
// right now, and was, it can still be told.
func (j *Journal) clockLine(now Moment) line {
	if now.Synced {
		j.day = dayClock{true, now.ahead()}
	}
	if !j.day.known {
		return line{verb: verbClock, wall: now.Wall.UnixMilli()}
	}
	return line{verb: verbClock, wall: now.at() + j.day.ahead, inSync: true}
}
