package pcp

import (
	"encoding/binary"
	"net/netip"
	"unicode/utf8"

	"portcullis/portmap"
)

// The options that are understood (RFC 6887 section 13, RFC 7220, RFC 7753).
const (
	optThirdParty    = 1
	optPreferFailure = 2
	optFilter        = 3
	optDescription   = 128
	optPortSet       = 130

	optMayIgnore = 128 // codes from here on may be ignored

	maxOptions = 64 // in one message; a FILTER each of what fits would be 43
)

// option is one as it stands in a message.
type option struct {
	code byte
	data []byte
}

// walk takes options apart, without looking into them. It is not ok where one
// runs past the end, or there are more than maxOptions (abuse case I6).
func walk(b []byte) ([]option, bool) {
	var list []option
	for len(b) > 0 {
		if len(b) < 4 || len(list) == maxOptions {
			return nil, false
		}
		size := int(binary.BigEndian.Uint16(b[2:]))
		padded := 4 + (size+3)&^3
		if padded > len(b) {
			return nil, false
		}
		list = append(list, option{b[0], b[4 : 4+size]})
		b = b[padded:]
	}
	return list, true
}

func (o option) appendTo(b []byte) []byte {
	b = append(b, o.code, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(o.data)))
	b = append(b, o.data...)
	return append(b, make([]byte, -len(o.data)&3)...)
}

// options is what the options of a MAP request ask for.
type options struct {
	preferFailure bool
	filtered      bool // there was a FILTER
	reset         bool // the restrictions that there are go
	filters       []portmap.Remote
	described     bool
	description   string
	set           *portSet

	answered []option // those that were processed, for the reply
}

// portSet asks for several ports in a row (RFC 7753 section 4).
type portSet struct {
	size, first uint16
	parity      bool
}

// readOptions reads options in order of appearance; the first bad one decides.
// What may be ignored and is not for MAP is ignored.
func (r *request) readOptions(list []option) code {
	if repeated(list) {
		return malformedOption
	}
	for _, o := range list {
		read, known := readers[o.code]
		switch {
		case !known && o.code < optMayIgnore:
			return unsuppOption
		case !known:
			continue
		case r.op != opMap && o.code < optMayIgnore:
			return malformedOption // it makes no sense there
		case r.op != opMap:
			continue
		}
		if c := read(r, o); c != success {
			return c
		}
	}
	return success
}

// repeated reports whether an option that is understood stands there twice. FILTER
// may.
func repeated(list []option) bool {
	var seen [256]bool
	for _, o := range list {
		if seen[o.code] && o.code != optFilter && readers[o.code] != nil {
			return true
		}
		seen[o.code] = true
	}
	return false
}

var readers = map[byte]func(*request, option) code{
	optThirdParty:    (*request).readThirdParty,
	optPreferFailure: (*request).readPreferFailure,
	optFilter:        (*request).readFilter,
	optDescription:   (*request).readDescription,
	optPortSet:       (*request).readPortSet,
}

// readThirdParty refuses: a mapping is for who asks (abuse case I5). What is
// wrong with the option itself is told first.
func (r *request) readThirdParty(o option) code {
	switch {
	case len(o.data) != 16:
		return malformedOption
	case netip.AddrFrom16([16]byte(o.data)).Unmap() == r.client:
		return malformedRequest // RFC 6887 section 13.1
	}
	return unsuppOption
}

func (r *request) readPreferFailure(o option) code {
	if len(o.data) != 0 {
		return malformedOption
	}
	r.options.preferFailure = true
	r.options.answered = append(r.options.answered, o)
	return success
}

// readFilter reads one restriction (RFC 6887 section 13.3). Length 0 forgets all
// before it, those in this message included; in IPv4 it stands outside of 96 to
// 128, and is allowed all the same.
func (r *request) readFilter(o option) code {
	if len(o.data) != 20 {
		return malformedOption
	}
	bits := int(o.data[1])
	port := binary.BigEndian.Uint16(o.data[2:])
	address := netip.AddrFrom16([16]byte(o.data[4:]))
	op := &r.options
	op.filtered = true
	op.answered = append(op.answered, o)
	if bits == 0 {
		op.reset, op.filters = true, nil
		return success
	}
	if address.Is4In6() {
		bits -= 96
	}
	prefix, err := address.Unmap().Prefix(bits)
	if err != nil || prefix.Addr().Is4() != r.client.Is4() {
		return malformedOption // also what could never match
	}
	op.filters = append(op.filters, portmap.Remote{Prefix: prefix, Port: port})
	return success
}

// readDescription reads a text (RFC 7220 section 3). What is not UTF-8 is
// ignored. The stored text, which may be shorter, goes into the reply.
func (r *request) readDescription(o option) code {
	if !utf8.Valid(o.data) {
		return success
	}
	op := &r.options
	op.described, op.description = true, shorten(string(o.data))
	op.answered = append(op.answered, option{optDescription, []byte(op.description)})
	return success
}

// shorten cuts a text at a character to what is kept of it.
func shorten(s string) string {
	for len(s) > portmap.MaxDescription {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return s
}

// readPortSet reads the wish for several ports. Its answer is known later.
func (r *request) readPortSet(o option) code {
	if len(o.data) != 5 {
		return malformedOption
	}
	set := &portSet{
		size:   binary.BigEndian.Uint16(o.data),
		first:  binary.BigEndian.Uint16(o.data[2:]),
		parity: o.data[4]&1 != 0,
	}
	if set.size == 0 {
		return malformedOption
	}
	r.options.set = set
	r.options.answered = append(r.options.answered, o)
	return success
}

// answerSet sets how many ports there are in fact, nothing for one (RFC
// 7753 section 4.2).
func (r *request) answerSet(size int) {
	kept := r.options.answered[:0:0]
	for _, o := range r.options.answered {
		if o.code != optPortSet {
			kept = append(kept, o)
			continue
		}
		if size > 1 {
			data := binary.BigEndian.AppendUint16(nil, uint16(size))
			data = binary.BigEndian.AppendUint16(data, r.internal)
			data = append(data, o.data[4]&1)
			kept = append(kept, option{optPortSet, data})
		}
	}
	r.options.answered = kept
}
