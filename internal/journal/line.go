package journal

import (
	"errors"
	"hash/crc32"
	"slices"
	"strconv"
	"time"

	"portcullis/portmap"
)

// A journal is lines of text. Each begins with
//
//	CRC SEQ/SYNCED AT VERB
//
// the CRC-32C of what follows it on the line, as 8 hexadecimal digits; the
// number of the line; how many lines were on the disk for certain when it was
// written; and the run's clock in seconds. The verbs:
//
//	journal version=3 boot=ID          the first line, and only that
//	clock wall=TIME sync=yes|no        what the time of day was
//	epochs v4=S v6=S                   when they began
//	put id=N made=S end=S MAPPING      the mapping is, and is like this
//	lease id=N end=S                   the same, with another end
//	end id=N                           the mapping is no more
//
// There is one way to write each line, and any other is refused.
const (
	maxLine = 8192 // with its newline; the longest that is written has about 2,800 bytes
	version = "3"
)

// versions are what is read: a line of an earlier one says less, and nothing otherwise.
var versions = []string{"1", "2", version}

type verb uint8

const (
	verbJournal verb = iota + 1
	verbClock
	verbEpochs
	verbPut
	verbLease
	verbEnd
)

var (
	errChecksum = errors.New("the checksum is wrong")
	errForm     = errors.New("the line is malformed")
	errVersion  = errors.New("written by another version")
)

// lease is how long a mapping lasts.
type lease struct {
	end int64 // on the run's clock, or never
	// until is the same on the clock of the day, but only where the machine was
	// off for nobody knows how long, which makes end a guess; else 0.
	until int64
}

// epochs are Epochs on the run's clock.
type epochs struct{ v4, v6 int64 }

// line is one line, decoded.
type line struct {
	seq, synced uint64
	at          int64
	verb        verb

	version, boot string // journal

	wall   int64 // clock
	inSync bool
	epochs epochs

	id      uint64 // put, lease, end
	made    int64
	lease   lease
	mapping portmap.Mapping // put, without times
	fixed   string          // put: the mapping as it is written
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendLine adds one line with its head; text is from one of the functions below.
func appendLine(b []byte, seq, synced uint64, at int64, text string) []byte {
	start := len(b)
	b = append(b, "00000000 "...)
	b = strconv.AppendUint(b, seq, 10)
	b = append(b, '/')
	b = strconv.AppendUint(b, synced, 10)
	b = append(b, ' ')
	b = appendTime(b, at)
	b = append(b, ' ')
	b = append(b, text...)
	const hex = "0123456789abcdef"
	sum := crc32.Checksum(b[start+9:], castagnoli)
	for i := range 8 {
		b[start+i] = hex[sum>>(28-4*i)&15]
	}
	return append(b, '\n')
}

func headText(version, boot string) string {
	return "journal version=" + version + " boot=" + orDash(boot)
}

func clockText(wall time.Time, inSync bool) string {
	return "clock wall=" + wallText(wall.UnixMilli()) + " sync=" + map[bool]string{true: "yes", false: "no"}[inSync]
}

func epochsText(e epochs) string {
	return string(appendTime(append(appendTime([]byte("epochs v4="), e.v4), " v6="...), e.v6))
}

func putText(id uint64, made int64, l lease, fixed string) string {
	b := append(make([]byte, 0, len(fixed)+80), "put id="...)
	b = strconv.AppendUint(b, id, 10)
	b = appendTime(append(b, " made="...), made)
	b = append(appendLease(b, l), ' ')
	return string(append(b, fixed...))
}

func leaseText(id uint64, l lease) string {
	b := strconv.AppendUint(append(make([]byte, 0, 64), "lease id="...), id, 10)
	return string(appendLease(b, l))
}

func endText(id uint64) string { return "end id=" + strconv.FormatUint(id, 10) }

func appendLease(b []byte, l lease) []byte {
	b = append(b, " end="...)
	if l.end == never {
		return append(b, "never"...)
	}
	b = appendTime(b, l.end)
	if l.until != 0 {
		b = append(append(b, " until="...), wallText(l.until)...)
	}
	return b
}

// appendTime writes milliseconds as seconds.
func appendTime(b []byte, t int64) []byte {
	if t < 0 {
		b, t = append(b, '-'), -t
	}
	b = append(strconv.AppendInt(b, t/1000, 10), '.')
	rest := t % 1000
	return append(b, byte('0'+rest/100), byte('0'+rest/10%10), byte('0'+rest%10))
}

const wallForm = "2006-01-02T15:04:05.000Z"

func wallText(t int64) string { return time.UnixMilli(t).UTC().Format(wallForm) }

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// decodeLine reads one line, without its newline. What it accepts is exactly
// what the functions above write.
func decodeLine(b []byte) (line, error) {
	if len(b) < 10 || len(b) >= maxLine || b[8] != ' ' {
		return line{}, errForm
	}
	sum, err := strconv.ParseUint(string(b[:8]), 16, 32)
	if err != nil || uint32(sum) != crc32.Checksum(b[9:], castagnoli) {
		return line{}, errChecksum
	}
	var l line
	s := scanner{rest: string(b[9:])}
	l.seq = s.number(s.until('/'))
	l.synced = s.number(s.word())
	l.at = s.time(s.word())
	if err := l.decodeText(&s); err != nil {
		return line{}, err
	}
	if s.bad || s.rest != "" {
		return line{}, errForm
	}
	if again := appendLine(nil, l.seq, l.synced, l.at, l.text()); string(again[:len(again)-1]) != string(b) {
		return line{}, errForm
	}
	return l, nil
}

// text is the line as it is written, after its head.
func (l *line) text() string {
	switch l.verb {
	case verbJournal:
		return headText(l.version, l.boot)
	case verbClock:
		return clockText(time.UnixMilli(l.wall), l.inSync)
	case verbEpochs:
		return epochsText(l.epochs)
	case verbPut:
		return putText(l.id, l.made, l.lease, l.fixed)
	case verbLease:
		return leaseText(l.id, l.lease)
	case verbEnd:
		return endText(l.id)
	}
	return ""
}

func (l *line) decodeText(s *scanner) error {
	switch s.word() {
	case "journal":
		l.verb = verbJournal
		if l.version = s.field("version"); !slices.Contains(versions, l.version) && !s.bad {
			return errVersion
		}
		if l.boot = s.field("boot"); l.boot == "-" {
			l.boot = ""
		} else if !bootIDForm.MatchString(l.boot) {
			return errForm
		}
	case "clock":
		l.verb = verbClock
		l.wall = s.wall(s.field("wall"))
		l.inSync = s.field("sync") == "yes"
	case "epochs":
		l.verb = verbEpochs
		l.epochs.v4, l.epochs.v6 = s.time(s.field("v4")), s.time(s.field("v6"))
	case "put":
		l.verb = verbPut
		l.id, l.made = s.number(s.field("id")), s.time(s.field("made"))
		l.lease = s.lease()
		l.mapping = s.mapping()
		l.mapping.ID = l.id
		if s.bad || l.made > l.at || check(&l.mapping) != nil {
			return errForm
		}
		l.fixed = string(appendFixed(nil, &l.mapping))
	case "lease":
		l.verb = verbLease
		l.id = s.number(s.field("id"))
		l.lease = s.lease()
	case "end":
		l.verb = verbEnd
		l.id = s.number(s.field("id"))
	default:
		return errForm
	}
	return nil
}

func (s *scanner) lease() lease {
	end := s.field("end")
	if end == "never" {
		return lease{end: never}
	}
	l := lease{end: s.time(end)}
	if s.has("until") {
		l.until = s.wall(s.field("until"))
	}
	return l
}
