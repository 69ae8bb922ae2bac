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
	mapping portmap.Mapping // without times
}

// replay is what a journal says, read from its beginning to its end, or to the first
// bad line: nothing after that counts.
type replay struct {
	max  int             // mappings
	live map[uint64]kept // by ID

	epochs   epochs
	boot     string // the run of the machine that wrote it
	last     int64  // the run's clock at the last line
	pairAt   int64  // where the run's clock and ...
	pairWall int64  // ... that of the day stood at the same time,
	paired   bool   // if that was ever known for certain
	newer    bool   // the first line was of another version
	next     uint64 // number of the next line, or of the bad one
	bad      bool   // a line was not the next one
	claimed  uint64 // so many lines were on the disk for certain, say those after it
	torn     bool   // the last line has no end
	overflow int    // mappings beyond max
}

// damaged reports whether the journal was damaged after it was written, so that
// nothing of it can be believed: the bad line may have been the end of any mapping, or
// a restriction of it. A process that is killed leaves an unfinished line at most. A
// power cut also takes or spoils lines that were not on the disk yet, in any order,
// and those alone.
func (p *replay) damaged(powerLost bool) bool {
	return p.bad && (!powerLost || p.next < p.claimed)
}

// errTooLong means that a journal is larger than any that this program writes.
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
		if errors.Is(err, io.EOF) && limited.N == 0 {
			err = errTooLong
		}
		if !errors.Is(err, io.EOF) {
			return p, err
		}
		p.torn = len(text) > 0
		return p, nil
	}
}

// line takes one line, with its newline.
func (p *replay) line(text []byte) {
	l, err := decodeLine(text[:len(text)-1])
	p.newer = p.newer || p.next == 0 && errors.Is(err, errVersion)
	if p.bad = p.bad || err != nil || l.seq != p.next || (l.seq == 0) != (l.verb == verbJournal); p.bad {
		p.claimed = max(p.claimed, l.synced)
		return
	}
	p.next = l.seq + 1
	p.last = max(p.last, l.at)
	p.apply(&l)
}

func (p *replay) apply(l *line) {
	switch l.verb {
	case verbJournal:
		p.boot = l.boot
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

// off returns how long the machine was off since the last line, 0 if it cannot be
// told.
func (p *replay) off(now Moment) int64 {
	if !p.paired || !now.Synced {
		return 0
	}
	return max(0, now.Wall.UnixMilli()-(p.pairWall+p.last-p.pairAt))
}

// until returns a lease's end on the clock of the day, 0 if it cannot be told.
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
