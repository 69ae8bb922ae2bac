package httpd_test

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/internal/http1"
	"portcullis/internal/httpd"
)

// TestStop: whoever is being answered when the server ends has the answer; a connection
// whose request has not come is closed, and an answer without end is not waited for.
func TestStop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		r := start(t, httpd.Config{Handler: http1.HandlerFunc(func(r *http1.Request) *http1.Response {
			if r.Target == "/stuck" {
				<-stuck
				return nil
			}
			time.Sleep(time.Second)
			return http1.Empty(http1.OK)
		})})
		waiting, asked, endless := r.hold("192.168.1.50:50000"), r.dial("192.168.1.51:50000"), r.dial("192.168.1.52:50000")
		silence, answer, cut := waiting.all(), asked.all(), endless.all()
		asked.send(get)
		endless.send(strings.Replace(get, "/x", "/stuck", 1))
		synctest.Wait()
		began := time.Now()
		r.stop()
		if got := <-silence; got != "" || time.Since(began) != 0 {
			t.Errorf("who waits: %q after %v", got, time.Since(began))
		}
		if o := outcome(<-answer); o != served || time.Since(began) != time.Second {
			t.Errorf("who is answered: %q after %v", o, time.Since(began))
		}
		<-r.ended
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("ended after %v", took)
		}
		if got := <-cut; got != "" {
			t.Errorf("an answer without end: %q", got)
		}
		close(stuck)
		synctest.Wait()
	})
}

// failing is a listener that cannot accept for a while, then once, and never again.
type failing struct {
	net.Listener
	left atomic.Int32  // failures before one connection
	over chan struct{} // closed when the last error may come
	last error
}

func (f *failing) Accept() (net.Conn, error) {
	switch n := f.left.Add(-1); {
	case n > 0:
		return nil, fmt.Errorf("accept: %w", syscall.EMFILE)
	case n == 0:
		return f.Listener.Accept()
	}
	<-f.over
	return nil, f.last
}

// TestAcceptFails: too many open files are waited out; what does not pass ends the
// server.
func TestAcceptFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken")
		r := start(t, httpd.Config{Handler: &counting{}})
		f := &failing{over: make(chan struct{}), last: broken}
		f.left.Store(20)
		r.stop()
		<-r.ended
		r = &running{memory: listenInMemory(gateAddr), server: r.server, ended: make(chan error, 1)}
		f.Listener = r.memory
		began := time.Now()
		go func() { r.ended <- r.server.Serve(t.Context(), f) }()
		if o := r.ask("192.168.1.50:50000"); o != served {
			t.Errorf("got %q", o)
		}
		if took := time.Since(began); took < time.Second || took > time.Minute {
			t.Errorf("served after %v", took)
		}
		close(f.over)
		if err := <-r.ended; !errors.Is(err, broken) {
			t.Errorf("ended with %v", err)
		}
	})
}

// TestSentPanics: a panic of whoever waits for a response to be sent ends a connection,
// and not the program.
func TestSentPanics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, httpd.Config{Handler: http1.HandlerFunc(func(*http1.Request) *http1.Response {
			return &http1.Response{Status: http1.OK, Sent: func(error) { panic("a test") }}
		})})
		for range 2 {
			if o := r.ask("192.168.1.50:50000"); o != served {
				t.Errorf("got %q", o)
			}
		}
		r.end(t)
	})
}
