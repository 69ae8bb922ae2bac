package control

import (
	"bufio"
	"cmp"
	"context"
	"io"
	"strconv"
	"time"

	"portcullis/internal/http1"
	"portcullis/internal/json"
	"portcullis/portmap"
)

// There may be tens of thousands of mappings in a list: each is written here, and read here,
// without what writes and reads any type. Both are what package json makes of them.

// listedAtOnce is of how many mappings the traffic is asked for at once, so that the kernel's answers
// fit the socket's buffer.
const listedAtOnce = 128

func (s *Server) mappings(ctx context.Context, _ *http1.Request) *http1.Response {
	return &http1.Response{Status: http1.OK, Header: jsonHeader, Stream: func(w io.Writer) error {
		l := &lister{out: bufio.NewWriterSize(w, 64<<10), traffic: s.traffic(ctx), host: s.cfg.Host, now: time.Now(), before: '['}
		some := make([]portmap.Mapping, 0, listedAtOnce)
		for m := range s.cfg.Mapper.Snapshot().All() {
			if some = append(some, m); len(some) < cap(some) {
				continue
			}
			l.write(some)
			if _, err := l.out.Write(nil); err != nil { // nobody reads it any more
				return err
			}
			some = some[:0]
		}
		l.write(some)
		if l.before == '[' {
			_ = l.out.WriteByte(l.before) // Flush returns the error
		}
		_, _ = l.out.WriteString("]\n")
		return l.out.Flush()
	}}
}

// lister writes mappings.
type lister struct {
	out     *bufio.Writer // whose Flush returns the error
	traffic func([]portmap.Mapping) func(uint64) *Traffic
	host    func(*portmap.Client) string
	now     time.Time
	before  byte // what stands before the next mapping
	line    []byte
}

func (l *lister) write(some []portmap.Mapping) {
	traffic := l.traffic(some)
	for i := range some {
		m := &some[i]
		m.Client.Name = cmp.Or(l.host(&m.Client), m.Client.Name)
		j := NewMapping(*m, traffic(m.ID), l.now)
		l.line = append(j.appendJSON(append(l.line[:0], l.before)), '\n')
		_, _ = l.out.Write(l.line)
		l.before = ','
	}
}

// appendJSON appends what package json makes of the mapping.
func (m *Mapping) appendJSON(b []byte) []byte {
	b = strconv.AppendUint(append(b, `{"id":`...), m.ID, 10)
	b = appendString(append(b, `,"protocol":`...), m.Protocol)
	b = strconv.AppendInt(append(b, `,"family":`...), int64(m.Family), 10)
	b = strconv.AppendUint(append(b, `,"external_port":`...), uint64(m.ExternalPort), 10)
	b = appendString(append(b, `,"internal_ip":`...), m.InternalIP)
	b = strconv.AppendUint(append(b, `,"internal_port":`...), uint64(m.InternalPort), 10)
	b = appendString(append(b, `,"remote":`...), m.Remote)
	b = appendString(append(b, `,"client_mac":`...), m.ClientMAC)
	b = appendString(append(b, `,"client_host":`...), m.ClientHost)
	b = appendString(append(b, `,"via":`...), m.Via)
	b = appendString(append(b, `,"description":`...), m.Description)
	b = appendString(append(b, `,"rule":`...), m.Rule)
	b = appendString(append(b, `,"wan":`...), m.WAN)
	b = strconv.AppendBool(append(b, `,"enabled":`...), m.Enabled)
	b = appendString(append(b, `,"created":`...), m.Created)
	b = strconv.AppendInt(append(b, `,"expires_in":`...), m.ExpiresIn, 10)
	b = strconv.AppendBool(append(b, `,"endless":`...), m.Endless)
	b = strconv.AppendBool(append(b, `,"suspended":`...), m.Suspended)
	b = strconv.AppendUint(append(b, `,"packets":`...), m.Packets, 10)
	b = strconv.AppendUint(append(b, `,"bytes":`...), m.Bytes, 10)
	if m.Uncounted {
		b = append(b, `,"uncounted":true`...)
	}
	return append(b, '}')
}

// plain reports whether a character stands for itself in JSON.
func plain(c byte) bool {
	return c >= ' ' && c < 0x7f && c != '"' && c != '\\' && c != '<' && c != '>' && c != '&'
}

func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if !plain(s[i]) {
			b, _ = json.Append(b, s) // no text makes it fail
			return b
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// eachMapping reads a list, and passes one mapping after another to f.
func eachMapping(body io.Reader, f func(*Mapping)) error {
	var m Mapping
	return json.List(bufio.NewReaderSize(body, 64<<10), maxAnswer, func(text json.Raw) error {
		if !m.parse(text) {
			m = Mapping{}
			if err := json.Unmarshal(text, &m); err != nil {
				return err
			}
		}
		f(&m)
		return nil
	})
}

// parse reads what appendJSON writes, where each text is plain; it reports false of all else,
// and m is anything then. A text that m has had before is not made anew.
func (m *Mapping) parse(b []byte) bool {
	p := parser{rest: b, good: true}
	p.number(`{"id":`, &m.ID)
	p.text(`,"protocol":"`, &m.Protocol)
	var family, external, internal, expires uint64
	p.number(`,"family":`, &family)
	p.number(`,"external_port":`, &external)
	p.text(`,"internal_ip":"`, &m.InternalIP)
	p.number(`,"internal_port":`, &internal)
	p.text(`,"remote":"`, &m.Remote)
	p.text(`,"client_mac":"`, &m.ClientMAC)
	p.text(`,"client_host":"`, &m.ClientHost)
	p.text(`,"via":"`, &m.Via)
	p.text(`,"description":"`, &m.Description)
	p.text(`,"rule":"`, &m.Rule)
	p.text(`,"wan":"`, &m.WAN)
	p.flag(`,"enabled":`, &m.Enabled)
	p.text(`,"created":"`, &m.Created)
	p.number(`,"expires_in":`, &expires)
	p.flag(`,"endless":`, &m.Endless)
	p.flag(`,"suspended":`, &m.Suspended)
	p.number(`,"packets":`, &m.Packets)
	p.number(`,"bytes":`, &m.Bytes)
	m.Uncounted = p.skip(`,"uncounted":true`)
	m.Family, m.ExternalPort, m.InternalPort, m.ExpiresIn = int(family), uint16(external), uint16(internal), int64(expires) // #nosec G115 -- the next line
	return p.good && string(p.rest) == "}" && family <= 6 && external <= 0xffff && internal <= 0xffff && m.ExpiresIn >= 0
}

// parser reads one thing after another, until one is not what it should be.
type parser struct {
	rest []byte
	good bool
}

func (p *parser) skip(name string) bool {
	there := len(p.rest) >= len(name) && string(p.rest[:len(name)]) == name
	if there {
		p.rest = p.rest[len(name):]
	}
	return there
}

func (p *parser) number(name string, to *uint64) {
	p.good = p.good && p.skip(name)
	const most = 19 // digits that fit any number
	n, digits := uint64(0), 0
	for digits < len(p.rest) && digits < most && '0' <= p.rest[digits] && p.rest[digits] <= '9' {
		n = 10*n + uint64(p.rest[digits]-'0')
		digits++
	}
	p.good = p.good && digits > 0 && (digits == 1 || p.rest[0] != '0')
	*to, p.rest = n, p.rest[digits:]
}

// text reads a text whose first quote is the end of the name.
func (p *parser) text(name string, to *string) {
	p.good = p.good && p.skip(name)
	end := 0
	for end < len(p.rest) && plain(p.rest[end]) {
		end++
	}
	if p.good = p.good && end < len(p.rest) && p.rest[end] == '"'; !p.good {
		return
	}
	if *to != string(p.rest[:end]) {
		*to = string(p.rest[:end])
	}
	p.rest = p.rest[end+1:]
}

func (p *parser) flag(name string, to *bool) {
	p.good = p.good && p.skip(name)
	*to = p.skip("true")
	p.good = p.good && (*to || p.skip("false"))
}
