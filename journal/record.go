package journal

import (
	"errors"
	"fmt"

	"portcullis/portmap"
)

// Record writes down which mappings are new, changed or renewed, and the IDs of
// those that have ended, in one write(2). When it returns nil the record
// survives the death of this process; the disk has it a second later at most. An
// ID that is in both has ended.
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
func (j *Journal) Record(put []portmap.Mapping, ended []uint64) error {
	behind, left := j.record(put, ended)
	if behind {
		return errors.Join(left, j.catchUp())
	}
	return left
}

// record says whether the file was behind before, so that nothing was written.
func (j *Journal) record(put []portmap.Mapping, ended []uint64) (behind bool, left error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return false, ErrClosed
	}
	now := j.clock.Moment()
	notes, changed, left := j.take(now, put, ended)
	behind = j.behind != nil
	err := j.put(now, notes)
	j.stale = j.stale || changed && j.behind != nil
	return behind, errors.Join(left, err)
}

// put writes notes to the file, if it is not behind, and to the new one that is
// being written, if there is one. mu is held.
func (j *Journal) put(now Moment, notes []note) error {
	if len(notes) == 0 {
		return nil
	}
	if j.moving {
		j.delta = append(j.delta, notes...)
	}
	if j.behind != nil {
		return nil
	}
	if err := j.write(now, notes); err != nil {
		j.failed(now, err)
		return fmt.Errorf("%w: %w", ErrBehind, err)
	}
	return nil
}

// KeepEpochs keeps the beginnings of the epochs, both of which must be set. It is
// to be called whenever one begins. Its errors are those of Record.
func (j *Journal) KeepEpochs(e Epochs) error {
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return ErrClosed
	}
	now := j.clock.Moment()
	// Rounded down, so that no epoch goes back by a second.
	j.epochs = epochs{now.ofRun(e.V4) - 1, now.ofRun(e.V6) - 1}
	behind := j.behind != nil
	err := j.put(now, []note{{now.at(), epochsText(j.epochs)}})
	j.mu.Unlock()
	if behind {
		return j.catchUp()
	}
	return err
}

// take brings the live set up to date and gives the lines that say so, ends
// first: a part of them that is written must never show two mappings in one
// place. It says whether anything has ended or changed, other than by renewal.
func (j *Journal) take(now Moment, put []portmap.Mapping, ended []uint64) (notes []note, changed bool, left error) {
	at := now.at()
	var gone map[uint64]bool
	for _, id := range ended {
		if gone == nil {
			gone = make(map[uint64]bool, len(ended))
		}
		gone[id] = true
		if e := j.live[id]; e != nil {
			delete(j.live, id)
			j.bytes -= e.size
			notes, changed = append(notes, note{at, endText(id)}), true
		}
	}
	for i := range put {
		m := &put[i]
		if gone[m.ID] {
			continue
		}
		text, other, err := j.takeOne(now, m)
		if err != nil {
			left = errors.Join(left, fmt.Errorf("mapping %d is not kept: %w", m.ID, err))
		}
		if text != "" {
			notes, changed = append(notes, note{at, text}), changed || other
		}
	}
	return notes, changed, left
}

// errTooMany says that there are more mappings than Config.MaxMappings.
var errTooMany = errors.New("too many mappings")

// takeOne gives the line for one mapping, "" if none is needed, and whether it
// was known and has changed.
func (j *Journal) takeOne(now Moment, m *portmap.Mapping) (text string, changed bool, err error) {
	if m.ID == 0 {
		return "", false, errNonsense
	}
	at, end := now.at(), never
	if !m.Expires.IsZero() {
		end = now.ofRun(m.Expires)
	}
	e := j.live[m.ID]
	if err = check(m); err != nil || e == nil && len(j.live) >= j.max {
		if err == nil {
			err = errTooMany
		}
		if e == nil {
			return "", false, err
		}
		// What it was is not what it is: better nothing than that.
		delete(j.live, m.ID)
		j.bytes -= e.size
		return endText(m.ID), true, err
	}
	fixed := appendFixed(j.buf[:0], m)
	j.buf = fixed
	if e != nil && e.fixed == string(fixed) {
		return j.renew(e, m.ID, at, end), false, nil
	}
	known := e != nil
	if !known {
		e = &entry{made: min(now.ofRun(m.Created), at), told: -longest}
		j.live[m.ID] = e
	}
	if !isSame(e.told, end) {
		e.lease, e.written, e.late = lease{end: end}, at, false
	}
	e.told, e.fixed = end, string(fixed)
	text = putText(m.ID, e.made, e.lease, e.fixed)
	j.measure(e, text)
	return text, known, nil
}

// isSame says whether two ends are the same, but for the time between the
// readings of two clocks: then nothing was renewed.
func isSame(a, b int64) bool {
	const jitter = 50
	return a == b || max(a-b, b-a) <= jitter && a != never && b != never
}

// headSize is about what the head of a line needs, with the newline.
const headSize = 36

// renew gives the line for a mapping of which only the end is another, "" if
// what was written before will do.
func (j *Journal) renew(e *entry, id uint64, at, end int64) string {
	if isSame(e.told, end) {
		return ""
	}
	slack := renewSlack.Milliseconds()
	e.told, e.late = end, false
	if end != never && e.lease.end != never && e.lease.until == 0 {
		if end <= e.lease.end && e.lease.end-end <= slack {
			return ""
		}
		if end > e.lease.end && at-e.written < slack {
			end += slack
		}
	}
	e.lease, e.written = lease{end: end}, at
	return leaseText(id, e.lease)
}

// write appends notes in one write; nothing of them is in the file if it fails.
func (j *Journal) write(now Moment, notes []note) error {
	if stamp, need := j.stamp(now); need {
		notes = append([]note{stamp}, notes...)
	}
	b := j.buf[:0]
	for i, n := range notes {
		b = appendLine(b, j.seq+uint64(i), j.synced, n.at, n.text)
	}
	j.buf = b
	if cap(b) > keepBuffer {
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
	j.seq += uint64(len(notes))
	j.last = notes[len(notes)-1].at
	j.kick()
	return nil
}

// keepBuffer is how large a buffer is kept for the next record.
const keepBuffer = 64 << 10

// stamp gives the line that ties the day's clock to the run's, and whether it is
// needed: the day's clock has become right, or was set.
func (j *Journal) stamp(now Moment) (note, bool) {
	pair := now.Wall.UnixMilli() - now.at()
	if !now.Synced || j.paired && max(pair-j.pair, j.pair-pair) <= 1000 {
		return note{}, false
	}
	j.paired, j.pair = true, pair
	return note{now.at(), clockText(now.Wall, true)}, true
}

func (j *Journal) kick() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}
