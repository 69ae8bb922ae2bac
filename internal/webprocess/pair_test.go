package webprocess

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/internal/web"
)

// ends returns both ends of a conversation.
func ends(t *testing.T) (opener, page *net.UnixConn) {
	t.Helper()
	a, b, err := pair()
	if err != nil {
		t.Fatal(err)
	}
	opener, err = talk(a)
	if err != nil {
		t.Fatal(err)
	}
	page, err = talk(b)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { opener.Close(); page.Close() })
	for _, c := range []*net.UnixConn{opener, page} {
		if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	return opener, page
}

// printed are lines that were.
type printed chan string

func (p printed) Write(line []byte) (int, error) {
	p <- strings.TrimSuffix(string(line), "\n")
	return len(line), nil
}

// TestConnections: the page gets connections that work, or learns why there is none; it is told
// of links, and takes them in order.
func TestConnections(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "socket")
	atOpener, atPage := ends(t)
	out := make(printed, 2)
	o := &opener{cfg: Config{Socket: socket, Hosts: []string{"127.0.0.1:8480"}, Out: out}, page: atOpener}
	served := make(chan error, 1)
	go func() { served <- o.serve(t.Context()) }()
	taken := make(chan [web.HashSize]byte, 2)
	h := newHome(atPage)
	h.link = func(hash [web.HashSize]byte) { taken <- hash }
	go h.listen()

	if conn, err := h.dial(t.Context()); conn != nil || !errors.Is(err, syscall.ENOENT) {
		t.Errorf("without a daemon: %v, %v", conn, err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range 3 {
		conn, err := h.dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		daemon, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(daemon, "x"); err != nil {
			t.Fatal(err)
		}
		_ = daemon.Close()
		if got, err := io.ReadAll(conn); string(got) != "x" || err != nil {
			t.Errorf("by the connection comes %q, %v", got, err)
		}
		_ = conn.Close()
	}
	for range 2 {
		if err := o.link(); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		line := <-out
		word, ok := strings.CutPrefix(line, "http://127.0.0.1:8480/#")
		if hash := <-taken; !ok || web.Hash(word) != hash || len(word) != 32 {
			t.Errorf("a link is %q", line)
		}
	}
	_ = atPage.Close()
	if err := <-served; err != nil {
		t.Errorf("after the end of the page: %v", err)
	}
}

// TestOpenerGoes: a page that waits for a connection then waits no longer.
func TestOpenerGoes(t *testing.T) {
	t.Parallel()
	atOpener, atPage := ends(t)
	h := newHome(atPage)
	go h.listen()
	done := make(chan error, 1)
	go func() { _, err := h.dial(context.Background()); done <- err }()
	if text, _, err := receive(atOpener); err != nil || string(text) != "c" {
		t.Fatalf("the page says %q, %v", text, err)
	}
	_ = atOpener.Close()
	select {
	case err := <-done:
		if err == nil {
			t.Error("it has a connection")
		}
	case <-time.After(20 * time.Second):
		t.Error("it waits")
	}
	if _, err := h.dial(context.Background()); err == nil {
		t.Error("it has a connection by nobody")
	}
}

// TestOwnedPage: what no page of ours says ends the opener; it opens nothing and prints nothing.
func TestOwnedPage(t *testing.T) {
	t.Parallel()
	for name, say := range map[string]func(*net.UnixConn) error{
		"a path":                     func(c *net.UnixConn) error { _, err := c.Write([]byte("c/run/docker.sock")); return err },
		"a link that nobody offered": func(c *net.UnixConn) error { _, err := c.Write([]byte("t")); return err },
		"what it is told itself":     func(c *net.UnixConn) error { _, err := c.Write(link("x")); return err },
		"more than there is":         func(c *net.UnixConn) error { _, err := c.Write(make([]byte, maxMessage+1)); return err },
		"a descriptor": func(c *net.UnixConn) error {
			_, _, err := c.WriteMsgUnix([]byte("c"), unix.UnixRights(int(os.Stdin.Fd())), nil)
			return err
		},
		"many descriptors": func(c *net.UnixConn) error {
			_, _, err := c.WriteMsgUnix([]byte("c"), unix.UnixRights(0, 1, 2), nil)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			atOpener, atPage := ends(t)
			var out strings.Builder
			o := &opener{cfg: Config{Socket: filepath.Join(t.TempDir(), "socket"), Hosts: []string{"x"}, Out: &out}, page: atOpener}
			if err := say(atPage); err != nil {
				t.Fatal(err)
			}
			if err := o.serve(t.Context()); !errors.Is(err, errMessage) || out.Len() > 0 {
				t.Errorf("%v, printed %q", err, &out)
			}
		})
	}
}
