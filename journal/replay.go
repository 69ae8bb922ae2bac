package journal

import (
	"bufio"
	"errors"
	"io"

	"portcullis/portmap"
)

// kept is one mapping as a journal tells it.
type kept struct {
	made    int64
	lease   lease
	fixed   string
	mapping portmap.Mapping // without ID and times
}

// replay is what a journal says, read from its beginning to its end.
//
// Lines are numbered. Where numbers are missing between good lines something is
// lost, and nobody can say what: it may have been the end of any mapping there
// was, or a restriction of it. So all that was said before is forgotten and only
// what is said after counts: a mapping may be lost by damage, but none comes
// back by it. (Fail closed.)
//
// It is not damage when the machine lost power and a file system brought the
// last writes to the disk in another order. Every line says how many lines were
// on the disk for certain; a hole beyond all of those is where the journal ends.
// What follows it had not been on the disk for a second and is dropped.
type replay struct {
	max  int             // mappings
	live map[uint64]kept // by ID

	epochs     epochs
	boot       string // the run of the machine that wrote it
	last       int64  // the run's clock at the last line
	pairAt     int64  // where the run's clock and ...
	pairWall   int64  // ... that of the day stood at the same time,
	paired     bool   // if that was ever known for certain
	began      bool   // the first line was good
	newer      bool   // the first line was of another version
	next       uint64 // number of the next line
	synced     uint64 // lines that were on the disk for certain
	invalid    int    // lines since the last good one that are not
	torn       int    // those at the end of the journal
	damaged    int    // those elsewhere
	holes      int    // where numbers are missing
	lost       int    // mappings that were forgotten because of holes
	overflow   int    // mappings beyond max
	beforeHole *replay
}

// errTooLong says that a journal is larger than any that this program writes.
var errTooLong = errors.New("the file is too large")

// read goes through a journal of at most limit bytes.
func read(r io.Reader, maxMappings int, limit int64) (*replay, error) {
	p := &replay{max: maxMappings, live: map[uint64]kept{}}
	limited := &io.LimitedReader{R: r, N: limit + 1}
	in := bufio.NewReaderSize(limited, maxLine)
	for {
		text, err := in.ReadSlice('\n')
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = in.ReadSlice('\n')
			text = []byte{0} // too long to be one of ours
		}
		if err == nil {
			p.line(text)
			continue
		}
		if !errors.Is(err, io.EOF) {
			return nil, err
		}
		if limited.N == 0 {
			return nil, errTooLong
		}
		if len(text) > 0 {
			p.invalid++ // a line without its end was never written to the end
		}
		p.torn, p.invalid = p.invalid, 0
		return p, nil
	}
}

// line takes one line, with its newline.
func (p *replay) line(text []byte) {
	l, err := decodeLine(text[:len(text)-1])
	switch {
	case err != nil, l.seq < p.next, (l.seq == 0) != (l.verb == verbJournal):
		p.newer = p.newer || !p.began && errors.Is(err, errVersion)
		p.invalid++
		return
	case !p.began && l.verb != verbJournal:
		p.invalid++ // whose clock it goes by is not known
		return
	}
	if l.seq > p.next {
		p.hole()
	}
	p.damaged += p.invalid
	p.invalid = 0
	p.next = l.seq + 1
	p.synced = max(p.synced, l.synced)
	p.last = max(p.last, l.at)
	p.apply(&l)
}

// hole forgets what was said, but remembers it for a while in case that the
// journal turns out to end here.
func (p *replay) hole() {
	if p.beforeHole == nil || p.beforeHole.next < p.synced {
		before := *p
		before.beforeHole, before.invalid = nil, 0
		p.beforeHole = &before
	}
	p.holes++
	p.lost += len(p.live)
	p.live = map[uint64]kept{}
}

// cut gives what the journal says if the machine has lost power since: it ends
// at the first hole beyond what was on the disk.
func (p *replay) cut() *replay {
	before := p.beforeHole
	if before == nil || before.next < p.synced {
		return p
	}
	before.torn = int(p.next-before.next) + p.torn
	return before
}

func (p *replay) apply(l *line) {
	switch l.verb {
	case verbJournal:
		p.began, p.boot = true, l.boot
	case verbClock:
		if l.inSync {
			p.pairAt, p.pairWall, p.paired = l.at, l.wall, true
		}
	case verbEpochs:
		p.epochs = l.epochs
	case verbPut:
		if _, known := p.live[l.id]; !known && len(p.live) >= p.max {
			p.overflow++
			return
		}
		p.live[l.id] = kept{l.made, l.lease, l.fixed, l.mapping}
	case verbLease:
		if k, known := p.live[l.id]; known {
			k.lease = l.lease
			p.live[l.id] = k
		}
	case verbEnd:
		delete(p.live, l.id)
	}
}

// off gives how long the machine was off since the last line, 0 if it cannot be
// told.
func (p *replay) off(now Moment) int64 {
	if !p.paired || !now.Synced {
		return 0
	}
	return max(0, now.Wall.UnixMilli()-(p.pairWall+p.last-p.pairAt))
}

// until gives a lease's end on the clock of the day, 0 if it cannot be told.
func (p *replay) until(l lease) int64 {
	switch {
	case l.end == never:
		return 0
	case l.until != 0:
		return l.until
	case p.paired:
		return p.pairWall + l.end - p.pairAt
	}
	return 0
}
