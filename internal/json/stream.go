package json

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// Next reads one value of at most so many octets from r, and no octet behind it that has to be
// waited for, unless it is a number. What it returns may be no JSON yet. The error is io.EOF where
// there is nothing but blanks.
func Next(r *bufio.Reader, most int) (Raw, error) { return appendNext(nil, r, most) }

// List reads an array, and passes each of its values to f, which may keep none.
func List(r *bufio.Reader, most int, f func(Raw) error) error {
	switch c, err := next(r); {
	case err != nil:
		return early(err)
	case c != '[':
		return fmt.Errorf("unexpected %q, want an array", c)
	}
	var one Raw
	for first := true; ; first = false {
		c, err := next(r)
		switch {
		case err != nil:
			return early(err)
		case c == ']':
			return nil
		case first:
			_ = r.UnreadByte() // which was read just now
		case c != ',':
			return fmt.Errorf("unexpected %q in an array", c)
		}
		if one, err = appendNext(one[:0], r, most); err != nil {
			return early(err)
		}
		if err := f(one); err != nil {
			return err
		}
	}
}

// early makes of an end the error that it is in the midst of a value.
func early(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// next reads the next octet that is no blank.
func next(r *bufio.Reader) (byte, error) {
	for {
		if c, err := r.ReadByte(); err != nil || !blank(c) {
			return c, err
		}
	}
}

func appendNext(out Raw, r *bufio.Reader, most int) (Raw, error) {
	if _, err := next(r); err != nil {
		return out, err
	}
	_ = r.UnreadByte() // which was read just now
	var s scan
	for {
		_, err := r.Peek(1)
		switch {
		case errors.Is(err, io.EOF) && s.bare:
			return out, nil
		case err != nil:
			return out, early(err)
		}
		have, _ := r.Peek(r.Buffered())
		n, over := s.run(have)
		if len(out)+n > most {
			return out, fmt.Errorf("a value is longer than %d octets", most)
		}
		out = append(out, have[:n]...)
		_, _ = r.Discard(n) // what is buffered
		if over {
			return out, nil
		}
	}
}

// ends reports whether an octet stands behind a number or a word.
func ends(c byte) bool { return blank(c) || c == ',' || c == ']' || c == '}' }

// scan finds the end of a value.
type scan struct {
	depth                 int
	quoted, escaped, bare bool
}

// run takes octets, as many as belong to the value, and reports whether it ends with them.
func (s *scan) run(b []byte) (n int, over bool) {
	for i, c := range b {
		switch {
		case s.bare && ends(c):
			return i, true
		case s.quoted && !s.escaped && c != '"' && c != '\\': // most
		case s.step(c):
			return i + 1, true
		}
	}
	return len(b), false
}

// step takes the next octet, and reports whether the value ends with it.
func (s *scan) step(c byte) bool {
	switch {
	case s.escaped:
		s.escaped = false
		return false
	case s.quoted && c == '\\':
		s.escaped = true
		return false
	case c == '"':
		s.quoted = !s.quoted
	case s.quoted:
		return false
	case c == '{' || c == '[':
		s.depth++
	case c == '}' || c == ']':
		s.depth--
	case s.depth == 0:
		s.bare = true
		return false
	}
	return s.depth <= 0 && !s.quoted
}
