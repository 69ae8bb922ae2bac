package ssdp

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Bounds of what is read. A search is some 100 to 300 octets long; a field that
// does not fit is an attack on somebody else's parser (abuse case E2).
const (
	// MaxDatagram is the longest datagram that is looked at, in octets.
	MaxDatagram = 1500
	maxLine     = 256 // octets in one header line, without CRLF
	maxHeaders  = 32  // header lines
	maxWait     = 5   // seconds; a greater MX counts as this (UDA 1.1 section 1.3.2)
)

// searchAll is the search target that asks for every row.
const searchAll = "ssdp:all"

// Why a datagram is not answered. Every error of Parse is one of these.
var (
	// ErrNotSearch: another start line. Notifications and responses of other
	// devices end here, unparsed (abuse case E6).
	ErrNotSearch = errors.New("not a search")
	// ErrTooLong: the datagram, a line or the number of lines is over its bound.
	ErrTooLong = errors.New("too long")
	// ErrGrammar: not lines of "name: value" with CRLF, or one of MAN, MX and ST
	// stands there twice.
	ErrGrammar = errors.New("malformed")
	// ErrMAN: MAN is missing or is not "ssdp:discover".
	ErrMAN = errors.New("MAN is not ssdp:discover")
	// ErrMX: MX is missing in a multicast search, or is not a number.
	ErrMX = errors.New("no usable MX")
	// ErrST: ST is missing or empty.
	ErrST = errors.New("no search target")
)

// Search is a well-formed search.
type Search struct {
	// Target is the text of ST as the client wrote it, 1 to 256 octets. It is
	// for looking up only and never goes into an answer or a log as it is.
	Target string
	// Window is the time within which the client expects all answers:
	// 0 to 5 s as MX says for a multicast search, 1 s for a unicast one.
	Window time.Duration
}

// Parse reads a datagram. Whether it was multicast is judged by the address it was sent
// to, not by its HOST header. What follows the empty line is ignored (UDA 2.0 section
// 1.1.2: a body may be ignored). The empty line itself is not missed, though UDA 1.1
// section 1.3.2 demands it: libplum until May 2025, ssdpy before 0.3.0, lighthouse and
// SwiftSSDP leave it out. A datagram is whole or not there, so that its end says as
// much.
func Parse(datagram []byte, multicast bool) (Search, error) {
	if len(datagram) > MaxDatagram {
		return Search{}, ErrTooLong
	}
	rest, found := bytes.CutPrefix(datagram, []byte("M-SEARCH * HTTP/1.1\r\n"))
	if !found {
		return Search{}, ErrNotSearch
	}
	var h searchHeaders
	for n := 0; ; n++ {
		line, after, found := bytes.Cut(rest, []byte("\r\n"))
		switch {
		case len(line) == 0: // or the datagram's end
			return h.search(multicast)
		case !found:
			return Search{}, ErrGrammar
		case n == maxHeaders || len(line) > maxLine:
			return Search{}, ErrTooLong
		}
		name, value, ok := splitHeader(line)
		if !ok || !h.take(name, value) {
			return Search{}, ErrGrammar
		}
		rest = after
	}
}

// splitHeader cuts a line at its first colon. Blanks around the colon are
// optional (libtorrent writes "ST:upnp:rootdevice"); a line that starts with a
// blank would continue the one before, which nobody needs, and is refused.
func splitHeader(line []byte) (name, value []byte, ok bool) {
	name, value, found := bytes.Cut(line, []byte(":"))
	if !found {
		return nil, nil, false
	}
	name = bytes.TrimRight(name, " \t")
	if len(name) == 0 || !all(name, isToken) || !all(value, isText) {
		return nil, nil, false
	}
	return name, bytes.Trim(value, " \t"), true
}

// searchHeaders are the headers of a search that decide something. They alias
// the datagram.
type searchHeaders struct{ man, mx, st header }

type header struct {
	value   []byte
	present bool
}

// take keeps a header that matters and reports whether the message is still
// sound: the second of a kind could contradict the first.
func (h *searchHeaders) take(name, value []byte) bool {
	var field *header
	switch {
	case bytes.EqualFold(name, []byte("MAN")):
		field = &h.man
	case bytes.EqualFold(name, []byte("MX")):
		field = &h.mx
	case bytes.EqualFold(name, []byte("ST")):
		field = &h.st
	default:
		return true // unknown headers are ignored (UDA 2.0 section 1.1.2)
	}
	if field.present {
		return false
	}
	*field = header{value, true}
	return true
}

// search applies the rules of UDA 1.1 section 1.3.2 to the headers.
func (h *searchHeaders) search(multicast bool) (Search, error) {
	// The quotes are part of the value; some clients forget them.
	if m := string(h.man.value); m != `"ssdp:discover"` && m != "ssdp:discover" {
		return Search{}, ErrMAN
	}
	seconds, ok := parseMX(h.mx.value)
	if !ok && (multicast || h.mx.present) {
		return Search{}, ErrMX
	}
	if len(h.st.value) == 0 {
		return Search{}, ErrST
	}
	window := time.Second // UDA 1.1 section 1.3.3: a unicast answer within 1 s
	if multicast {
		window = time.Duration(seconds) * time.Second
	}
	return Search{Target: string(h.st.value), Window: window}, nil
}

// parseMX reads decimal digits and stops counting at maxWait, so that no number
// is too large to read (abuse case E4).
func parseMX(value []byte) (seconds int, ok bool) {
	for _, c := range value {
		if c < '0' || c > '9' {
			return 0, false
		}
		seconds = min(seconds*10+int(c-'0'), maxWait)
	}
	return seconds, len(value) > 0
}

func all(b []byte, allowed func(byte) bool) bool {
	for _, c := range b {
		if !allowed(c) {
			return false
		}
	}
	return true
}

// isText: what a header value may hold. A lone CR or LF, NUL and the other
// control characters are the odd delimiters of abuse case E2.
func isText(c byte) bool { return c == '\t' || c >= 0x20 && c != 0x7f }

// isToken: what a header name may hold (RFC 9110 section 5.6.2).
func isToken(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' ||
		strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// facts are what all messages of one appearance on the link have in common: as
// long as they hold, so does the BOOTID (UDA 1.1 section 1.2.2).
type facts struct {
	group  netip.AddrPort
	maxAge int // seconds
	server string
	bootID uint32
	shown  [Plain + 1]Description // by version of the device tree
}

// host is the group as HOST has it: in capitals, as UDA 2.0 section A.3 writes it.
func (f *facts) host() string { return strings.ToUpper(f.group.String()) }

// appendResponse writes the answer to a search. now becomes DATE, which UDA
// recommends; a clock that was plainly never set says nothing.
func appendResponse(b []byte, f *facts, r row, now time.Time) []byte {
	d := f.shown[r.version]
	b = append(b, "HTTP/1.1 200 OK\r\n"...)
	b = fmt.Appendf(b, "CACHE-CONTROL: max-age=%d\r\n", f.maxAge)
	if now.Year() >= 2000 {
		b = now.UTC().AppendFormat(append(b, "DATE: "...), "Mon, 02 Jan 2006 15:04:05 GMT\r\n")
	}
	b = append(b, "EXT:\r\n"...)
	b = fmt.Appendf(b, "LOCATION: %s\r\nSERVER: %s\r\nST: %s\r\nUSN: %s\r\n", d.Location, f.server, r.target, r.usn)
	return appendIDs(b, f, d)
}

// appendAlive writes an ssdp:alive notification (UDA 2.0 section 1.2.2).
func appendAlive(b []byte, f *facts, r row) []byte {
	d := f.shown[r.version]
	b = fmt.Appendf(b, "NOTIFY * HTTP/1.1\r\nHOST: %s\r\nCACHE-CONTROL: max-age=%d\r\n", f.host(), f.maxAge)
	b = fmt.Appendf(b, "LOCATION: %s\r\nSERVER: %s\r\nNT: %s\r\nNTS: ssdp:alive\r\nUSN: %s\r\n", d.Location, f.server, r.target, r.usn)
	return appendIDs(b, f, d)
}

// appendByebye writes an ssdp:byebye notification (UDA 2.0 section 1.2.3).
func appendByebye(b []byte, f *facts, r row) []byte {
	b = fmt.Appendf(b, "NOTIFY * HTTP/1.1\r\nHOST: %s\r\nNT: %s\r\nNTS: ssdp:byebye\r\nUSN: %s\r\n", f.host(), r.target, r.usn)
	return appendIDs(b, f, f.shown[r.version])
}

// appendIDs writes the two numbers that close every message of ours.
func appendIDs(b []byte, f *facts, d Description) []byte {
	return fmt.Appendf(b, "BOOTID.UPNP.ORG: %d\r\nCONFIGID.UPNP.ORG: %d\r\n\r\n", f.bootID, d.ConfigID)
}
