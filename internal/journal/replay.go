package journal

import (
	"bufio"
	"errors"
	"io"
	"time"
)

// state is what the lines of a log amount to.
type state struct {
	leases map[uint64]*kept // by the ID of the mapping
	epochs epochs
	day    dayClock
	last   int64 // the run's clock at the last line
}

// kept is one mapping of the log.
type kept struct {
	created int64
	lease   lease
	mapping string    // see encodeMapping
	expires time.Time // its end, as portmap knows it
	written int64     // the run's clock when its end was last written
	sooner  bool      // it ends before expires, and Overdue has not said so yet
}

// dayClock tells the time of day from the run's clock, where it was ever known for
// certain in this run of the machine.
type dayClock struct {
	known bool
	ahead int64 // of the run's clock
}

// replay is a log, read from its beginning to its end or to the first bad line.
// Nothing after that counts.
type replay struct {
	state
	max       int    // mappings
	left      int    // mappings beyond max
	boot      string // the run of the machine that wrote it
	newer     bool   // it is of a version to come
	next      uint64 // number of the next line, or of the bad one
	bad       bool   // that line was not the one that must come
	confirmed uint64 // so many lines were on the disk for certain, say those after a bad one
	torn      bool   // the last line has no end
}

// damaged reports whether the log was damaged after it was written, so that
// nothing of it can be believed: the bad line may have been the end of any mapping, or
// a restriction of it. A process that is killed leaves an unfinished line at most. A
// power cut also takes or spoils lines that were not on the disk yet, in any order,
// and those alone: they are the tail.
func (p *replay) damaged(powerLost bool) bool {
	return p.bad && (!powerLost || p.next < p.confirmed)
}

// errTooLong means that a log is larger than any that this program writes.
var errTooLong = errors.New("the file is too large")

// read goes through a log of at most limit bytes.
func read(r io.Reader, maxMappings int, limit int64) (*replay, error) {
	p := &replay{max: maxMappings, state: state{leases: map[uint64]*kept{}}}
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
	if p.bad = p.bad || err != nil || l.seq != p.next || (l.seq == 0) != (l.verb == verbHeader); p.bad {
		p.confirmed = max(p.confirmed, l.synced)
		return
	}
	p.next = l.seq + 1
	p.last = max(p.last, l.at)
	p.apply(&l)
}

func (p *replay) apply(l *line) {
	switch l.verb {
	case verbHeader:
		p.boot = l.boot
	case verbClock:
		if l.inSync {
			p.day = dayClock{true, l.wall - l.at}
		}
	case verbEpochs:
		p.epochs = l.epochs
	case verbPut:
		if p.leases[l.id] == nil && len(p.leases) >= p.max {
			p.left++
			return
		}
		p.leases[l.id] = &kept{created: l.created, lease: l.lease, mapping: l.mapping}
	case verbLease:
		if k := p.leases[l.id]; k != nil {
			k.lease = l.lease
		}
	case verbEnd:
		delete(p.leases, l.id)
	}
}

// carry takes a mapping from another run of the machine to this one. How long it
// was off only the clock of the day can tell, if it is right now and was right
// then; otherwise that time counts for nothing, and the lease has what it had
// left at the last line.
func (p *replay) carry(k *kept, now Moment) {
	passed, off := now.at()-p.last, int64(0) // passed: from the old run's clock to the same on ours
	if p.day.known && now.Synced {
		off = max(0, now.Wall.UnixMilli()-p.day.ahead-p.last)
	}
	k.created = max(k.created+passed-off, -longest)
	if k.lease.end == never {
		return
	}
	if p.day.known && k.lease.until == 0 {
		k.lease.until = p.day.ahead + k.lease.end
	}
	k.lease.end = min(k.lease.end+passed, longest)
	k.settle(now)
}

// settle takes the end on the clock of the day for true where that is possible,
// and reports whether it was. An end by that clock cannot be later than the one
// without the time off: such a clock is wrong, whatever the kernel thinks.
func (k *kept) settle(now Moment) bool {
	if k.lease.until == 0 || !now.Synced {
		return false
	}
	const jitter = 1000
	end := now.at() + k.lease.until - now.Wall.UnixMilli()
	if end > k.lease.end+jitter {
		return false
	}
	k.lease = lease{end: max(min(end, k.lease.end), -longest)}
	return true
}
