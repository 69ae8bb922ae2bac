package httpd_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/internal/http1"
	"portcullis/internal/httpd"
	"portcullis/internal/slog"
)

// counting is a handler that keeps the body and counts what reached it.
type counting struct {
	effects atomic.Int32
	body    atomic.Value
}

func (c *counting) ServeHTTP(r *http1.Request) *http1.Response {
	c.effects.Add(1)
	c.body.Store(string(r.Body))
	return httpd.XML(http1.OK, []byte("<ok/>"))
}

// serve starts a server on loopback and gives its address.
func serve(t testing.TB, cfg httpd.Config) netip.AddrPort {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s, err := httpd.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	run(t, s, l)
	return netip.MustParseAddrPort(l.Addr().String())
}

// run serves a listener until the test ends.
func run(t testing.TB, s *httpd.Server, l net.Listener) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Serve ended with %v", err)
		}
	})
}

// exchange sends bytes, ends the sending side, and gives all that comes back.
func exchange(t testing.TB, to netip.AddrPort, request string) []byte {
	t.Helper()
	conn, err := net.Dial("tcp4", to.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	// The server may have refused and closed before all was written.
	_, _ = io.WriteString(conn, request)
	_ = conn.(*net.TCPConn).CloseWrite()
	answer, _ := io.ReadAll(conn)
	return answer
}

// statuses reads every response in the bytes.
func statuses(t testing.TB, answer []byte, method string) []int {
	t.Helper()
	var all []int
	r := bufio.NewReader(bytes.NewReader(answer))
	for {
		resp, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			return all
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Errorf("response body: %v", err)
		}
		if resp.StatusCode == http.StatusContinue {
			continue
		}
		for name := range resp.Header {
			if strings.HasPrefix(name, "Access-Control-") {
				t.Errorf("D3: the answer has %s", name)
			}
		}
		all = append(all, resp.StatusCode)
	}
}

// TestPulse: who asks whether a server serves is answered by the goroutine that accepts: not
// before Serve, not while a connection holds it up, and in a flood of them.
func TestPulse(t *testing.T) {
	t.Parallel()
	hangs, entered := make(chan struct{}), make(chan struct{}, 1)
	s, err := httpd.New(httpd.Config{
		Logger: slog.New(slog.DiscardHandler), Handler: new(counting),
		Accept: func(_, _ netip.AddrPort) bool {
			select {
			case entered <- struct{}{}:
			default:
			}
			<-hangs
			return true
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	early := s.Pulse()
	run(t, s, l)
	<-early
	<-s.Pulse()
	asked := make(chan []byte, 1)
	go func() {
		asked <- exchange(t, netip.MustParseAddrPort(l.Addr().String()), "GET / HTTP/1.1\r\nHost: "+l.Addr().String()+"\r\n\r\n")
	}()
	<-entered
	pulse := s.Pulse()
	select {
	case <-pulse:
		t.Error("an answer from a server that hangs")
	default:
	}
	close(hangs)
	<-pulse
	if got := statuses(t, <-asked, http.MethodGet); len(got) != 1 || got[0] != http.StatusOK {
		t.Errorf("the request was answered with %v", got)
	}
	flood, stop := context.WithCancel(t.Context())
	var dialing sync.WaitGroup
	for range 4 {
		dialing.Go(func() {
			for flood.Err() == nil {
				if c, err := net.Dial("tcp4", l.Addr().String()); err == nil {
					_ = c.Close()
				}
			}
		})
	}
	for range 20 {
		<-s.Pulse()
	}
	stop()
	dialing.Wait()
}

// TestRequests sends whole requests; @ stands for the server's own address, ~ for @. A
// refusal has no effect, and every connection gets exactly one response.
func TestRequests(t *testing.T) {
	t.Parallel()
	const (
		ok   = 200
		body = "Content-Length: 4\r\n\r\nbody"
	)
	for _, c := range []struct {
		name, request string
		want          int
	}{
		{"get", "GET /x HTTP/1.1\r\nHost: @\r\n\r\n", ok},
		{"head", "HEAD /x HTTP/1.1\r\nHost: @\r\n\r\n", ok},
		{"post", "POST /x HTTP/1.1\r\nHost: @\r\n" + body, ok},
		{"subscribe", "SUBSCRIBE /x HTTP/1.1\r\nHost: @\r\n\r\n", ok},
		{"host without port", "GET /x HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", ok},
		{"DESC-4/HTTP 1.0", "GET /x HTTP/1.0\r\nHost: @\r\n\r\n", ok},
		{"lower case", "get /x HTTP/1.1\r\nHost: @\r\n\r\n", 405},
		{"expect continue", "POST /x HTTP/1.1\r\nHost: @\r\nExpect: 100-continue\r\n" + body, ok},

		{"DESC-5/evil host", "GET /x HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403},
		{"D1/evil host with our port", "GET /x HTTP/1.1\r\nHost: evil.example:5000\r\n\r\n", 403},
		{"D1/localhost", "GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n", 403},
		{"D1/other address", "GET /x HTTP/1.1\r\nHost: 192.168.1.1\r\n\r\n", 403},
		{"D1/other port", "GET /x HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n", 403},
		{"D1/odd literal", "GET /x HTTP/1.1\r\nHost: 127.1\r\n\r\n", 403},
		{"D1/mapped literal", "GET /x HTTP/1.1\r\nHost: [::ffff:127.0.0.1]\r\n\r\n", 403},
		{"D1/userinfo", "GET /x HTTP/1.1\r\nHost: a~127.0.0.1\r\n\r\n", 403},
		{"D1/host and port twice", "GET /x HTTP/1.1\r\nHost: @:80\r\n\r\n", 403},
		{"D1/no host", "GET /x HTTP/1.1\r\n\r\n", 400},
		{"D1/no host in HTTP 1.0", "GET /x HTTP/1.0\r\n\r\n", 400},
		{"D1/empty host", "GET /x HTTP/1.1\r\nHost:\r\n\r\n", 400},
		{"D1/two hosts", "GET /x HTTP/1.1\r\nHost: @\r\nHost: @\r\n\r\n", 400},
		{"ODD-12/absolute target", "POST http://@/x HTTP/1.1\r\nHost: @\r\n" + body, ok},
		{"ODD-12/absolute target without a port", "GET http://127.0.0.1/x HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", ok},
		{"ODD-12/the target's authority counts", "GET http://@/x HTTP/1.1\r\nHost: evil.example\r\n\r\n", ok},
		{"D1/absolute target elsewhere", "GET http://evil.example/x HTTP/1.1\r\nHost: @\r\n\r\n", 403},
		{"D1/absolute target at another port", "GET http://127.0.0.1:1/x HTTP/1.1\r\nHost: @\r\n\r\n", 403},
		{"D1/absolute target with a user", "GET http://a~127.0.0.1/x HTTP/1.1\r\nHost: @\r\n\r\n", 400},
		{"D1/absolute target with a user that looks like us", "GET http://127.0.0.1~evil.example/x HTTP/1.1\r\nHost: @\r\n\r\n", 400},
		{"D1/absolute target without Host", "GET http://@/x HTTP/1.1\r\n\r\n", 400},
		{"D1/absolute target in capitals", "GET HTTP://@/x HTTP/1.1\r\nHost: @\r\n\r\n", 400},
		{"D1/absolute target of TLS", "GET https://@/x HTTP/1.1\r\nHost: @\r\n\r\n", 400},
		{"D1/absolute target without a path", "GET http://@ HTTP/1.1\r\nHost: @\r\n\r\n", 400},
		{"D1/absolute target with a query alone", "GET http://@?x HTTP/1.1\r\nHost: @\r\n\r\n", 400},
		{"D1/absolute target without authority", "GET http:///x HTTP/1.1\r\nHost: @\r\n\r\n", 400},
		{"connect", "CONNECT @ HTTP/1.1\r\nHost: @\r\n\r\n", 400},
		{"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400},

		{"D3/options", "OPTIONS /ctl HTTP/1.1\r\nHost: @\r\nAccess-Control-Request-Private-Network: true\r\n\r\n", 405},
		{"D3/options *", "OPTIONS * HTTP/1.1\r\nHost: @\r\n\r\n", 400},
		{"D4/origin", "POST /x HTTP/1.1\r\nHost: @\r\nOrigin: http://evil.example\r\n" + body, 403},
		{"D4/sec-fetch", "POST /x HTTP/1.1\r\nHost: @\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Site: cross-site\r\n" + body, 403},
		{"ODD-16/sec-fetch-mode alone, as Node sends it", "POST /x HTTP/1.1\r\nHost: @\r\nSec-Fetch-Mode: cors\r\n" + body, ok},
		{"D4/referer", "SUBSCRIBE /x HTTP/1.1\r\nHost: @\r\nReferer: http://a/\r\n\r\n", 403},
		{"D4/cookie", "POST /x HTTP/1.1\r\nHost: @\r\nCookie: a=b\r\n" + body, 403},
		{"D4/upgrade", "GET /x HTTP/1.1\r\nHost: @\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 403},

		{"G6/no length", "POST /x HTTP/1.1\r\nHost: @\r\n\r\n", 411},
		{"G6/length and chunked", "POST /x HTTP/1.1\r\nHost: @\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501},
		{"SOAP-41/CHOICE-17/G10/chunked", "POST /x HTTP/1.1\r\nHost: @\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n", 501},
		{"G10/negative chunk", "POST /x HTTP/1.1\r\nHost: @\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n", 501},
		{"G6/other encoding", "POST /x HTTP/1.1\r\nHost: @\r\nTransfer-Encoding: gzip\r\n\r\nx", 501},
		{"G6/two lengths", "POST /x HTTP/1.1\r\nHost: @\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nbody", 400},
		{"G6/negative length", "POST /x HTTP/1.1\r\nHost: @\r\nContent-Length: -4\r\n\r\nbody", 400},
		{"G6/plus length", "POST /x HTTP/1.1\r\nHost: @\r\nContent-Length: +4\r\n\r\nbody", 400},
		{"G6/hex length", "POST /x HTTP/1.1\r\nHost: @\r\nContent-Length: 0x4\r\n\r\nbody", 400},
		{"G6/length with text", "POST /x HTTP/1.1\r\nHost: @\r\nContent-Length: 4, 4\r\n\r\nbody", 400},
		{"G6/space before colon", "POST /x HTTP/1.1\r\nHost: @\r\nContent-Length : 4\r\n\r\nbody", 400},
		{"G6/two soapactions", "POST /x HTTP/1.1\r\nHost: @\r\nSOAPAction: a\r\nSoapaction: b\r\n" + body, 400},
		{"G6/equal lengths", "POST /x HTTP/1.1\r\nHost: @\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nbody", 400},
		{"G6/encoding in HTTP 1.0", "POST /x HTTP/1.0\r\nHost: @\r\nTransfer-Encoding: chunked\r\n" + body, 501},
		{"G6/bare LF", "POST /x HTTP/1.1\nHost: @\nContent-Length: 4\n\nbody", 400},
		{"G6/one bare LF", "POST /x HTTP/1.1\r\nHost: @\nContent-Length: 4\r\n\r\nbody", 400},
		{"G6/bare CR in a value", "POST /x HTTP/1.1\r\nHost: @\r\nX: a\rContent-Length: 0\r\n" + body, 400},
		{"G6/folded line", "POST /x HTTP/1.1\r\nHost: @\r\nX: a\r\n b\r\n" + body, 400},
		{"G6/NUL in a value", "POST /x HTTP/1.1\r\nHost: @\r\nX: a\x00b\r\n" + body, 400},
		{"G6/no name", "POST /x HTTP/1.1\r\nHost: @\r\n: b\r\n" + body, 400},
		{"G6/two spaces", "POST  /x HTTP/1.1\r\nHost: @\r\n" + body, 400},
		{"G6/tab in the request line", "POST\t/x HTTP/1.1\r\nHost: @\r\n" + body, 400},
		{"G6/no version", "GET /x\r\nHost: @\r\n\r\n", 400},
		{"G6/version 1.10", "GET /x HTTP/1.10\r\nHost: @\r\n\r\n", 400},
		{"empty line in front", "\r\nPOST /x HTTP/1.1\r\nHost: @\r\n" + body, ok},
		{"two empty lines in front", "\r\n\r\nPOST /x HTTP/1.1\r\nHost: @\r\n" + body, 400},
		{"expect something else", "POST /x HTTP/1.1\r\nHost: @\r\nExpect: wonders\r\n" + body, 417},
		{"SOAP-40/short body", "POST /x HTTP/1.1\r\nHost: @\r\nContent-Length: 400\r\n\r\nbody", 400},

		{"G7/huge length", "POST /x HTTP/1.1\r\nHost: @\r\nContent-Length: 2147483647\r\n\r\nbody", 413},
		{"G7/length beyond int64", "POST /x HTTP/1.1\r\nHost: @\r\nContent-Length: 99999999999999999999\r\n\r\nbody", 400},
		{"G7/one byte over", fmt.Sprintf("POST /x HTTP/1.1\r\nHost: @\r\nContent-Length: %d\r\n\r\n%s", 16<<10+1, strings.Repeat("x", 16<<10+1)), 413},
		{"G7/exactly the cap", fmt.Sprintf("POST /x HTTP/1.1\r\nHost: @\r\nContent-Length: %d\r\n\r\n%s", 16<<10, strings.Repeat("x", 16<<10)), ok},
		{"G7/long header", "GET /x HTTP/1.1\r\nHost: @\r\nX: " + strings.Repeat("x", 9000) + "\r\n\r\n", 431},
		{"G7/many headers", "GET /x HTTP/1.1\r\nHost: @\r\n" + strings.Repeat("X: y\r\n", 3000) + "\r\n", 431},
		{"G9/put", "PUT /x HTTP/1.1\r\nHost: @\r\n" + body, 405},
		{"G9/delete", "DELETE /x HTTP/1.1\r\nHost: @\r\n\r\n", 405},
		{"M-POST", "M-POST /x HTTP/1.1\r\nHost: @\r\n" + body, 405},
		{"garbage", "\x16\x03\x01\x02\x00\x01\x00", 400},
		{"SSDP on TCP", "M-SEARCH * HTTP/1.1\r\nHost: @\r\n\r\n", 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := &counting{}
			to := serve(t, httpd.Config{Handler: h, MaxConnsPerDevice: 64})
			answer := exchange(t, to, strings.NewReplacer("@", to.String(), "~", "@").Replace(c.request))
			method, _, _ := strings.Cut(c.request, " ")
			got := statuses(t, answer, method)
			if len(got) != 1 || got[0] != c.want {
				t.Errorf("answered %v, want %d\n%.300q", got, c.want, answer)
			}
			if effects := h.effects.Load(); (effects == 1) != (c.want == ok) {
				t.Errorf("%d effects", effects)
			}
		})
	}
}

// TestOneRequestPerConnection: what follows the first request is never parsed,
// however the first one ends (abuse case G6).
func TestOneRequestPerConnection(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]string{
		"plain":               "POST /x HTTP/1.1\r\nHost: @\r\nContent-Length: 4\r\n\r\nbody",
		"keep-alive":          "POST /x HTTP/1.1\r\nHost: @\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\nbody",
		"HTTP/1.0":            "POST /x HTTP/1.0\r\nHost: @\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\nbody",
		"encoding in 1.0":     "POST /x HTTP/1.0\r\nHost: @\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\nbody",
		"bare LF":             "POST /x HTTP/1.1\nHost: @\nContent-Length: 4\n\nbody",
		"folded header":       "POST /x HTTP/1.1\r\nHost: @\r\nX: a\r\n b\r\nContent-Length: 4\r\n\r\nbody",
		"equal lengths":       "POST /x HTTP/1.1\r\nHost: @\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nbody",
		"empty line in front": "\r\nPOST /x HTTP/1.1\r\nHost: @\r\nContent-Length: 4\r\n\r\nbody",
		"get with a body":     "GET /x HTTP/1.1\r\nHost: @\r\nContent-Length: 4\r\n\r\nbody",
		"refused":             "POST /x HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 4\r\n\r\nbody",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := &counting{}
			to := serve(t, httpd.Config{Handler: h, MaxConnsPerDevice: 64})
			second := "POST /x HTTP/1.1\r\nHost: @\r\nContent-Length: 6\r\n\r\nsecond"
			answer := exchange(t, to, strings.ReplaceAll(first+second+second, "@", to.String()))
			if got := statuses(t, answer, "POST"); len(got) != 1 {
				t.Errorf("%d responses: %v", len(got), got)
			}
			if n := h.effects.Load(); n > 1 || n == 1 && h.body.Load() == "second" {
				t.Errorf("%d effects, body %q", n, h.body.Load())
			}
		})
	}
}

func TestReplyHeaders(t *testing.T) {
	t.Parallel()
	to := serve(t, httpd.Config{Handler: &counting{}, Server: "Linux UPnP/1.1 Portcullis"})
	answer := string(exchange(t, to, "GET /x HTTP/1.1\r\nHost: "+to.String()+"\r\n\r\n"))
	for _, want := range []string{"\r\nEXT: \r\n", "\r\nServer: Linux UPnP/1.1 Portcullis\r\n", "\r\nDate: ",
		"\r\nContent-Type: text/xml; charset=\"utf-8\"\r\n", "\r\nContent-Length: 5\r\n", "\r\nConnection: close\r\n"} {
		if !strings.Contains(answer, want) {
			t.Errorf("no %q in\n%s", want, answer)
		}
	}
}

func TestAccept(t *testing.T) {
	t.Parallel()
	h := &counting{}
	asked := make(chan netip.AddrPort, 1)
	to := serve(t, httpd.Config{Handler: h, Accept: func(remote, local netip.AddrPort) bool {
		asked <- remote
		return false
	}})
	if got := exchange(t, to, "GET /x HTTP/1.1\r\nHost: "+to.String()+"\r\n\r\n"); len(got) != 0 || h.effects.Load() != 0 {
		t.Errorf("A6: an off-link source got %q", got)
	}
	if remote := <-asked; remote.Addr() != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("asked about %v", remote)
	}
}

// TestSlowRequest: the deadline is for the whole request (abuse case G8).
func TestSlowRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const timeout = 10 * time.Second
		h := &counting{}
		r := start(t, httpd.Config{Handler: h, Timeout: timeout})
		defer r.end(t)
		began := time.Now()
		conn := r.dial("192.168.1.50:50000")
		conn.send("POST /x HTTP/1.1\r\nHost: " + gateAddr.String() + "\r\nContent-Length: 4\r\n\r\nbo")
		if _, err := io.ReadAll(conn); err != nil {
			t.Errorf("the server did not close: %v", err)
		}
		if took := time.Since(began); took != timeout {
			t.Errorf("closed after %v, want %v", took, timeout)
		}
		if h.effects.Load() != 0 {
			t.Error("SOAP-40: half a body had an effect")
		}
		_ = conn.Close()
	})
}

func TestRequestRate(t *testing.T) {
	t.Parallel()
	h := &counting{}
	to := serve(t, httpd.Config{Handler: h, RequestsPerSecond: 2})
	refused := 0
	for range 50 {
		got := statuses(t, exchange(t, to, "GET /x HTTP/1.1\r\nHost: "+to.String()+"\r\n\r\n"), "GET")
		if len(got) == 1 && got[0] == 503 {
			refused++
		}
	}
	if served := int(h.effects.Load()); served < 4 || refused == 0 || served+refused != 50 {
		t.Errorf("%d served, %d refused", served, refused)
	}
}

// TestPanics: one is answered with 500, the third ends the server.
func TestPanics(t *testing.T) {
	t.Parallel()
	s, err := httpd.New(httpd.Config{Logger: slog.New(slog.DiscardHandler),
		Handler: http1.HandlerFunc(func(*http1.Request) *http1.Response { panic("test") })})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(context.Background(), l) }()
	to := netip.MustParseAddrPort(l.Addr().String())
	for range 3 {
		got := statuses(t, exchange(t, to, "GET /x HTTP/1.1\r\nHost: "+to.String()+"\r\n\r\n"), "GET")
		if len(got) != 1 || got[0] != 500 {
			t.Errorf("answered %v", got)
		}
	}
	if err := <-ended; !errors.Is(err, httpd.ErrPanics) {
		t.Errorf("Serve ended with %v", err)
	}
}

// TestAbort: a handler may choose silence as often as it likes.
func TestAbort(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	to := serve(t, httpd.Config{Logger: slog.New(slog.NewTextHandler(&log, nil)),
		Handler: http1.HandlerFunc(func(*http1.Request) *http1.Response { return nil })})
	for range 5 {
		if got := exchange(t, to, "GET /x HTTP/1.1\r\nHost: "+to.String()+"\r\n\r\n"); len(got) > 0 {
			t.Errorf("answered %q", got)
		}
	}
	if log.Len() > 0 {
		t.Errorf("logged %s", log.String())
	}
}

func TestPortTaken(t *testing.T) {
	t.Parallel()
	first, err := httpd.Listen(t.Context(), "lo", netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	second, err := httpd.Listen(t.Context(), "lo", netip.MustParseAddrPort(first.Addr().String()))
	if err == nil {
		second.Close()
		t.Fatal("two listeners on one port")
	}
	if !strings.Contains(err.Error(), "upnp.http_port") {
		t.Errorf("the error names no remedy: %v", err)
	}
}

// FuzzHead sends any bytes through the whole server: at most one effect and at
// most one response a connection.
func FuzzHead(f *testing.F) {
	for _, seed := range []string{
		"GET /x HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
		"POST /x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 4\r\n\r\nbodyPOST /x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\n\r\nx",
		"POST /x HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"SUBSCRIBE /x HTTP/1.0\r\nHost: 127.0.0.1\r\nCallback: <http://a/>\r\n\r\n",
		"\r\n\r\nGET / HTTP/1.1\nHost:127.0.0.1\n\n",
		"GET http://127.0.0.1/x HTTP/1.1\r\nHost: evil.example\r\n\r\n",
		"GET http://a@127.0.0.1:1/x HTTP/1.0\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	h := &counting{}
	to := serve(f, httpd.Config{Handler: h, Timeout: time.Second})
	f.Fuzz(func(t *testing.T, request []byte) {
		before := h.effects.Load()
		answer := exchange(t, to, string(request))
		method, _, _ := bytes.Cut(request, []byte(" "))
		if got := statuses(t, answer, string(method)); len(got) > 1 {
			t.Errorf("%d responses: %v", len(got), got)
		}
		if n := h.effects.Load() - before; n > 1 {
			t.Errorf("%d effects", n)
		}
	})
}
