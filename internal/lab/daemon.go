package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Daemon is a `portcullis run` on the gateway.
type Daemon struct {
	Config string // the file it was started with
	Socket string // its control socket
	dir    string
	cmd    *exec.Cmd
	log    *lockedBuffer
	told   *lockedBuffer // by sd_notify
	ended  chan struct{}
	err    error
}

// Settings is the configuration that the lab writes for its daemon: the
// gateway's own firewall is named, so that mapped traffic passes its drop
// policy. %s is the directory for the socket and the state.
const Settings = `[lan]
interfaces = ["br-lan"]
[wan]
interface = "wan0"
[firewall]
accept_chain = "` + FirewallChain + `"
[state]
dir = "%[1]s/state"
[control]
socket = "%[1]s/control.sock"
`

// startLimit is how long a daemon may take until it is ready, with 60,000 mappings to
// restore on half a core that others use as well; stopLimit until it has gone after
// SIGTERM.
const (
	startLimit = 3 * time.Minute
	stopLimit  = 20 * time.Second
)

// StartDaemon starts `exe run` on the gateway with Settings and what is in
// extra, and waits until it says that it is ready. Stop must be called.
func (n *Network) StartDaemon(ctx context.Context, exe string, extra string) (*Daemon, error) {
	dir, err := os.MkdirTemp("", "portcullis-lab-")
	if err != nil {
		return nil, err
	}
	config := fmt.Sprintf(Settings, dir) + extra
	d, err := n.start(ctx, exe, dir, config)
	if err != nil {
		_ = os.RemoveAll(dir)
		return nil, err
	}
	return d, nil
}

// StartDaemonWith is StartDaemon with a whole configuration; %[1]s in it is the
// daemon's directory.
func (n *Network) StartDaemonWith(ctx context.Context, exe string, config string) (*Daemon, error) {
	dir, err := os.MkdirTemp("", "portcullis-lab-")
	if err != nil {
		return nil, err
	}
	d, err := n.start(ctx, exe, dir, strings.ReplaceAll(config, "%[1]s", dir))
	if err != nil {
		_ = os.RemoveAll(dir)
		return nil, err
	}
	return d, nil
}

// Restart starts the daemon again that has been killed, with its configuration and
// what it left in its state directory.
func (n *Network) Restart(ctx context.Context, exe string, d *Daemon) (*Daemon, error) {
	config, err := os.ReadFile(d.Config)
	if err != nil {
		return nil, err
	}
	return n.start(ctx, exe, d.dir, string(config))
}

// State is the daemon's state directory.
func (d *Daemon) State() string { return filepath.Join(d.dir, "state") }

func (n *Network) start(ctx context.Context, exe, dir, config string) (*Daemon, error) {
	d := &Daemon{Config: filepath.Join(dir, "portcullis.toml"), Socket: filepath.Join(dir, "control.sock"),
		dir: dir, log: &lockedBuffer{}, told: &lockedBuffer{}, ended: make(chan struct{})}
	if err := os.WriteFile(d.Config, []byte(config), 0o600); err != nil {
		return nil, err
	}
	told := filepath.Join(dir, "notify")
	_ = os.Remove(told) // of the run before
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: told})
	if err != nil {
		return nil, err
	}
	ready := make(chan struct{})
	go d.listen(notify, ready)
	d.cmd = exec.Command(exe, "run", "--config", d.Config)
	d.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+told)
	d.cmd.Stderr, d.cmd.Stdout = d.log, d.log
	if err := n.Gateway.Start(d.cmd); err != nil {
		_ = notify.Close()
		return nil, fmt.Errorf("lab: start the daemon: %w", err)
	}
	go func() {
		d.err = d.cmd.Wait()
		_ = notify.Close()
		close(d.ended)
	}()
	if err := d.ready(ctx, ready); err != nil {
		_ = d.Kill()
		return nil, fmt.Errorf("lab: the daemon did not start: %w\n%s", err, d.log)
	}
	return d, nil
}

// listen keeps what the daemon tells its supervisor (sd_notify), and closes ready at the
// first READY=1.
func (d *Daemon) listen(notify *net.UnixConn, ready chan struct{}) {
	buf := make([]byte, 512)
	once := sync.OnceFunc(func() { close(ready) })
	for {
		n, err := notify.Read(buf)
		if err != nil {
			return // the daemon has ended
		}
		_, _ = d.told.Write(append(buf[:n:n], '\n'))
		if strings.Contains(string(buf[:n]), "READY=1") {
			once()
		}
	}
}

// ready waits for READY=1, or for the daemon's end.
func (d *Daemon) ready(ctx context.Context, ready <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	select {
	case <-ready:
		return nil
	case <-d.ended:
		return errors.Join(errors.New("it ended"), d.err)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Told returns what the daemon has told its supervisor so far, a line each.
func (d *Daemon) Told() string { return d.told.String() }

// Log returns what the daemon has written so far.
func (d *Daemon) Log() string { return d.log.String() }

// Pid returns the daemon's process.
func (d *Daemon) Pid() int { return d.cmd.Process.Pid }

// Ended is closed when the daemon has ended.
func (d *Daemon) Ended() <-chan struct{} { return d.ended }

// Stop asks the daemon to end and waits; it fails when it ends badly. Nothing of it
// is left.
func (d *Daemon) Stop() error {
	defer os.RemoveAll(d.dir)
	return d.Halt()
}

// Signal sends a signal to the daemon.
func (d *Daemon) Signal(s os.Signal) error { return d.cmd.Process.Signal(s) }

// Halt is Stop that leaves what the daemon wrote, for Restart.
func (d *Daemon) Halt() error { return d.end(syscall.SIGTERM) }

// HandOver is Halt as a supervisor does it that restarts: the daemon leaves what is
// in the kernel to the next run.
func (d *Daemon) HandOver() error { return d.end(syscall.SIGUSR2) }

func (d *Daemon) end(by os.Signal) error {
	if err := d.cmd.Process.Signal(by); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-d.ended:
		if d.err != nil {
			return fmt.Errorf("lab: the daemon ended badly: %w\n%s", d.err, d.log)
		}
		return nil
	case <-time.After(stopLimit):
		_ = d.Kill()
		return fmt.Errorf("lab: the daemon did not stop\n%s", d.log)
	}
}

// Kill ends the daemon as a crash would. What it wrote stays, for Restart.
func (d *Daemon) Kill() error {
	err := d.cmd.Process.Kill()
	<-d.ended
	return err
}

// lockedBuffer keeps the daemon's log; two pipes may write at once.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
