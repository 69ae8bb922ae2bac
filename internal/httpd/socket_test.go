package httpd_test

import (
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"portcullis/internal/httpd"
	"portcullis/internal/slog"
)

// serve6 starts a server on the loopback device, on all addresses of IPv6, which
// accepts what came to ::1, and gives its port.
func serve6(t *testing.T, h *counting) uint16 {
	t.Helper()
	self := netip.IPv6Loopback()
	s, err := httpd.New(httpd.Config{
		Logger: slog.New(slog.DiscardHandler), Handler: h,
		Accept: func(_, local netip.AddrPort) bool { return local.Addr() == self },
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := httpd.Listen(t.Context(), "lo", netip.AddrPortFrom(netip.IPv6Unspecified(), 0))
	if err != nil {
		t.Fatal(err)
	}
	run(t, s, l)
	return netip.MustParseAddrPort(l.Addr().String()).Port()
}

// TestListen6: A7 and A8, a socket for all addresses of IPv6 serves no IPv4; and
// Host is one of them, in brackets.
func TestListen6(t *testing.T) {
	t.Parallel()
	h := &counting{}
	port := serve6(t, h)
	at := netip.AddrPortFrom(netip.IPv6Loopback(), port).String()
	if conn, err := net.Dial("tcp4", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port).String()); err == nil {
		conn.Close()
		t.Error("A8: the socket takes IPv4 too")
	}
	for _, c := range []struct {
		name, host string
		want       int
	}{
		{"as dialled", at, 200},
		{"without port", "[::1]", 200},
		{"with a zone", strings.Replace(at, "]", "%25eth0]", 1), 200},
		{"D1/no brackets", "::1", 403},
		{"D1/other address", "[fe80::1]", 403},
		{"D1/other port", "[::1]:1", 403},
		{"D1/IPv4", "127.0.0.1", 403},
		{"A8/mapped", "[::ffff:127.0.0.1]", 403},
		{"D1/name", "localhost", 403},
	} {
		before := h.effects.Load()
		answer := exchange6(t, at, "GET /x HTTP/1.1\r\nHost: "+c.host+"\r\n\r\n")
		if got := statuses(t, answer, "GET"); len(got) != 1 || got[0] != c.want {
			t.Errorf("%s: status %v, want %d", c.name, got, c.want)
		}
		if done := h.effects.Load() > before; done != (c.want == 200) {
			t.Errorf("%s: the handler was reached: %v", c.name, done)
		}
	}
}

func exchange6(t *testing.T, to, request string) []byte {
	t.Helper()
	conn, err := net.Dial("tcp6", to)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(conn, request)
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Errorf("read: %v", err)
	}
	return answer
}
