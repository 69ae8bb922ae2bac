package abuse

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"portcullis/internal/lab"
	"portcullis/internal/wall"
	"portcullis/test/owned"
	testrig "portcullis/test/rig"
)

// ownable returns the daemon whose front a test can own (test/owned), built once.
func ownable(t *testing.T) string {
	t.Helper()
	exe, err := builtOwnable()
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

var (
	ownableDir   string // TestMain removes it
	builtOwnable = sync.OnceValues(func() (string, error) {
		dir, err := os.MkdirTemp("", "portcullis-owned-")
		if err != nil {
			return "", err
		}
		ownableDir = dir
		exe := filepath.Join(dir, "portcullis")
		build := exec.Command("go", "build", "-o", exe, "portcullis/test/owned/portcullis")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return "", fmt.Errorf("%w\n%s", err, out)
		}
		return exe, os.Chmod(dir, 0o755) // #nosec G302 -- other users run it
	})
)

// ownedRig is a daemon whose front the test owns from own on, or again after an end.
type ownedRig struct {
	*rig
	listener net.Listener // where an owned front looks for its owner
	front    *puppet      // the one that is owned now
}

// startOwnable starts the daemon with a front of ours, on a network with hosts a and b and
// the attacker's, who asks for nothing.
func startOwnable(t *testing.T, extra string) *ownedRig {
	t.Helper()
	return startOwnableOn(t, testrig.Network(t, "a", "b"), lab.Settings+extra)
}

func startOwnableOn(t *testing.T, n *lab.Network, config string) *ownedRig {
	t.Helper()
	exe := ownable(t)
	if err := n.AddHost("owner", owned.Owner.Addr()); err != nil {
		t.Fatal(err)
	}
	return &ownedRig{rig: &rig{testrig.StartExe(t, n, exe, config)}}
}

// sharedUser is a user without a name.
const sharedUser = 64990

// asShared are the options of setpriv(1) by which a program is started as a service manager
// does: as a user other than root, with CAP_NET_ADMIN alone.
var asShared = fmt.Sprintf("--reuid=%[1]d --regid=%[1]d --clear-groups --inh-caps=-all,+net_admin --ambient-caps=-all,+net_admin --bounding-set=-all,+net_admin", sharedUser)

// privileged returns a program that starts the daemon by setpriv(1); whose it is has its
// directory.
func privileged(t *testing.T, exe, options string) string {
	t.Helper()
	script := "#!/bin/sh\n"
	if strings.Contains(options, "--reuid") {
		script += fmt.Sprintf("chown -R %[1]d:%[1]d \"$(dirname \"$3\")\"\n", sharedUser)
	}
	script += "exec setpriv " + options + " " + exe + " \"$@\"\n"
	name := filepath.Join(t.TempDir(), "portcullis")
	if err := os.WriteFile(name, []byte(script), 0o700); err != nil { // #nosec G306 -- it is run
		t.Fatal(err)
	}
	return name
}

// startShared starts the daemon as the unit for systemd does, where the front is the same
// user as the warden.
func startShared(t *testing.T, extra string) *ownedRig {
	t.Helper()
	n := testrig.Network(t, "a", "b")
	if err := n.AddHost("owner", owned.Owner.Addr()); err != nil {
		t.Fatal(err)
	}
	return &ownedRig{rig: &rig{testrig.StartExe(t, n, privileged(t, ownable(t), asShared), lab.Settings+extra)}}
}

// front returns the process that the front is now.
func frontOf(t *testing.T, r *testrig.Rig) int {
	t.Helper()
	s, err := r.Owner.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s.Sandbox.Front == nil {
		t.Fatal("there is no front")
	}
	return s.Sandbox.Front.PID
}

// own ends the front there is, and owns the next.
func (r *ownedRig) own(t *testing.T) *puppet {
	t.Helper()
	if r.listener == nil {
		l, err := r.Host("owner").Listen(owned.Owner.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		r.listener = l
		if err := syscall.Kill(frontOf(t, r.Rig), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	return r.next(t)
}

// next waits for the front that follows one that has ended.
func (r *ownedRig) next(t *testing.T) *puppet {
	t.Helper()
	if err := r.listener.(*net.TCPListener).SetDeadline(time.Now().Add(soon)); err != nil {
		t.Fatal(err)
	}
	conn, err := r.listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	p := &puppet{
		conn: conn, out: json.NewEncoder(conn), ended: make(chan struct{}), begun: make(chan struct{}), serves: make(chan struct{}),
		waiting: make(map[uint32]chan answered), tried: make(chan map[string]string, 1), follows: true,
	}
	go p.read()
	p.wait(t, "the sandbox closes", p.begun)
	p.wait(t, "the front is let to serve", p.serves)
	r.front = p
	return p
}

// free lets the next front be one of ours, and waits until it serves.
func (r *ownedRig) free(t *testing.T) {
	t.Helper()
	_ = r.listener.Close()
	r.listener = nil
	r.front.do(t, owned.Order{Die: true})
	r.front.wait(t, "the front ends", r.front.ended)
	r.v1(t, "b")
}

// puppet is a front that does what a test says.
type puppet struct {
	conn  net.Conn
	hello owned.Hello
	begun chan struct{} // closed when its sandbox has closed
	ended chan struct{} // closed when it has ended

	sending sync.Mutex
	out     *json.Encoder

	tried chan map[string]string

	mu      sync.Mutex // guards what follows
	number  uint32
	waiting map[uint32]chan answered
	network *wall.Network
	serves  chan struct{} // closed when it may serve
	follows bool          // says that it serves each network
	events  int
	wrong   error
}

// answered is what the warden answers.
type answered struct {
	body wall.Body
	fds  []int
}

// read takes what the front tells, until its end.
func (p *puppet) read() {
	defer close(p.ended)
	for in := json.NewDecoder(p.conn); ; {
		var r owned.Report
		if err := in.Decode(&r); err != nil {
			return
		}
		switch {
		case r.Settings != nil:
			p.hello = *r.Settings
			close(p.begun)
		case r.Tried != nil:
			p.tried <- r.Tried
		default:
			p.hear(r)
		}
	}
}

// hear takes a message of the warden's.
func (p *puppet) hear(r owned.Report) {
	m, err := wall.Decode(r.Wall)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.wrong = errors.Join(p.wrong, err)
		return
	}
	switch b := m.Body.(type) {
	case *wall.Network:
		p.network = b
		if p.follows {
			go func() { _ = p.send(owned.Order{Wall: encoded(wall.Message{Body: &wall.Served{Turn: b.Turn}})}) }()
		}
	case *wall.Serve:
		close(p.serves)
	case *wall.Event:
		p.events++
	default:
		if c, asked := p.waiting[m.Number]; asked {
			c <- answered{m.Body, r.FDs}
			delete(p.waiting, m.Number)
		}
	}
}

func encoded(m wall.Message) []byte {
	b, err := wall.Encode(m)
	if err != nil {
		panic(fmt.Sprintf("%T: %v", m.Body, err)) // the test's own fault
	}
	return b
}

func (p *puppet) send(o owned.Order) error {
	p.sending.Lock()
	defer p.sending.Unlock()
	return p.out.Encode(o)
}

func (p *puppet) do(t *testing.T, o owned.Order) {
	t.Helper()
	if err := p.send(o); err != nil {
		t.Fatal(err)
	}
}

// raw has these octets sent on the wall.
func (p *puppet) raw(t *testing.T, b []byte) {
	t.Helper()
	p.do(t, owned.Order{Wall: b})
}

// tell sends what has no answer.
func (p *puppet) tell(t *testing.T, b wall.Body) {
	t.Helper()
	p.raw(t, encoded(wall.Message{Body: b}))
}

// begin asks, and returns where the answer will be.
func (p *puppet) begin(t *testing.T, b wall.Body) chan answered {
	t.Helper()
	c := make(chan answered, 1)
	p.mu.Lock()
	p.number++
	n := p.number
	p.waiting[n] = c
	p.mu.Unlock()
	p.raw(t, encoded(wall.Message{Number: n, Patience: 10 * time.Second, Body: b}))
	return c
}

// end waits for an answer.
func (p *puppet) end(t *testing.T, c chan answered) answered {
	t.Helper()
	select {
	case a := <-c:
		return a
	case <-p.ended:
		t.Fatal("the front has ended")
	case <-time.After(soon):
		t.Fatal("no answer")
	}
	panic("not reached")
}

// ask asks and waits.
func (p *puppet) ask(t *testing.T, b wall.Body) answered {
	t.Helper()
	return p.end(t, p.begin(t, b))
}

// asks begins as many as may be under way, again and again, and returns the answers.
func (p *puppet) asks(t *testing.T, all []wall.Body) []answered {
	t.Helper()
	out := make([]answered, 0, len(all))
	for len(all) > 0 {
		some := all[:min(len(all), wall.MaxUnderWay)]
		all = all[len(some):]
		var waiting []chan answered
		for _, b := range some {
			waiting = append(waiting, p.begin(t, b))
		}
		for _, c := range waiting {
			out = append(out, p.end(t, c))
		}
	}
	return out
}

func (p *puppet) wait(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(soon):
		t.Fatalf("not within %v: %s", soon, what)
	}
}

// tries has the front try something, and returns what came of it.
func (p *puppet) tries(t *testing.T, o owned.Order) map[string]string {
	t.Helper()
	p.do(t, o)
	select {
	case found := <-p.tried:
		return found
	case <-p.ended:
		t.Fatal("the front has ended")
	case <-time.After(soon):
		t.Fatal("no answer")
	}
	panic("not reached")
}
