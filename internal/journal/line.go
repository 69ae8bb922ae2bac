package journal

import (
	"bytes"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"slices"
	"strconv"
	"strings"

	"portcullis/portmap"
)

// A log is lines of text. Each begins with
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
	maxLine   = 8192 // with its newline; the longest that is written has about 2,800 bytes
	usualLine = 384  // few are longer
	version   = "3"
)

// versions are what is read: a line of an earlier one says less, and nothing otherwise.
var versions = []string{"1", "2", version}

const (
	verbHeader = "journal"
	verbClock  = "clock"
	verbEpochs = "epochs"
	verbPut    = "put"
	verbLease  = "lease"
	verbEnd    = "end"
)

var (
	errBadLine = errors.New("not a line of a journal")
	errVersion = errors.New("written by another version")
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

// line is one line, of which its verb says what is used.
type line struct {
	seq, synced uint64
	at          int64
	verb        string

	version, boot string // header
	wall          int64  // clock
	inSync        bool
	epochs        epochs

	id      uint64 // put, lease, end
	created int64
	lease   lease
	mapping string // put: the fields of the mapping, see encodeMapping
}

// fields writes or reads what comes after the verb.
func (l *line) fields(c *coder) {
	switch l.verb {
	case verbHeader:
		l.version, l.boot = c.word("version", l.version), c.word("boot", l.boot)
	case verbClock:
		c.wall("wall", &l.wall)
		sync := "no"
		if l.inSync {
			sync = "yes"
		}
		l.inSync = c.word("sync", sync) == "yes"
	case verbEpochs:
		c.time("v4", &l.epochs.v4)
		c.time("v6", &l.epochs.v6)
	case verbPut:
		c.number("id", &l.id)
		c.time("made", &l.created)
		c.lease(&l.lease)
		if !c.reading {
			c.out = append(c.out, l.mapping...)
			return
		}
		m, text := portmap.Mapping{ID: l.id}, c.in
		if c.mapping(&m); check(&m) == nil && isEncoded(&m, text) {
			l.mapping = strings.Clone(text) // of the line no more is kept
		}
	case verbLease:
		c.number("id", &l.id)
		c.lease(&l.lease)
	case verbEnd:
		c.number("id", &l.id)
	}
}

// text is the line as it is written, after its head.
func (l *line) text() string {
	c := coder{out: append(make([]byte, 0, usualLine), l.verb...)}
	l.fields(&c)
	return string(c.out)
}

func (l *line) append(b []byte) []byte {
	start := len(b)
	c := coder{out: append(appendHead(b, l.seq, l.synced, l.at), l.verb...)}
	l.fields(&c)
	return endLine(c.out, start)
}

func appendLine(b []byte, seq, synced uint64, at int64, text string) []byte {
	start := len(b)
	return endLine(append(appendHead(b, seq, synced, at), text...), start)
}

func appendHead(b []byte, seq, synced uint64, at int64) []byte {
	b = append(b, "12345678 "...) // the sum, when there is what it is of
	b = append(strconv.AppendUint(b, seq, 10), '/')
	b = append(strconv.AppendUint(b, synced, 10), ' ')
	return append(appendTime(b, at), ' ')
}

// endLine ends the line that begins at start.
func endLine(b []byte, start int) []byte {
	const digits = len("12345678")
	sum := checksum(b[start+digits+1:])
	copy(b[start:], sum[:])
	return append(b, '\n')
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum returns eight hexadecimal digits. It is taken of every line that is read.
func checksum(b []byte) (digits [8]byte) {
	sum := crc32.Checksum(b, castagnoli)
	hex.Encode(digits[:], []byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)})
	return digits
}

// decodeLine reads one line, without its newline. What it accepts is exactly what
// appendLine writes.
func decodeLine(b []byte) (line, error) {
	sum, text, _ := strings.Cut(string(b), " ")
	if want := checksum(b[min(len(b), len(sum)+1):]); len(b) >= maxLine || sum != string(want[:]) {
		return line{}, errBadLine
	}
	var l line
	head, rest, _ := strings.Cut(text, " ")
	seq, synced, _ := strings.Cut(head, "/")
	l.seq, _ = strconv.ParseUint(seq, 10, 64)
	l.synced, _ = strconv.ParseUint(synced, 10, 64)
	head, rest, _ = strings.Cut(rest, " ")
	l.at = parseTime(head)
	l.verb, _, _ = strings.Cut(rest, " ")
	c := coder{reading: true, in: rest[len(l.verb):]}
	l.fields(&c)
	if l.verb == verbHeader && l.version != "" && !slices.Contains(versions, l.version) {
		return line{}, errVersion
	}
	again := l.append(make([]byte, 0, len(b)+1))
	if !l.sound() || string(bytes.TrimSuffix(again, []byte("\n"))) != string(b) {
		return line{}, errBadLine
	}
	return l, nil
}

// sound reports whether the line is one that could have been written, as far as its form
// does not tell.
func (l *line) sound() bool {
	switch l.verb {
	case verbHeader:
		return l.boot == noBoot || bootIDForm.MatchString(l.boot)
	case verbPut:
		return l.mapping != "" && l.created <= l.at
	}
	return slices.Contains([]string{verbClock, verbEpochs, verbLease, verbEnd}, l.verb)
}

// noBoot stands in the header where the name of the run is not known.
const noBoot = "-"
