package dhcp

import (
	"context"
	"errors"
	"strings"
	"time"

	"portcullis/internal/slog"
)

// source is one lease file. Kea leaves what it has cleaned up, or is about to, in
// files beside it, which count as if they stood before it.
type source struct {
	format  Format
	parts   []string // in the order in which they are read
	who     trust
	seen    [maxParts]state
	settled bool
	said    string // what the log has been told last
	leases  []Lease
}

// The files of Kea: a completed one replaces the other two.
var keaParts = [maxParts]string{".completed", ".2", ".1", ""}

const maxParts = 4

// newSource makes a source of a path, or of "format:path".
func newSource(file string, who trust) *source {
	s := &source{who: who, settled: true}
	if format, path, named := strings.Cut(file, ":"); named && file[0] != '/' {
		s.format, file = Format(format), path
	}
	if !strings.HasSuffix(file, ".csv") {
		s.parts = []string{file}
		return s
	}
	for _, end := range keaParts {
		s.parts = append(s.parts, file+end)
	}
	return s
}

// look reads the file when it is not what it was, and says whether that may matter.
// While somebody writes there, what it said before holds.
func (s *source) look(now time.Time, log *slog.Logger) bool {
	seen, settled, err := s.states(now)
	if err == nil && s.settled && seen == s.seen {
		return false
	}
	var p Parsed
	if err == nil {
		p, err = s.read(&seen)
	}
	if errors.Is(err, errBusy) {
		s.settled = false
		return false
	}
	before := len(s.leases)
	s.seen, s.settled, s.leases = seen, settled, p.Leases
	s.say(log, p, err)
	return before+len(p.Leases) > 0
}

// states returns what shows that a part has changed, and whether nothing can change
// without showing it.
func (s *source) states(now time.Time) (seen [maxParts]state, settled bool, err error) {
	settled = true
	for i, path := range s.parts {
		if i > 0 && i < len(s.parts)-1 && seen[0] != (state{}) {
			continue
		}
		st, fault := lookAt(path, s.who)
		if fault != nil {
			err = fault
		}
		seen[i] = st
		settled = settled && (st == state{} || st.settled(now))
	}
	return seen, settled, err
}

// read parses all parts that are there as one.
func (s *source) read(seen *[maxParts]state) (Parsed, error) {
	c := newCollector()
	for i, path := range s.parts {
		if seen[i] == (state{}) {
			continue
		}
		data, err := readFile(path, seen[i])
		if err != nil {
			return Parsed{}, err
		}
		format := s.format
		if format == Unknown {
			format = Recognise(data)
		}
		c.parse(format, data)
	}
	return c.parsed(), nil
}

// say logs about a file, and loudly once when there is something new.
func (s *source) say(log *slog.Logger, p Parsed, err error) {
	level, text := slog.LevelDebug, "lease file read"
	trouble := ""
	switch {
	case err != nil:
		trouble, text = err.Error(), "lease file not read"
	case p.Damaged > 0 || p.Left > 0:
		trouble = "not all of it can be used"
	}
	switch {
	case trouble == s.said && err != nil:
		return
	case trouble == s.said:
	case trouble == "":
		level = slog.LevelInfo
	default:
		level = slog.LevelWarn
	}
	s.said = trouble
	log.Log(context.Background(), level, text, "file", s.parts[len(s.parts)-1], "trouble", trouble,
		"leases", len(p.Leases), "damaged", p.Damaged, "left", p.Left)
}
