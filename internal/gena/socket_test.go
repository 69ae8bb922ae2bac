package gena_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"portcullis/internal/gena"
	"portcullis/internal/http1"
	"portcullis/internal/httpd"
	"portcullis/internal/slog"
)

// The tests here use real sockets on the loopback interface, where the gateway
// is 127.0.0.1 and its hosts have other addresses of 127.0.0.0/8.
var (
	gateAddr = netip.MustParseAddr("127.0.0.1")
	hostAddr = netip.MustParseAddr("127.0.0.2")
)

// patience is how long a test waits for what must happen.
const patience = 10 * time.Second

// serve runs a gate with one event URL and the real Dial; it gives the
// address of its HTTP server.
func serve(t *testing.T, cfg gena.Config, initial func() []gena.Property) (*gena.Notifier, string) {
	t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	if cfg.Dial == nil {
		cfg.Dial = func(ctx context.Context, sub gena.Subscriber, to netip.AddrPort) (net.Conn, error) {
			return gena.Dial(ctx, sub.Interface, sub.Local, to)
		}
	}
	n := gena.New(cfg)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv, err := httpd.New(httpd.Config{Logger: cfg.Logger, Handler: http1.HandlerFunc(func(r *http1.Request) *http1.Response {
		return n.Handle(r, "conn", gena.Subscriber{Addr: r.Remote.Addr(), Local: gateAddr, Interface: "lo"}, initial)
	})})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(ctx, l) })
	wg.Go(func() { _ = n.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return n, l.Addr().String()
}

// dial connects to the gate from hostAddr.
func dial(t *testing.T, gate string) *net.TCPConn {
	t.Helper()
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(hostAddr, 0)), Timeout: patience}
	conn, err := d.Dial("tcp", gate)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return conn.(*net.TCPConn)
}

// exchange sends a request as bytes, and gives all that came back until the
// connection ended.
func exchange(t *testing.T, gate, request string) string {
	t.Helper()
	conn := dial(t, gate)
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}

// arrived returns what has come by now, and whether that is all: it does not wait.
func arrived(conn *net.TCPConn) (text string, ended bool) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return "", false
	}
	buf := make([]byte, 4096)
	_ = raw.Read(func(fd uintptr) bool {
		for {
			n, err := unix.Read(int(fd), buf)
			if err != nil || n == 0 {
				ended = err == nil
				return true
			}
			text += string(buf[:n])
		}
	})
	return text, ended
}

func subscribeBytes(gate, callback string) string {
	return "SUBSCRIBE /evt/conn HTTP/1.1\r\nHOST: " + gate + "\r\nCALLBACK: " + callback + "\r\nNT: upnp:event\r\nTIMEOUT: Second-300\r\n\r\n"
}

// A listener is a subscriber's own HTTP server: it gives each connection, after
// the NOTIFY was read from it, to answer, and then closes it.
func listener(t *testing.T, answer func(net.Conn)) (addr string, heard <-chan notify) {
	t.Helper()
	l, err := net.Listen("tcp", netip.AddrPortFrom(hostAddr, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan notify, 16)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(patience))
				n, err := readNotify(conn)
				if err != nil {
					t.Errorf("subscriber: %v", err)
					return
				}
				n.to = netip.MustParseAddrPort(conn.RemoteAddr().String())
				got <- n
				answer(conn)
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String(), got
}

// silentPort returns an address where nobody listens, and nobody else can meanwhile:
// the port is taken.
func silentPort(t *testing.T) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: hostAddr.As4()}); err != nil {
		t.Fatal(err)
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(hostAddr, uint16(bound.(*unix.SockaddrInet4).Port)).String()
}

func hear(t *testing.T, heard <-chan notify) notify {
	t.Helper()
	select {
	case n := <-heard:
		return n
	case <-time.After(patience):
		t.Fatal("no NOTIFY")
		return notify{}
	}
}

func sayOK(conn net.Conn) { _, _ = io.WriteString(conn, ok200) }

func TestOverSockets(t *testing.T) {
	t.Parallel()
	t.Run("GENA-1/subscription and first event", func(t *testing.T) {
		t.Parallel()
		n, gate := serve(t, gena.Config{Server: "Linux UPnP/1.1 Portcullis"}, values(
			gena.Property{Name: "ConnectionStatus", Value: "Connected"}, gena.Property{Name: "ExternalIPAddress", Value: "203.0.113.7"}))
		conn := dial(t, gate)
		replies := make(chan string, 2) // one for each event; the second has nothing new
		addr, heard := listener(t, func(subscriber net.Conn) {
			reply, ended := arrived(conn)
			if !ended {
				t.Error("the first event came before the end of the answer")
			}
			replies <- reply
			sayOK(subscriber)
		})
		if _, err := io.WriteString(conn, subscribeBytes(gate, "<http://"+addr+"/cb?a=%2f>")); err != nil {
			t.Fatal(err)
		}
		got := hear(t, heard)
		reply := <-replies
		head, rest, _ := strings.Cut(reply, "\r\n\r\n")
		lines := strings.Split(head, "\r\n")
		sid := ""
		for _, line := range lines {
			if v, ok := strings.CutPrefix(line, "SID: "); ok {
				sid = v
			}
		}
		for _, want := range []string{"HTTP/1.1 200 OK", "TIMEOUT: Second-1800", "Content-Length: 0", "SERVER: Linux UPnP/1.1 Portcullis", "Connection: close"} {
			if !strings.Contains(head+"\r\n", want+"\r\n") {
				t.Errorf("no line %q in %q", want, head)
			}
		}
		if rest != "" || !sidForm.MatchString(sid) || strings.Count(head, "\r\nDate: ") != 1 {
			t.Errorf("got %q", reply)
		}
		if got.to.Addr() != gateAddr {
			t.Errorf("came from %v", got.to)
		}
		want := "NOTIFY /cb?a=%2f HTTP/1.1\r\n" +
			"HOST: " + addr + "\r\n" +
			"CONTENT-TYPE: text/xml; charset=\"utf-8\"\r\n" +
			"CONTENT-LENGTH: 244\r\n" +
			"NT: upnp:event\r\n" +
			"NTS: upnp:propchange\r\n" +
			"SID: " + sid + "\r\n" +
			"SEQ: 0\r\n" +
			"CONNECTION: close\r\n" +
			"\r\n" +
			"<?xml version=\"1.0\"?>\n" +
			"<e:propertyset xmlns:e=\"urn:schemas-upnp-org:event-1-0\">\n" +
			"<e:property><ConnectionStatus>Connected</ConnectionStatus></e:property>\n" +
			"<e:property><ExternalIPAddress>203.0.113.7</ExternalIPAddress></e:property>\n" +
			"</e:propertyset>\n"
		if diff := cmp.Diff(want, got.raw); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
		n.Publish("conn", []gena.Property{prop("PortMappingNumberOfEntries", 1)})
		if got := hear(t, heard); got.seq() != "1" || got.body != body(prop("PortMappingNumberOfEntries", 1)) {
			t.Errorf("GENA-2: got %q", got.raw)
		}
		for _, want := range []string{"HTTP/1.1 200 OK\r\n", "HTTP/1.1 412 Precondition Failed\r\n"} {
			reply := exchange(t, gate, "UNSUBSCRIBE /evt/conn HTTP/1.1\r\nHOST: "+gate+"\r\nSID: "+sid+"\r\n\r\n")
			if !strings.HasPrefix(reply, want) {
				t.Errorf("GENA-4: got %q, want %q", reply, want)
			}
		}
	})
	t.Run("GENA-8 CHOICE-8/refused before any connection", func(t *testing.T) {
		t.Parallel()
		_, gate := serve(t, gena.Config{Dial: noDial(t)}, values())
		for _, url := range []string{"<http://198.51.100.9:49200/cb>", "<http://127.0.0.1:49200/>", "<http://127.0.0.3:49200/>"} {
			if reply := exchange(t, gate, subscribeBytes(gate, url)); !strings.HasPrefix(reply, "HTTP/1.1 412 ") {
				t.Errorf("%s: got %q", url, reply)
			}
		}
	})
	t.Run("GENA-10/the first is closed", func(t *testing.T) {
		t.Parallel()
		_, gate := serve(t, gena.Config{}, values())
		closed := silentPort(t)
		addr, heard := listener(t, sayOK)
		exchange(t, gate, subscribeBytes(gate, "<http://"+closed+"/a><http://"+addr+"/b>"))
		if got := hear(t, heard); got.target != "/b" || got.seq() != "0" {
			t.Errorf("got %q", got.raw)
		}
	})
	t.Run("F7/long path", func(t *testing.T) {
		t.Parallel()
		_, gate := serve(t, gena.Config{}, values())
		addr, heard := listener(t, sayOK)
		path := "/" + strings.Repeat("%00A;/..", 28) + "?" // "http://127.0.0.2:NNNNN" and this are 248 bytes at most
		exchange(t, gate, subscribeBytes(gate, "<http://"+addr+path+">"))
		if got := hear(t, heard).target; got != path {
			t.Errorf("got %q\nwant %q", got, path)
		}
	})
	for name, answer := range map[string]func(net.Conn){
		"F6/reset": func(conn net.Conn) { _ = conn.(*net.TCPConn).SetLinger(0) },
		"F6/1 GB response": func(conn net.Conn) {
			chunk := make([]byte, 1<<16)
			for range 1 << 14 {
				if _, err := conn.Write(chunk); err != nil {
					return // cut off, as it must be
				}
			}
			t.Error("took a gigabyte")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, gate := serve(t, gena.Config{}, values())
			addr, heard := listener(t, answer)
			exchange(t, gate, subscribeBytes(gate, "<http://"+addr+"/>"))
			hear(t, heard)
			// The next change goes out only after the failure was booked.
			n.Publish("conn", []gena.Property{prop("A", 1)})
			if got := hear(t, heard).seq(); got != "1" {
				t.Errorf("SEQ %s", got)
			}
			waitFor(t, func() bool { return n.Stats() == gena.Stats{Failed: 2, Dropped: 1} })
		})
	}
	t.Run("F6/response in small pieces", func(t *testing.T) {
		t.Parallel()
		n, gate := serve(t, gena.Config{}, values())
		failed := make(chan error, 1)
		addr, heard := listener(t, func(conn net.Conn) {
			for _, piece := range strings.SplitAfter("HTTP/1.1 200 OK\r\nServer: tiny\r\nX: y\r\n\r\n", "\n") {
				if _, err := io.WriteString(conn, piece); err != nil {
					failed <- err
					return
				}
			}
			_, err := bufio.NewReader(conn).ReadByte()
			failed <- err
		})
		exchange(t, gate, subscribeBytes(gate, "<http://"+addr+"/>"))
		hear(t, heard)
		if err := <-failed; !errors.Is(err, io.EOF) {
			t.Errorf("the subscriber saw %v", err)
		}
		waitFor(t, func() bool { return n.Stats().Delivered == 1 })
	})
}

// waitFor polls for what has no channel: the end of a delivery.
func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for late := time.After(patience); !done(); {
		select {
		case <-tick.C:
		case <-late:
			t.Fatal("it did not happen")
		}
	}
}

func TestDial(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", netip.AddrPortFrom(hostAddr, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	to := netip.MustParseAddrPort(l.Addr().String())
	local := netip.MustParseAddr("127.0.0.7")

	conn, err := gena.Dial(t.Context(), "lo", local, to)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := netip.MustParseAddrPort(conn.LocalAddr().String()).Addr(); got != local {
		t.Errorf("from %v, want %v", got, local)
	}
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) {
		if got, err := unix.GetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE); got != "lo" || err != nil {
			t.Errorf("bound to %q, %v", got, err)
		}
	})

	if conn, err := gena.Dial(t.Context(), "", local, to); err == nil {
		conn.Close()
		t.Error("connected without an interface")
	}
	if conn, err := gena.Dial(t.Context(), "none-such0", local, to); !errors.Is(err, unix.ENODEV) {
		if err == nil {
			conn.Close()
		}
		t.Errorf("got %v, want %v", err, os.NewSyscallError("setsockopt", unix.ENODEV))
	}
}
