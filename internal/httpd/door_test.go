package httpd

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"
)

// connected returns both ends of a connection through a door.
func connected(t *testing.T, at string) (*door, *stream, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	d, err := newDoor(l.(*net.TCPListener))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	port := netip.MustParseAddrPort(l.Addr().String()).Port()
	to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
	if d.local.Addr().Is6() {
		to = netip.AddrPortFrom(netip.IPv6Loopback(), port)
	}
	client, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	s, err := d.accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if want := netip.MustParseAddrPort(client.LocalAddr().String()); s.remote != want || s.local != to {
		t.Errorf("the ends are %v and %v, want %v and %v", s.remote, s.local, want, to)
	}
	return d, s, client
}

// TestDoor: a connection knows its ends, also where the listener is on any address.
func TestDoor(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"127.0.0.1:0", "[::1]:0", "[::]:0"} {
		t.Run(at, func(t *testing.T) {
			d, s, client := connected(t, at)
			if _, err := client.Write([]byte("here")); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 4)
			if _, err := io.ReadFull(s, got); err != nil || string(got) != "here" {
				t.Errorf("read %q, %v", got, err)
			}
			if err := d.SetDeadline(time.Unix(1, 0)); err != nil {
				t.Fatal(err)
			}
			if _, err := d.accept(); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("accept ended with %v", err)
			}
			if err := d.Close(); err != nil {
				t.Error(err)
			}
			if _, err := d.accept(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("accept ended with %v", err)
			}
		})
	}
}

// TestStreamWaits: what has not come yet is waited for, what does not fit the socket is
// written as it is read, and an end is one.
func TestStreamWaits(t *testing.T) {
	t.Parallel()
	_, s, client := connected(t, "127.0.0.1:0")
	reading := make(chan string, 1)
	go func() {
		got := make([]byte, 8)
		n, err := io.ReadFull(s, got)
		if err != nil {
			t.Error(err)
		}
		reading <- string(got[:n])
	}()
	for _, part := range []string{"one ", "more"} {
		if _, err := client.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	if got := <-reading; got != "one more" {
		t.Errorf("read %q", got)
	}
	long := bytes.Repeat([]byte("answer "), 4<<20)
	written := make(chan error, 1)
	go func() {
		_, err := s.Write(long)
		written <- errors.Join(err, s.CloseWrite())
	}()
	got, err := io.ReadAll(client)
	if err := errors.Join(err, <-written); err != nil || !bytes.Equal(got, long) {
		t.Errorf("%d octets of %d came: %v", len(got), len(long), err)
	}
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("the end is %d, %v", n, err)
	}
}

// TestStreamEnds: a deadline and Close end who waits, and nothing reaches the connection
// that has its number afterwards.
func TestStreamEnds(t *testing.T) {
	t.Parallel()
	d, s, client := connected(t, "127.0.0.1:0")
	if err := s.SetDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("reading ended with %v", err)
	}
	if err := s.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := s.Read(make([]byte, 1))
		ended <- err
	}()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) && !errors.Is(err, os.ErrClosed) {
		t.Errorf("reading ended with %v", err)
	}
	second, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(s.local))
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	next, err := d.accept() // with the number that is free now, most likely
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if _, err := s.Write([]byte("lost")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("writing ended with %v", err)
	}
	if err := s.CloseWrite(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("ending the answer ended with %v", err)
	}
	if got, err := io.ReadAll(client); len(got) > 0 {
		t.Errorf("the client got %q, %v", got, err)
	}
	if _, err := next.Write([]byte("mine")); err != nil {
		t.Error(err)
	}
	if err := next.Close(); err != nil {
		t.Error(err)
	}
	if got, err := io.ReadAll(second); string(got) != "mine" {
		t.Errorf("the second client got %q, %v", got, err)
	}
}
