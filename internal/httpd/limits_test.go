package httpd_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"portcullis/internal/http1"
	"portcullis/internal/httpd"
)

const get = "GET /x HTTP/1.1\r\nHost: 192.168.1.1:5000\r\n\r\n"

// machine has the address's third octet as its key: all addresses of 192.168.N.0/24
// are one machine's. The neighbour table knows those below 100.
func machine(a netip.Addr) (string, bool) {
	n := a.As4()[2]
	if n >= 100 {
		return a.String(), false
	}
	return fmt.Sprint(n), true
}

// hold opens a connection and begins a request on it.
func (r *running) hold(from string) *wire {
	c := r.dial(from)
	c.send("GET /x")
	synctest.Wait()
	return c
}

// all reads what comes until the end, in the background.
func (w *wire) all() <-chan string {
	got := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(w)
		got <- string(b)
	}()
	return got
}

// ask sends a whole request and gives the status line and the wait that is asked for.
func (r *running) ask(from string) string {
	c := r.dial(from)
	defer c.Close()
	got := c.all()
	c.send(get)
	return outcome(<-got)
}

func outcome(answer string) string {
	line, rest, _ := strings.Cut(answer, "\r\n")
	if strings.Contains(rest, "Retry-After: 1\r\n") {
		line += ", Retry-After: 1"
	}
	return line
}

const (
	served = "HTTP/1.1 200 OK"
	noRoom = "HTTP/1.1 503 Service Unavailable, Retry-After: 1"
)

// TestParallel: ODD-14, home-assistant/core#47914. Twelve connections of one host, opened
// before a byte is sent on any of them and used in the opposite order, are all answered.
func TestParallel(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, httpd.Config{Handler: &counting{}})
		defer r.end(t)
		open := make([]*wire, 12)
		for i := range open {
			open[i] = r.dial(fmt.Sprintf("192.168.1.50:%d", 50000+i))
			defer open[i].Close()
		}
		for i := range open {
			c := open[len(open)-1-i]
			got := c.all()
			c.send(get)
			if o := outcome(<-got); o != served {
				t.Errorf("connection %d: %q", i, o)
			}
		}
	})
}

// TestConnectionCaps: G8 and ODD-14. Beyond its share a device is told when to come
// again, not hung up on, and a place is free again when a connection ends.
func TestConnectionCaps(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, httpd.Config{Handler: &counting{}, MaxConnsPerDevice: 3})
		defer r.end(t)
		var open []*wire
		for i := range 3 {
			open = append(open, r.hold(fmt.Sprintf("192.168.1.50:%d", 50000+i)))
		}
		if o := r.ask("192.168.1.50:51000"); o != noRoom {
			t.Errorf("the fourth connection: %q", o)
		}
		for i, c := range open { // all three were admitted, and are served
			got := c.all()
			c.send(" HTTP/1.1\r\nHost: 192.168.1.1:5000\r\n\r\n")
			if o := outcome(<-got); o != served {
				t.Errorf("connection %d: %q", i, o)
			}
			_ = c.Close()
		}
		synctest.Wait()
		if o := r.ask("192.168.1.50:52000"); o != served {
			t.Errorf("afterwards: %q", o)
		}
	})
}

// TestNoRoomOverTheWire: the client that was not read hears of it all the same,
// though its request is on the way (a socket closed over unread data is reset).
func TestNoRoomOverTheWire(t *testing.T) {
	t.Parallel()
	to := serve(t, httpd.Config{Handler: &counting{}, MaxConnsPerDevice: 1, Timeout: time.Minute})
	first, err := net.Dial("tcp4", to.String())
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	body := strings.Repeat("x", 16<<10)
	for range 20 {
		got := exchange(t, to, fmt.Sprintf("POST /x HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n%s", to, len(body), body))
		if o := outcome(string(got)); o != noRoom {
			t.Errorf("%q", o)
		}
	}
}

// TestSixteenAliases: K2. One machine with sixteen addresses and slow connections on
// each holds one machine's share: another host is always served.
func TestSixteenAliases(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, httpd.Config{Handler: &counting{}, Device: machine})
		defer r.end(t)
		var open []*wire
		for i := range 64 {
			open = append(open, r.hold(fmt.Sprintf("192.168.2.%d:%d", 10+i/4, 50000+i)))
		}
		for i := range 20 {
			if o := r.ask("192.168.1.50:50000"); o != served {
				t.Errorf("request %d of another host: %q", i, o)
			}
		}
		for _, c := range open {
			_ = c.Close()
		}
	})
}

// TestGreediestFirst: where the server is full, the device that holds most makes
// room, by its oldest request that has not arrived; one that is being answered
// does not.
func TestGreediestFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		answered := make(chan struct{})
		var waiting atomic.Int32
		h := http1.HandlerFunc(func(*http1.Request) *http1.Response {
			if waiting.Add(1) == 1 {
				<-answered
			}
			return http1.Empty(http1.OK)
		})
		r := start(t, httpd.Config{Handler: h, Device: machine, MaxConns: 16, MaxConnsPerDevice: 8})
		defer r.end(t)
		first := r.dial("192.168.2.1:50000")
		firstGot := first.all()
		first.send(get)
		synctest.Wait()
		type held struct {
			*wire
			got <-chan string
		}
		var greedy, modest []held
		for i := range 6 {
			c := r.hold(fmt.Sprintf("192.168.2.1:%d", 50001+i))
			greedy = append(greedy, held{c, c.all()})
		}
		for i := range 7 {
			c := r.hold(fmt.Sprintf("192.168.%d.1:50001", 10+i))
			modest = append(modest, held{c, c.all()})
		}
		// Fourteen are held: the two that are left are for who holds nothing.
		for i := range 2 {
			c := r.hold(fmt.Sprintf("192.168.%d.1:50001", 30+i))
			modest = append(modest, held{c, c.all()})
		}
		if o := r.ask("192.168.40.1:50000"); o != served {
			t.Errorf("who holds nothing: %q", o)
		}
		if o := outcome(<-greedy[0].got); o != noRoom {
			t.Errorf("the greediest device's oldest: %q", o)
		}
		close(answered)
		if o := outcome(<-firstGot); o != served {
			t.Errorf("the one that was being answered: %q", o)
		}
		for i, c := range append(greedy[1:], modest...) {
			select {
			case o := <-c.got:
				t.Errorf("connection %d was ended: %q", i, o)
			default:
			}
			_ = c.Close()
		}
		_, _ = first.Close(), greedy[0].Close()
	})
}

// TestReserve: a device that holds something does not get the last places.
func TestReserve(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, httpd.Config{Handler: &counting{}, Device: machine, MaxConns: 16})
		defer r.end(t)
		var open []*wire
		for i := range 14 { // two of each of seven devices
			open = append(open, r.hold(fmt.Sprintf("192.168.%d.1:%d", 10+i/2, 50000+i)))
		}
		if o := r.ask("192.168.10.1:51000"); o != noRoom {
			t.Errorf("a third one: %q", o)
		}
		for i := range 10 {
			if o := r.ask("192.168.50.1:51000"); o != served {
				t.Errorf("who holds nothing, %d: %q", i, o)
			}
		}
		time.Sleep(2 * time.Second) // now what was held has been slow
		if o := r.ask("192.168.10.1:52000"); o != served {
			t.Errorf("after two seconds: %q", o)
		}
		for _, c := range open {
			_ = c.Close()
		}
	})
}

// TestStrangers: sources that the neighbour table does not know have half of the
// places in all, so that the others keep theirs.
func TestStrangers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, httpd.Config{Handler: &counting{}, Device: machine, MaxConns: 16})
		defer r.end(t)
		var open []*wire
		for i := range 8 {
			open = append(open, r.hold(fmt.Sprintf("192.168.200.%d:50000", 10+i)))
		}
		got := []string{r.ask("192.168.201.1:50000"), r.ask("192.168.1.50:50000")}
		time.Sleep(2 * time.Second)
		got = append(got, r.ask("192.168.201.1:50001"))
		if diff := cmp.Diff([]string{noRoom, served, served}, got); diff != "" {
			t.Errorf("a ninth stranger, a known host, a stranger when the others have been slow (-want +got)\n%s", diff)
		}
		for _, c := range open {
			_ = c.Close()
		}
	})
}

// TestRateByDevice: addresses of one machine share its rate.
func TestRateByDevice(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, httpd.Config{Handler: &counting{}, Device: machine, RequestsPerSecond: 5})
		defer r.end(t)
		count := map[string]int{}
		for i := range 40 {
			count[r.ask(fmt.Sprintf("192.168.2.%d:50000", 10+i))]++
		}
		if o := r.ask("192.168.1.50:50000"); o != served {
			t.Errorf("another host: %q", o)
		}
		if count[served] != 10 || count[noRoom] != 30 {
			t.Errorf("of 40 requests of 40 addresses of one machine: %v", count)
		}
	})
}

// TestAnswerTime: a request that took its time to arrive has the whole time for its
// answer, so that nobody who was granted something hears nothing (of a slow
// gateway: EOF for a mapping that was made).
func TestAnswerTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := http1.HandlerFunc(func(*http1.Request) *http1.Response {
			time.Sleep(4 * time.Second)
			return http1.Empty(http1.OK)
		})
		r := start(t, httpd.Config{Handler: h})
		defer r.end(t)
		c := r.dial("192.168.1.50:50000")
		defer c.Close()
		got := c.all()
		c.send("POST /x HTTP/1.1\r\nHost: 192.168.1.1:5000\r\nContent-Length: 4\r\n\r\n")
		time.Sleep(4900 * time.Millisecond)
		c.send("body")
		if o := outcome(<-got); o != served {
			t.Errorf("got %q", o)
		}
	})
}
