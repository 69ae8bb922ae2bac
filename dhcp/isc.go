package dhcp

import (
	"strings"
	"time"

	"portcullis/portmap"
)

// maxWords is how many words of a statement are kept: "ends 2 2023/11/14 22:13:20"
// and "next binding state free" have four.
const maxWords = 4

// isc reads dhcpd.leases: blocks of statements, of which those of "lease ADDRESS"
// count. It is a journal: a block replaces an earlier one of the same address. What
// has no end is given up where the next lease begins.
func (c *collector) isc(text string) {
	t := tokens{text: text}
	var words []string
	var lease *iscLease // of the block that is open
	depth := 0
	for {
		word, kind := t.next()
		if (depth > 0 || len(words) > 0) && kind == plain && t.column == 0 && word == "lease" {
			c.damaged++
			words, lease, depth = nil, nil, 0
		}
		switch {
		case kind == end:
			if depth > 0 || len(words) > 0 {
				c.damaged++
			}
			return
		case kind == plain || kind == quoted:
			if len(words) < maxWords {
				words = append(words, word)
			}
			continue
		case word == "{":
			if depth++; depth == 1 && len(words) == 2 && words[0] == "lease" {
				lease = c.iscBegin(words[1])
			}
		case word == "}" && depth == 0:
			c.damaged++
		case word == "}":
			if depth--; depth == 0 && lease != nil {
				c.iscFinish(lease)
				lease = nil
			}
		case depth == 1 && lease != nil:
			lease.statement(words)
		}
		words = words[:0]
	}
}

// iscLease is a block while it is read.
type iscLease struct {
	Lease
	state string // "": an old server, which does not write it
	ended bool
	bad   bool
}

func (c *collector) iscBegin(addr string) *iscLease {
	a, ok := address(addr)
	return &iscLease{Lease: Lease{Addr: a}, bad: !ok}
}

// statement takes in what stands before a ";".
func (l *iscLease) statement(w []string) {
	var ok bool
	switch key, n := strings.Join(w[:min(len(w), 2)], " "), len(w); {
	case key == "hardware ethernet" && n == 3:
		mac, err := portmap.ParseMAC(w[2])
		l.MAC, l.bad = ofDevice(mac), l.bad || err != nil
	case n == 2 && w[0] == "client-hostname":
		l.Name = hostName(w[1])
	case key == "binding state" && n == 3:
		l.state = w[2]
	case key == "deleted" || key == "abandoned":
		l.ended = true
	case key == "ends never":
		l.Expires = time.Time{}
	case key == "ends epoch" && n == 3:
		l.Expires, ok = seconds(w[2])
		l.bad = l.bad || !ok
	case n == 4 && w[0] == "ends": // in UTC, behind the day of the week
		at, err := time.Parse("2006/01/02 15:04:05", w[2]+" "+w[3])
		l.Expires, l.bad = at, l.bad || err != nil
	}
}

func (c *collector) iscFinish(l *iscLease) {
	switch {
	case l.bad:
		c.damaged++
	case l.ended || l.state != "" && l.state != "active":
		c.gone(l.Addr)
	default:
		c.put(l.Lease)
	}
}

type tokenKind uint8

const (
	end tokenKind = iota
	plain
	quoted
	mark // one of { } ;
)

// tokens cuts a text into words; comments go from # to the end of the line.
type tokens struct {
	text   string
	at     int
	column int // of the last token, in bytes
	line   int // where the line begins
}

func (t *tokens) next() (string, tokenKind) {
	for t.at < len(t.text) {
		switch b := t.text[t.at]; {
		case b == '\n':
			t.at++
			t.line = t.at
		case b <= ' ':
			t.at++
		case b == '#':
			t.at += until(t.text[t.at:], "\n")
		case b == '"':
			t.column = t.at - t.line
			return t.quoted(), quoted
		case isMark(b):
			t.column = t.at - t.line
			t.at++
			return t.text[t.at-1 : t.at], mark
		default:
			t.column = t.at - t.line
			start := t.at
			for t.at < len(t.text) && t.text[t.at] > ' ' && t.text[t.at] != '"' && !isMark(t.text[t.at]) {
				t.at++
			}
			return t.text[start:t.at], plain
		}
	}
	return "", end
}

// quoted gives what stands between quotes, as it is written: no name that can be
// used has a backslash in it. A line's end ends it, for the server writes none.
func (t *tokens) quoted() string {
	t.at++
	start := t.at
	for t.at < len(t.text) {
		switch t.text[t.at] {
		case '\\':
			t.at++
			if t.at < len(t.text) && t.text[t.at] == '\n' {
				continue
			}
		case '"':
			t.at++
			return t.text[start : t.at-1]
		case '\n':
			return t.text[start:t.at]
		}
		t.at++
	}
	t.at = len(t.text)
	return t.text[start:]
}

func isMark(b byte) bool { return b == '{' || b == '}' || b == ';' }

// until gives how many bytes of s come before sep, all where it is missing.
func until(s, sep string) int {
	if i := strings.Index(s, sep); i >= 0 {
		return i
	}
	return len(s)
}
