package gena_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/internal/gena"
	"portcullis/internal/http1"
	"portcullis/internal/slog"
)

var (
	alice = gena.Subscriber{Addr: netip.MustParseAddr("192.168.1.10"), Local: netip.MustParseAddr("192.168.1.1"), Interface: "br-lan"}
	bob   = gena.Subscriber{Addr: netip.MustParseAddr("192.168.1.20"), Local: netip.MustParseAddr("192.168.1.1"), Interface: "br-lan"}
)

const ok200 = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

// A notify is one NOTIFY as a subscriber got it.
type notify struct {
	at     time.Time
	to     netip.AddrPort
	target string
	header http.Header
	body   string
	raw    string
}

func (n notify) seq() string { return n.header.Get("Seq") }

// readNotify takes one request apart with the means of net/http, and keeps its
// bytes. Content-Length says how long it is.
func readNotify(conn net.Conn) (notify, error) {
	var raw strings.Builder
	r, err := http.ReadRequest(bufio.NewReader(io.TeeReader(conn, &raw)))
	if err != nil {
		return notify{}, err
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return notify{}, err
	}
	if r.Method != "NOTIFY" {
		return notify{}, errors.New("not a NOTIFY: " + r.Method)
	}
	return notify{at: time.Now(), target: r.RequestURI, header: r.Header, body: string(body), raw: raw.String()}, nil
}

// A home is a Notifier whose subscribers live in memory, for tests in a synctest
// bubble. Every connection is a pipe to answer, which gets the message and gives
// the bytes to answer with; "" answers nothing and waits for the end.
type home struct {
	*gena.Notifier
	t      *testing.T
	answer func(notify) string
	stop   func() // ends Run and waits for it

	mu    sync.Mutex
	heard []notify
	dials []netip.AddrPort
}

func newHome(t *testing.T, cfg gena.Config, answer func(notify) string) *home {
	t.Helper()
	h := &home{t: t, answer: answer}
	if cfg.Dial == nil {
		cfg.Dial = h.dial
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	h.Notifier = gena.New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	h.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(h.stop)
	return h
}

func (h *home) dial(_ context.Context, _ gena.Subscriber, to netip.AddrPort) (net.Conn, error) {
	h.mu.Lock()
	h.dials = append(h.dials, to)
	h.mu.Unlock()
	if to.Port() == closedPort {
		return nil, errors.New("connection refused")
	}
	ours, theirs := net.Pipe()
	go func() {
		defer theirs.Close()
		n, err := readNotify(theirs)
		if err != nil {
			return // cut off
		}
		n.to = to
		h.mu.Lock()
		h.heard = append(h.heard, n)
		h.mu.Unlock()
		if a := h.answer(n); a != "" {
			_, _ = io.WriteString(theirs, a)
			return
		}
		_, _ = io.Copy(io.Discard, theirs)
	}()
	return ours, nil
}

// Ports that the subscribers of a home listen on, and one that nobody does.
const (
	openPort   = 49200
	otherPort  = 49201
	closedPort = 49299
)

// messages returns what was heard so far, once everything has come to rest.
func (h *home) messages() []notify {
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]notify(nil), h.heard...)
}

func (h *home) dialed() []netip.AddrPort {
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]netip.AddrPort(nil), h.dials...)
}

// callbackTo returns the CALLBACK header with a URL for each port.
func callbackTo(sub gena.Subscriber, ports ...uint16) string {
	var b strings.Builder
	for _, p := range ports {
		b.WriteString("<http://" + netip.AddrPortFrom(sub.Addr.WithZone(""), p).String() + "/cb>")
	}
	return b.String()
}

// An answered request: what would be written, name for name.
type answered struct {
	Code   int
	Body   *bytes.Buffer
	header map[string][]string
}

func (a *answered) Header() map[string][]string { return a.header }

// request returns a request for the event URL; header is "Name: value" lines.
func request(method, service string, header ...string) *http1.Request {
	r := &http1.Request{Method: method, Target: "/evt/" + service, Minor: 1, Length: -1, Header: make(http1.Header)}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		name = textproto.CanonicalMIMEHeaderKey(name)
		r.Header[name] = append(r.Header[name], value)
	}
	return r
}

// ask sends one request to Handle, and has its answer sent.
func ask(n *gena.Notifier, method string, sub gena.Subscriber, service string, initial func() []gena.Property, header ...string) *answered {
	got := n.Handle(request(method, service, header...), service, sub, initial)
	a := &answered{got.Status, bytes.NewBuffer(got.Body), map[string][]string{"Content-Length": {strconv.Itoa(len(got.Body))}}}
	for _, f := range got.Header {
		a.header[f.Name] = append(a.header[f.Name], f.Value)
	}
	if got.Sent != nil {
		got.Sent(nil)
	}
	return a
}

func values(p ...gena.Property) func() []gena.Property {
	return func() []gena.Property { return p }
}

// subscribe begins a subscription that must be granted, and gives its SID.
func (h *home) subscribe(sub gena.Subscriber, service string, initial func() []gena.Property, ports ...uint16) string {
	h.t.Helper()
	if len(ports) == 0 {
		ports = []uint16{openPort}
	}
	w := ask(h.Notifier, "SUBSCRIBE", sub, service, initial, "CALLBACK: "+callbackTo(sub, ports...), "NT: upnp:event")
	if w.Code != http.StatusOK {
		h.t.Fatalf("SUBSCRIBE: %d", w.Code)
	}
	return one(h.t, w.Header(), "SID")
}

// one returns the value of a header that must be there once, in this very case.
func one(t *testing.T, h map[string][]string, name string) string {
	t.Helper()
	if len(h[name]) != 1 {
		t.Fatalf("%d %s headers in %v", len(h[name]), name, h)
	}
	return h[name][0]
}

func prop(name string, value int) gena.Property {
	return gena.Property{Name: name, Value: strconv.Itoa(value)}
}

// body returns the message body for these properties, as UDA 1.1 section 4.3.2 shows it.
func body(props ...gena.Property) string {
	var b strings.Builder
	b.WriteString("<?xml version=\"1.0\"?>\n<e:propertyset xmlns:e=\"urn:schemas-upnp-org:event-1-0\">\n")
	for _, p := range props {
		b.WriteString("<e:property><" + p.Name + ">" + p.Value + "</" + p.Name + "></e:property>\n")
	}
	b.WriteString("</e:propertyset>\n")
	return b.String()
}

// told is a message in short, for comparing: its number and body.
type told struct{ Seq, Body string }

func short(ns []notify) []told {
	var out []told
	for _, n := range ns {
		out = append(out, told{n.seq(), n.body})
	}
	return out
}
