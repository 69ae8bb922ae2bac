package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/internal/frames"
	"portcullis/internal/netif"
	"portcullis/internal/sandbox"
	"portcullis/internal/slog"
	"portcullis/internal/wall"
	"portcullis/portmap"
)

// played, in the environment, is the part that this program plays; without it, it is a
// front where it is started as one. (The environment of a front has what begins with GO.)
const played = "GO_PORTCULLIS_TEST"

func TestMain(m *testing.M) {
	switch part := os.Getenv(played); {
	case part == "warden":
		playWarden()
	case len(os.Args) < 2 || os.Args[1] != Argument:
		os.Exit(m.Run())
	case part == "":
		os.Exit(Main())
	default:
		playFront(part)
	}
}

// playFront is a front that is none of ours.
func playFront(part string) {
	if part == "stuck" {
		playStuck()
	}
	conn, err := net.FileConn(os.NewFile(wallDescriptor, "wall"))
	if err != nil {
		os.Exit(2)
	}
	switch part {
	case "nonsense":
		_, _ = conn.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
	case "talks":
		for range 3 * maxLines {
			fmt.Fprintln(os.Stderr, strings.Repeat("x", 3*maxLine))
		}
		fmt.Fprintln(os.Stderr, "the last")
		os.Exit(3)
	case "logs":
		for i := range 2000 {
			b, err := wall.Encode(wall.Message{Body: &wall.Record{Message: fmt.Sprint("flood ", i), Attrs: []wall.Attr{{Key: "x", Text: strings.Repeat("y", 300)}}}})
			if err != nil {
				os.Exit(2)
			}
			_, _ = conn.Write(b)
		}
		os.Exit(3)
	case "files":
		all, _ := filepath.Glob("/proc/self/fd/*")
		for _, name := range all {
			to, _ := os.Readlink(name)
			fmt.Fprintln(os.Stderr, to)
		}
		os.Exit(3)
	case "dies":
		os.Exit(3)
	}
	select {} // whatever comes, and whoever goes
}

// playStuck is a front that serves, and then says more than is read before it ends.
func playStuck() {
	client, err := wall.Dial(os.NewFile(wallDescriptor, "wall"))
	if err != nil || client.Confined(nil) != nil {
		os.Exit(2)
	}
	go func() { _ = client.Run(context.Background()) }()
	<-client.Changed()
	turn, _ := client.Network()
	if client.Served(turn, nil) != nil {
		os.Exit(2)
	}
	<-client.Serve()
	for range 2 * maxFailures {
		_ = client.Failed(errors.New("again"))
	}
	os.Exit(3)
}

// playWarden starts a front that does not end by itself, says which, and waits to be
// killed.
func playWarden() {
	_ = os.Setenv(played, "deaf")
	near, far, err := wall.Pair()
	if err != nil {
		os.Exit(2)
	}
	c, err := newParent(sandbox.User{}, nil).start([]*os.File{os.Stderr, os.Stderr, os.Stderr, far})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	fmt.Println(c.pid)
	_, _ = near.Read(make([]byte, 1))
	select {}
}

// lines is a log.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// other is the half that decides, as far as a front asks it here.
type other struct {
	wall.Warden // is not asked for mappings
	wall.Sockets
	lan    netif.LAN
	taken  error // every socket is
	mu     sync.Mutex
	epochs []time.Time // guarded by mu; of IPv4, as they are kept
	kept   chan struct{}
}

func (o *other) Events(ctx context.Context) <-chan portmap.Event {
	c := make(chan portmap.Event)
	context.AfterFunc(ctx, func() { close(c) })
	return c
}
func (o *other) Uplink() (portmap.WAN, bool)   { return portmap.WAN{}, false }
func (o *other) LANs() map[string]netif.LAN    { return map[string]netif.LAN{"lo": o.lan} }
func (o *other) NextBootID(last uint32) uint32 { return last + 1 }
func (o *other) KeepEpochs(four, _ time.Time) {
	o.mu.Lock()
	o.epochs = append(o.epochs, four)
	o.mu.Unlock()
	o.kept <- struct{}{}
}

func (o *other) OpenDiscovery(context.Context, netif.LAN, bool) (frames.Socket, error) {
	return o.udp()
}

func (o *other) OpenPortControl(context.Context, netif.LAN, bool) (frames.Socket, error) {
	return o.udp()
}

var loopback = netip.MustParseAddr("127.0.0.1")

func (o *other) udp() (frames.Socket, error) {
	if o.taken != nil {
		return frames.Socket{}, o.taken
	}
	udp, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(loopback, 0)))
	return frames.Socket{UDP: udp, Marks: true}, err
}

func (o *other) HTTP(context.Context, netif.LAN, netip.AddrPort) (net.Listener, error) {
	if o.taken != nil {
		return nil, o.taken
	}
	return net.Listen("tcp4", "127.0.0.1:0")
}

// maxFailures are noted by a rig that nobody asks for them; then who tells one waits.
const maxFailures = 10

// rig is a Keeper of fronts.
type rig struct {
	*Keeper
	other  *other
	log    *lines
	failed chan error
}

func newRig(t *testing.T) *rig {
	t.Helper()
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{log: new(lines), failed: make(chan error, maxFailures), other: &other{kept: make(chan struct{}, 100)}}
	r.other.lan = netif.LAN{
		Name: "lo", Index: lo.Index, Addr: loopback, Addrs: []netip.Addr{loopback}, Prefixes: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	}
	r.Keeper = New(Config{
		Log: slog.New(slog.NewTextHandler(r.log, nil)), Warden: r.other, Sockets: r.other,
		Settings: wall.Settings{UPnP: true, Events: true, UUID: "00000000-0000-4000-8000-000000000001", Path: "00112233445566778899aabb", HTTPPort: 5000, NATPMP: true, PCP: true},
		Failed:   func(err error) { r.failed <- err },
	})
	t.Cleanup(func() {
		if err := r.Abandon(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(r.log.String())
		}
	})
	return r
}

// within waits until f is true.
func within(t *testing.T, what string, f func() bool) {
	t.Helper()
	for began := time.Now(); !f(); time.Sleep(time.Millisecond) {
		if time.Since(began) > 20*time.Second {
			t.Fatalf("%s: it does not come to that", what)
		}
	}
}

// TestFronts: a front serves until it is asked to end; one that is killed, or stops to
// follow the network, has a successor, which goes on with its epochs; nothing is left of
// any of them.
func TestFronts(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if err := r.Open(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	began := time.Unix(1_700_000_000, 0)
	r.Resume(began, began)
	r.Serve(t.Context())
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	<-r.other.kept
	var pids []int
	for n := range 5 {
		pid := r.Status().PID
		pids = append(pids, pid)
		if err := r.Follow(t.Context(), nil); err != nil {
			t.Error(err)
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		<-r.other.kept // by the next
		if s := r.Status(); s.Ended != n+1 || s.PID == pid || !strings.Contains(s.Last, "signal 9 (killed)") {
			t.Errorf("the status is %+v", s)
		}
	}
	if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", r.Status().PID)); string(comm) != name+"\n" {
		t.Errorf("it is called %q, %v", comm, err)
	}
	for _, four := range r.other.epochs {
		if !four.Equal(began) {
			t.Errorf("epochs %v", r.other.epochs)
			break
		}
	}
	pids = append(pids, r.Status().PID)
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if how := r.current().child.end(); how != "exit status 0" {
		t.Errorf("the last front ended with %s", how)
	}
	for _, pid := range pids {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); !os.IsNotExist(err) {
			t.Errorf("process %d: %v", pid, err)
		}
	}
	if n := strings.Count(r.log.String(), "front ended"); n != 5 {
		t.Errorf("the owner was told of %d ends", n)
	}
	for _, line := range []string{`msg="serving a LAN" interface=lo`, "from=front"} {
		if !strings.Contains(r.log.String(), line) {
			t.Errorf("the log has no %s", line)
		}
	}
}

// TestTaken: sockets that cannot be opened are told as they are; the front is there, and
// ends with Abandon.
func TestTaken(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.other.taken = errors.New("port 5000 is taken")
	err := r.Open(t.Context(), nil)
	if !errors.As(err, new(wall.NotServed)) || !strings.Contains(err.Error(), "port 5000 is taken") {
		t.Errorf("told %v", err)
	}
	if err := r.Abandon(); err != nil || !r.current().child.how.Signaled() {
		t.Errorf("%v, %s", err, r.current().child.end())
	}
}

// TestBuried: where no wall can be made, the front that has been started for it is ended
// before anybody is told, though it would live for ever.
func TestBuried(t *testing.T) {
	t.Setenv(played, "deaf")
	r := newRig(t)
	r.cfg.Settings.FriendlyName = strings.Repeat("x", wall.MaxMessage)
	if err := r.Open(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "tell the front its settings") {
		t.Errorf("told %v", err)
	}
	if now := r.current(); now != nil {
		t.Errorf("a front is kept: %+v", now)
	}
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil || len(tasks) == 0 {
		t.Fatal(tasks, err)
	}
	for _, task := range tasks {
		if children, err := os.ReadFile(task); err == nil && len(children) > 0 {
			t.Errorf("there are the processes %s", children)
		}
	}
}

// TestBadFronts: one that sends nonsense or dies is no front; what it says by its
// standard error is bounded.
func TestBadFronts(t *testing.T) {
	for part, want := range map[string]string{
		"nonsense": "message is of another version", "talks": "exit status 3", "dies": "exit status 3",
	} {
		t.Run(part, func(t *testing.T) {
			t.Setenv(played, part)
			r := newRig(t)
			err := r.Open(t.Context(), nil)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("told %v, want %q", err, want)
			}
			select {
			case <-r.current().done:
			default:
				t.Error("it is alive")
			}
			if s := r.Status(); s.PID != 0 {
				t.Errorf("the status of one that has ended: %+v", s)
			}
			if part != "talks" {
				return
			}
			within(t, "what it says", func() bool { return strings.Count(r.log.String(), "front says") == maxLines })
			if text := r.log.String(); strings.Contains(text, "the last") || len(text) > maxLines*(maxLine+200) {
				t.Errorf("%d octets of the log", len(text))
			}
		})
	}
}

// TestFrontsLog: fronts that each say all that one may say, and die, have no more room in the
// owner's log together than one that lives on.
func TestFrontsLog(t *testing.T) {
	t.Setenv(played, "logs")
	r := newRig(t)
	began := time.Now()
	for range 5 {
		if err := r.Open(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "exit status 3") {
			t.Fatalf("told %v", err)
		}
	}
	text, seconds := r.log.String(), 1+int(time.Since(began)/time.Second)
	lines, most := strings.Count(text, "flood "), 1000+50*seconds
	if octets := 256<<10 + 16<<10*seconds; lines < 100 || lines > most || len(text) > octets {
		t.Errorf("%d lines of fronts, want %d at most; %d octets, want %d at most", lines, most, len(text), octets)
	}
}

// TestFiles: a front has nothing of what whoever started the daemon left open.
func TestFiles(t *testing.T) {
	t.Setenv(played, "files")
	left, err := unix.Open("/dev/zero", unix.O_RDONLY, 0) // and not O_CLOEXEC
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(left)
	r := newRig(t)
	if err := r.Open(t.Context(), nil); err == nil {
		t.Error("it is alive")
	}
	within(t, "what it has", func() bool { return strings.Count(r.log.String(), "pipe:[") >= 3 })
	if strings.Contains(r.log.String(), "/dev/zero") {
		t.Error("it has what was left open")
	}
}

// TestTriesAgain: fronts that die at once have successors until one lives, later and
// later.
func TestTriesAgain(t *testing.T) {
	r := newRig(t)
	if err := r.Open(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	r.Serve(t.Context())
	<-r.other.kept
	t.Setenv(played, "dies")
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	first := r.Status().PID
	if err := unix.Kill(first, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	within(t, "attempts", func() bool { return strings.Count(r.log.String(), "cannot start a front") >= 3 })
	if err := os.Unsetenv(played); err != nil {
		t.Fatal(err)
	}
	<-r.other.kept // by one that lives
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestWallStuck: a front that has ended has a successor, though what it has sent holds up
// whoever reads it.
func TestWallStuck(t *testing.T) {
	t.Setenv(played, "stuck")
	r := newRig(t)
	if err := r.Open(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if err := os.Unsetenv(played); err != nil {
		t.Fatal(err)
	}
	stuck := r.Status().PID
	r.Serve(t.Context())
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	within(t, "another front", func() bool { s := r.Status(); return s.PID != stuck && s.Ended == 1 })
	if s := r.Status(); s.Last != errWallStuck.Error() {
		t.Errorf("the status is %+v", s)
	}
	for range 2 * maxFailures {
		<-r.failed
	}
	<-r.other.kept // by the other
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestWardenDies: the front ends with the warden, though it does not want to.
func TestWardenDies(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), played+"=warden")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	text := make([]byte, 32)
	n, err := out.Read(text)
	pid, err2 := strconv.Atoi(strings.TrimSpace(string(text[:n])))
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("/proc/%d/comm", pid)
	if _, err := os.Stat(name); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	within(t, "the end of the front", func() bool {
		status, err := os.ReadFile(filepath.Join(filepath.Dir(name), "status"))
		return err != nil || bytes.Contains(status, []byte("State:\tZ"))
	})
}

// TestComplaint: who calls the front by hand is told who does.
func TestComplaint(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("/proc/self/exe", Argument)
	out, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(out)
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 2 || !bytes.Contains(text, []byte("`portcullis run` starts the front")) {
		t.Errorf("%v: %s", err, text)
	}
}
