package journal

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// rewrite puts a new file with what counts in the place of the old one, whatever
// that was. At every instant a file of the journal's name holds all that was
// recorded: the new one takes the name when it is on the disk. Records go on
// meanwhile, to the old file and into delta. work is held, and nothing else.
func (j *Journal) rewrite() error {
	if err := j.disk.Return(); err != nil {
		return err
	}
	j.mu.Lock()
	now := j.clock.Moment()
	notes := j.everything(now)
	j.moving, j.delta = true, nil
	j.mu.Unlock()
	f, err := j.disk.Create(newFile)
	if err != nil {
		j.abandon(nil)
		return err
	}
	w := &fresh{f: f, claim: uint64(len(notes))}
	if err = w.add(notes); err == nil {
		err = j.catchDelta(w, now)
	}
	if err != nil {
		j.abandon(f)
		return err
	}
	if err := j.disk.Sync(); err != nil {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.failed(j.clock.Moment(), err)
		return err
	}
	return nil
}

// everything gives the lines of a new file. mu is held.
func (j *Journal) everything(now Moment) []note {
	at := now.at()
	wall, inSync := now.Wall, now.Synced
	if !inSync && j.paired { // it was right, and still can be told
		wall, inSync = time.UnixMilli(at+j.pair), true
	}
	notes := make([]note, 0, len(j.live)+2)
	notes = append(notes, note{at, headText(version, j.boot)}, note{at, clockText(wall, inSync)})
	if j.epochs != (epochs{}) {
		notes = append(notes, note{at, epochsText(j.epochs)})
	}
	for _, id := range slices.Sorted(maps.Keys(j.live)) {
		e := j.live[id]
		text := putText(id, e.made, e.lease, e.fixed)
		j.measure(e, text)
		notes = append(notes, note{at, text})
	}
	return notes
}

// measure keeps count of the bytes that a new file would have. mu is held.
func (j *Journal) measure(e *entry, text string) {
	size := int64(len(text)) + headSize
	j.bytes += size - e.size
	e.size = size
}

// catchDelta adds what was recorded meanwhile and gives the new file the name. It
// does not keep Record waiting for the disk, unless there is no end of records.
func (j *Journal) catchDelta(w *fresh, now Moment) error {
	for round := 0; ; round++ {
		j.mu.Lock()
		delta := j.delta
		j.delta = nil
		if len(delta) == 0 || round == 3 {
			old, err := j.takeOver(w, now, delta)
			j.mu.Unlock()
			if old != nil {
				_ = old.Close() // it has no name any more
			}
			return err
		}
		j.mu.Unlock()
		if err := w.add(delta); err != nil {
			return err
		}
	}
}

// takeOver makes the new file the journal and gives the old one. mu is held.
func (j *Journal) takeOver(w *fresh, now Moment, delta []note) (old file, err error) {
	if len(delta) > 0 {
		if err := w.add(delta); err != nil {
			return nil, err
		}
	}
	if err := j.disk.Rename(newFile, journalFile); err != nil {
		j.failed(now, err) // nobody knows which file has the name now
		return nil, err
	}
	if j.behind != nil {
		j.log.Info("journal is written again", "mappings", len(j.live))
	}
	old, j.f = j.f, w.f
	j.size, j.seq, j.synced = w.size, w.seq, w.seq
	j.last = max(j.last, now.at())
	if now.Synced || !j.paired {
		j.paired, j.pair = now.Synced, now.Wall.UnixMilli()-now.at()
	}
	j.behind, j.stale, j.lost, j.retryAt = nil, false, false, 0
	j.moving = false
	return old, nil
}

// abandon gives up a new file.
func (j *Journal) abandon(f file) {
	if f != nil {
		_ = f.Close()
	}
	_ = j.disk.Remove(newFile)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.moving, j.delta = false, nil
}

// fresh is a file that is being written.
type fresh struct {
	f     file
	seq   uint64
	size  int64
	claim uint64 // lines that are on the disk for certain once the file has its name
	buf   []byte
}

// add writes lines, and waits until they are on the disk.
func (w *fresh) add(notes []note) error {
	for _, n := range notes {
		w.buf = appendLine(w.buf, w.seq, w.claim, n.at, n.text)
		w.seq++
		if len(w.buf) >= keepBuffer {
			if err := w.flush(); err != nil {
				return err
			}
		}
	}
	if err := w.flush(); err != nil {
		return err
	}
	return w.f.Sync()
}

func (w *fresh) flush() error {
	n, err := w.f.Write(w.buf)
	w.size += int64(n)
	w.buf = w.buf[:0]
	if err != nil {
		return fmt.Errorf("write the new journal: %w", err)
	}
	return nil
}
