package clients

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"portcullis/internal/control"
	"portcullis/internal/lab"
)

// exe is the program under test.
var exe string

func TestMain(m *testing.M) {
	if name := os.Getenv("CLIENT"); name != "" {
		os.Exit(runLibrary(name)) // this process is a client on a LAN host
	}
	os.Exit(withProgram(m))
}

func withProgram(m *testing.M) int {
	exe = os.Getenv("PORTCULLIS")
	if exe == "" {
		dir, err := os.MkdirTemp("", "portcullis-clients-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		exe = filepath.Join(dir, "portcullis")
		cmd := exec.Command("go", "build", "-o", exe, "./cmd/portcullis")
		cmd.Dir = "../.."
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // as it is shipped: only so does its sandbox close
		if out, err := cmd.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%v\n%s", err, out)
			return 1
		}
	}
	code := m.Run()
	fmt.Print(matrix.String())
	return code
}

// matrix is what each client was seen to do.
var matrix results

type results struct {
	mu   sync.Mutex
	rows map[string][]string
}

func (r *results) saw(client, what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.rows == nil {
		r.rows = make(map[string][]string)
	}
	if !slices.Contains(r.rows[client], what) {
		r.rows[client] = append(r.rows[client], what)
	}
}

func (r *results) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var names []string
	for name := range r.rows {
		names = append(names, name)
	}
	sort.Strings(names)
	var b strings.Builder
	for _, name := range names {
		fmt.Fprintf(&b, "%-44s %s\n", name, strings.Join(r.rows[name], ", "))
	}
	return b.String()
}

// rig is a network with a running daemon and one LAN host for the client.
type rig struct {
	*lab.Network
	t      *testing.T
	client string
	daemon *lab.Daemon
	owner  *control.Client
	host   *lab.Host
	closed bool // by the owner
}

// believable is an external address for clients that take the documentation
// range, which the lab uses, for a second NAT (miniupnpc since 2.2). It is only
// told to them; packets go to the lab's own.
const believable = "11.22.33.44"

func start(t *testing.T, client string) *rig {
	t.Helper()
	return startTelling(t, client, "")
}

// startTelling starts a daemon that reports an external address, "" for its own.
func startTelling(t *testing.T, client, external string) *rig {
	t.Helper()
	return startSpeaking(t, client, external, "")
}

// Settings for clients that would ask in several protocols at once, or in
// another one first, so that what they do in one is seen.
const (
	upnpOnly = "\n[pcp]\nnatpmp = false\npcp = false\n"
	upnpOff  = "\n[upnp]\nenabled = false\n"
	pcpOff   = "\n[pcp]\npcp = false\n"
	strict   = "\n[pcp]\nnonce = \"strict\"\n"
)

// startSpeaking starts a daemon with more settings.
func startSpeaking(t *testing.T, client, external, more string) *rig {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	t.Parallel()
	n, err := lab.New("laptop", "console")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	if err := n.HostFirewall(); err != nil {
		t.Fatal(err)
	}
	settings := strings.Replace(lab.Settings, "[wan]\n", "[wan]\nexternal_ip = \""+external+"\"\n", 1) + more
	d, err := n.StartDaemonWith(t.Context(), exe, settings)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{Network: n, t: t, client: client, daemon: d, owner: control.NewClient(d.Socket), host: n.Host("laptop")}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the daemon's log:\n%s", r.daemon.Log())
		}
		if err := r.daemon.Stop(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// restart ends the daemon as a supervisor does, and starts it again.
func (r *rig) restart() {
	r.t.Helper()
	r.halt()
	r.resume()
}

func (r *rig) halt() {
	r.t.Helper()
	if err := r.daemon.HandOver(); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) resume() {
	r.t.Helper()
	d, err := r.Restart(r.t.Context(), exe, r.daemon)
	if err != nil {
		r.t.Fatal(err)
	}
	r.daemon = d
}

// need skips the test when a program is not installed; under CI it fails.
func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is not installed; test/install does that", program)
	}
	t.Skipf("%s is not installed; test/install does that", program)
}

// needPython is need for a module of Debian's Python.
func needPython(t *testing.T, statement, packages string) {
	t.Helper()
	need(t, "/usr/bin/python3")
	out, err := exec.Command("/usr/bin/python3", "-c", statement).CombinedOutput()
	if err == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s: not installed; test/install does that\n%s", packages, out)
	}
	t.Skipf("%s: not installed; test/install does that", packages)
}

func (r *rig) list() []control.Mapping {
	r.t.Helper()
	list, err := r.owner.Mappings(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return list
}

// eventually waits until ok holds.
func (r *rig) eventually(within time.Duration, what string, ok func() bool) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), within)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			r.t.Fatalf("%s: not within %v: %s", r.client, within, what)
		case <-tick.C:
		}
	}
}

// The protocols, as the list names them.
const (
	upnp   = "upnp"
	natpmp = "natpmp"
	pcp    = "pcp"
)

// maps waits until the owner sees n mappings of the laptop, each asked for in one
// of these protocols.
func (r *rig) maps(n int, within time.Duration, via ...string) []control.Mapping {
	r.t.Helper()
	var list []control.Mapping
	r.eventually(within, fmt.Sprintf("%d mappings", n), func() bool {
		list = slices.DeleteFunc(r.list(), func(m control.Mapping) bool { return m.Family != 4 })
		return len(list) >= n
	})
	var spoken []string
	for _, m := range list {
		if m.InternalIP != r.host.Addr.String() || !slices.Contains(via, m.Via) || m.ClientMAC != r.host.MAC.String() {
			r.t.Errorf("%s: listed %+v, want it by %q", r.client, m, via)
		}
		if !slices.Contains(spoken, m.Via) {
			spoken = append(spoken, m.Via)
		}
	}
	matrix.saw(r.client, "maps by "+strings.Join(spoken, " and "))
	matrix.saw(r.client, "is listed")
	return list
}

// arrives shows that a packet from the Internet reaches the host through a
// mapping; owned says that the client itself listens there.
func (r *rig) arrives(m control.Mapping, owned bool) {
	r.t.Helper()
	to := netip.AddrPortFrom(lab.GatewayWAN, m.ExternalPort)
	if owned {
		r.eventually(20*time.Second, "it answers from outside", func() bool {
			ctx, cancel := context.WithTimeout(r.t.Context(), 5*time.Second)
			defer cancel()
			conn, err := r.Internet.Dial(ctx, "tcp4", to.String())
			if err != nil {
				return false // some map before they listen
			}
			_ = conn.Close()
			return true
		})
	} else {
		arrived, _, err := lab.Probe(r.t.Context(), strings.ToUpper(m.Protocol), r.Internet, to, r.host, m.InternalPort, 5*time.Second)
		if err != nil || !arrived {
			r.t.Errorf("%s: %s %d does not lead to the host: %v", r.client, m.Protocol, m.ExternalPort, err)
			return
		}
	}
	matrix.saw(r.client, "receives by "+m.Protocol)
}

// gone waits until nothing is mapped, and shows that the port is closed.
func (r *rig) gone(m control.Mapping) {
	r.t.Helper()
	r.eventually(20*time.Second, "the mapping goes", func() bool { return len(r.list()) == 0 })
	arrived, _, err := lab.Probe(r.t.Context(), strings.ToUpper(m.Protocol), r.Internet,
		netip.AddrPortFrom(lab.GatewayWAN, m.ExternalPort), r.host, m.InternalPort, 300*time.Millisecond)
	if err != nil || arrived {
		r.t.Errorf("%s: %s %d is open still: %v", r.client, m.Protocol, m.ExternalPort, err)
	}
	if !r.closed {
		matrix.saw(r.client, "unmaps")
	}
}

// output runs a command on the laptop; it must succeed.
func (r *rig) output(name string, args ...string) string {
	r.t.Helper()
	cmd := exec.Command(name, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := r.host.Start(cmd); err != nil {
		r.t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		r.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, &out)
	}
	return out.String()
}

// closeAll is the owner closing what a client leaves behind.
func (r *rig) closeAll() {
	r.t.Helper()
	cmd := exec.Command(exe, "delete", "--config", r.daemon.Config, "--all")
	if out, err := cmd.CombinedOutput(); err != nil {
		r.t.Fatalf("%v\n%s", err, out)
	}
	r.closed = true
	matrix.saw(r.client, "leaves it to the owner to close")
}

// child is a client that maps, waits for its standard input to end, and unmaps.
type child struct {
	r     *rig
	cmd   *exec.Cmd
	stdin io.Closer
	out   *output
}

// output collects what a child says; two pipes may write at once.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

func (r *rig) spawn(cmd *exec.Cmd) *child {
	r.t.Helper()
	return r.spawnOn(r.host, cmd)
}

func (r *rig) spawnOn(h *lab.Host, cmd *exec.Cmd) *child {
	r.t.Helper()
	c := &child{r: r, cmd: cmd, out: &output{}}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	c.stdin = stdin
	cmd.Stdout, cmd.Stderr = c.out, c.out
	if err := h.Start(cmd); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
		if r.t.Failed() {
			r.t.Logf("%s said:\n%s", r.client, c.out)
		}
	})
	return c
}

// finish ends the child's input and waits; it must end well.
func (c *child) finish() {
	c.r.t.Helper()
	_ = c.stdin.Close()
	kill := time.AfterFunc(30*time.Second, func() { _ = c.cmd.Process.Kill() })
	defer kill.Stop()
	if err := c.cmd.Wait(); err != nil {
		c.r.t.Errorf("%s ended with %v", c.r.client, err)
	}
}

// learns shows that the client was told this external address.
func (c *child) learns(address netip.Addr) {
	c.r.t.Helper()
	c.says("external " + address.String() + "\n")
	matrix.saw(c.r.client, "learns the address")
}

// says waits until the client has said a text.
func (c *child) says(text string) {
	c.r.t.Helper()
	c.r.eventually(30*time.Second, "it says "+text, func() bool { return strings.Contains(c.out.String(), text) })
}

func (c *child) interrupt() {
	c.r.t.Helper()
	c.end(os.Interrupt)
}

// end asks the child to end, and waits.
func (c *child) end(by os.Signal) {
	c.r.t.Helper()
	if err := c.cmd.Process.Signal(by); err != nil {
		c.r.t.Fatal(err)
	}
	kill := time.AfterFunc(30*time.Second, func() { _ = c.cmd.Process.Kill() })
	defer kill.Stop()
	_ = c.cmd.Wait() // some end with the signal's own status
}

func contextFor(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
