package dhcp

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
)

// source is one lease file. Kea leaves what it has cleaned up, or is about to, in
// files beside it, which count as if they stood before it.
type source struct {
	format  Format
	parts   []string // in the order in which they are read
	who     trust
	seen    []state
	settled bool
	said    string // what the log has been told last
	leases  []Lease
}

// The files of Kea: a completed one replaces the other two.
var keaParts = []string{".completed", ".2", ".1", ""}

func newSource(f File, who trust) *source {
	s := &source{format: f.Format, parts: []string{f.Path}, who: who}
	if strings.HasSuffix(f.Path, ".csv") {
		s.parts = nil
		for _, end := range keaParts {
			s.parts = append(s.parts, f.Path+end)
		}
	}
	s.seen = make([]state, len(s.parts))
	s.settled = true
	return s
}

// path is the file's own name.
func (s *source) path() string { return s.parts[len(s.parts)-1] }

// look reads the file when it is not what it was, and says whether its leases have
// changed.
func (s *source) look(now time.Time, log *slog.Logger) bool {
	seen, settled, err := s.states(now)
	if err == nil && s.settled && slices.Equal(seen, s.seen) {
		return false
	}
	var p Parsed
	if err == nil {
		p, err = s.read(seen)
	}
	before := s.leases
	s.seen, s.settled, s.leases = seen, settled, p.Leases
	s.say(log, p, err)
	return !slices.Equal(before, s.leases)
}

// states gives what shows that a part has changed, and whether nothing can change
// without showing it.
func (s *source) states(now time.Time) (seen []state, settled bool, err error) {
	seen, settled = make([]state, len(s.parts)), true
	for i, path := range s.parts {
		if i > 0 && i < len(s.parts)-1 && seen[0] != (state{}) {
			continue
		}
		st, fault := lookAt(path, s.who)
		if fault != nil {
			err = fmt.Errorf("%s: %w", path, fault)
		}
		seen[i] = st
		settled = settled && (st == state{} || st.settled(now))
	}
	return seen, settled, err
}

// read parses all parts that are there as one.
func (s *source) read(seen []state) (Parsed, error) {
	c := newCollector()
	for i, path := range s.parts {
		if seen[i] == (state{}) {
			continue
		}
		data, err := readFile(path, s.who)
		if err != nil {
			return Parsed{}, fmt.Errorf("%s: %w", path, err)
		}
		format := s.format
		if format == Unknown {
			format = Recognise(data)
		}
		c.parse(format, data)
	}
	return c.parsed(), nil
}

// say tells the log about a file once, until there is something else to tell.
func (s *source) say(log *slog.Logger, p Parsed, err error) {
	text := ""
	switch {
	case err != nil:
		text = err.Error()
	case p.Damaged > 0 || p.Left > 0:
		text = "partly"
	}
	if err == nil {
		log.Debug("lease file read", "file", s.path(), "leases", len(p.Leases))
	}
	if text == s.said {
		return
	}
	s.said = text
	switch {
	case err != nil:
		log.Warn("no names of hosts from a lease file", "file", s.path(), "error", err)
	case text != "":
		log.Warn("a lease file can be used in part only", "file", s.path(), "lines_damaged", p.Damaged, "leases_too_many", p.Left)
	default:
		log.Info("a lease file can be used again", "file", s.path())
	}
}
