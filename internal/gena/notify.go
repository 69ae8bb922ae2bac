package gena

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"time"

	"portcullis/internal/xml1"
)

// Bounds of the reading of a subscriber's answer, abuse case F6.
const (
	maxAnswer  = 1024                   // bytes; what is beyond is never read
	lingerTime = 250 * time.Millisecond // for the rest of the headers, see readAnswer
)

var (
	errOffLink  = errors.New("the subscriber is not on its link any more")
	errNoStatus = errors.New("the answer does not begin with a status line of HTTP/1")
)

// A statusError is a status other than 2xx.
type statusError int

func (e statusError) Error() string { return "the subscriber answered " + strconv.Itoa(int(e)) }

// deliver sends m to the first of its subscription's URLs that works (UDA 1.1
// section 4.1.2). Each gets its share of the time that is left, so that a URL
// that hangs leaves some to those behind.
func (n *Notifier) deliver(m *message) error {
	s := m.sub
	if n.cfg.OnLink != nil && !n.cfg.OnLink(s.sub.Interface, s.sub.Addr) {
		return errOffLink
	}
	deadline, _ := m.ctx.Deadline()
	body := propertySet(m.props)
	var err error
	for i, url := range s.urls {
		share := time.Until(deadline) / time.Duration(len(s.urls)-i)
		if err = n.notify(m, url, share, body); err == nil || m.ctx.Err() != nil {
			return err
		}
	}
	return err
}

// notify sends one NOTIFY and reads its answer. The request is written by hand:
// a client of net/http would parse the path and write it anew, change the case
// of the headers, follow redirects, read a proxy from the environment and more
// of the answer than we want, and each of these has to be taken away again.
func (n *Notifier) notify(m *message, url callback, within time.Duration, body []byte) error {
	ctx, cancel := context.WithTimeout(m.ctx, within)
	defer cancel()
	conn, err := n.cfg.Dial(ctx, m.sub.sub, m.sub.sub.at(url.port))
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return fmt.Errorf("set deadline: %w", err)
	}
	if _, err := conn.Write(request(m, url, body)); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	code, err := readAnswer(conn, func() {
		if soon := time.Now().Add(lingerTime); soon.Before(deadline) {
			_ = conn.SetReadDeadline(soon) // failing, the old deadline stands
		}
	})
	if err != nil {
		return err
	}
	if code < 200 || code > 299 {
		return statusError(code) // 3xx too: redirects are never followed
	}
	return nil
}

// at returns a port on the subscriber's own address. A link-local one needs the
// interface to be reached.
func (s Subscriber) at(port uint16) netip.AddrPort {
	addr := s.Addr
	if addr.Is6() && addr.IsLinkLocalUnicast() {
		addr = addr.WithZone(s.Interface)
	}
	return netip.AddrPortFrom(addr, port)
}

// request writes a NOTIFY as UDA 1.1 section 4.3.2 shows it.
func request(m *message, url callback, body []byte) []byte {
	var b bytes.Buffer
	host := netip.AddrPortFrom(m.sub.sub.Addr.WithZone(""), url.port)
	fmt.Fprintf(&b, "NOTIFY %s HTTP/1.1\r\n", url.target)
	fmt.Fprintf(&b, "HOST: %s\r\n", host)
	fmt.Fprintf(&b, "CONTENT-TYPE: text/xml; charset=\"utf-8\"\r\n")
	fmt.Fprintf(&b, "CONTENT-LENGTH: %d\r\n", len(body))
	fmt.Fprintf(&b, "NT: upnp:event\r\nNTS: upnp:propchange\r\n")
	fmt.Fprintf(&b, "SID: %s\r\nSEQ: %d\r\n", m.sub.id, m.seq)
	fmt.Fprintf(&b, "CONNECTION: close\r\n\r\n")
	b.Write(body)
	return b.Bytes()
}

// propertySet writes the body: one property element for each variable.
func propertySet(props []Property) []byte {
	var b bytes.Buffer
	b.WriteString("<?xml version=\"1.0\"?>\n<e:propertyset xmlns:e=\"urn:schemas-upnp-org:event-1-0\">\n")
	for _, p := range props {
		fmt.Fprintf(&b, "<e:property><%s>%s</%s></e:property>\n", p.Name, xml1.Escape(p.Value), p.Name)
	}
	b.WriteString("</e:propertyset>\n")
	return b.Bytes()
}

// readAnswer reads the status of an answer, and at most maxAnswer bytes. The
// status line decides; when it is there onStatus is called, and the rest of the
// headers is read only to keep a small subscriber, which writes line by line,
// from finding its connection reset. How that ends does not matter.
func readAnswer(r io.Reader, onStatus func()) (code int, err error) {
	var buf [maxAnswer]byte
	for n := 0; n < len(buf); {
		m, err := r.Read(buf[n:])
		n += m
		if code == 0 {
			if line, _, whole := bytes.Cut(buf[:n], []byte("\n")); whole {
				if code = parseStatus(line); code == 0 {
					return 0, errNoStatus
				}
				onStatus()
			}
		}
		if code != 0 && (err != nil || headEnds(buf[:n])) {
			return code, nil
		}
		if errors.Is(err, io.EOF) {
			return 0, errNoStatus
		}
		if err != nil {
			return 0, fmt.Errorf("read: %w", err)
		}
	}
	if code == 0 {
		return 0, errNoStatus
	}
	return code, nil
}

// headEnds reports whether b holds the blank line after the headers.
func headEnds(b []byte) bool {
	return bytes.Contains(b, []byte("\n\r\n")) || bytes.Contains(b, []byte("\n\n"))
}

// parseStatus returns the code of a status line "HTTP/1.x NNN" with or without a
// phrase, or 0 when it is none.
func parseStatus(line []byte) int {
	line = bytes.TrimSuffix(line, []byte("\r"))
	const form = "HTTP/1.x NNN"
	if len(line) < len(form) || string(line[:7]) != "HTTP/1." || !digit(line[7]) || line[8] != ' ' {
		return 0
	}
	if len(line) > len(form) && line[len(form)] != ' ' {
		return 0
	}
	code := 0
	for _, c := range line[9:len(form)] {
		if !digit(c) {
			return 0
		}
		code = code*10 + int(c-'0')
	}
	if code < 100 {
		return 0
	}
	return code
}

func digit(c byte) bool { return c >= '0' && c <= '9' }
