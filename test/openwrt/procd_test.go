package openwrt

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// procd is the one instance of a service that a test's procd has.
type procd struct {
	instance object // nil: there is none
	state    string // of the instance and of its files, as it was last set
	running  *exec.Cmd
	halted   bool // it was told to end
	jailed   bool
	patience time.Duration // until what was told to end is killed
	respawn  *time.Timer   // nil: it is not to start again by itself
	waits    bool          // it waits with that for longer than the test does
	starts   int
	log      lockedBuffer
}

// lockedBuffer is for one who writes and one who reads.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// supervise does what procd does with a message, in short: it starts what there is not,
// signals what has changed, stops what there is no longer, and starts again what ends by
// itself. The caller has the lock.
func (r *router) supervise(method string, message object) {
	p := &r.procd
	switch method {
	case "set":
		instances, _ := message["instances"].(object)
		p.instance, _ = instances["instance1"].(object)
		was := p.state
		p.state = r.stateOf(p.instance)
		switch {
		case p.instance == nil:
			r.halt()
		case p.running == nil:
			r.spawn()
		case p.halted: // it starts when the other one has ended
		case p.state != was:
			r.signal(syscall.Signal(p.instance["reload_signal"].(float64)))
		}
	case "signal":
		r.signal(syscall.Signal(message["signal"].(float64)))
	case "delete":
		r.halt()
	}
}

// halt ends the instance: by a signal, and if that does not help in time by another. In a jail
// ujail does the latter.
func (r *router) halt() {
	p := &r.procd
	p.instance, p.state = nil, ""
	if p.respawn != nil {
		p.respawn.Stop()
		p.respawn = nil
	}
	cmd := p.running
	if cmd == nil {
		return
	}
	p.halted = true
	r.signal(syscall.SIGTERM)
	if p.jailed {
		return
	}
	time.AfterFunc(p.patience, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if p.running == cmd {
			r.signal(syscall.SIGKILL)
		}
	})
}

// stateOf is what procd compares: the instance, and what is in its files.
func (r *router) stateOf(in object) string {
	state := fmt.Sprint(in)
	files, _ := in["file"].([]any)
	for _, name := range files {
		text, _ := os.ReadFile(filepath.Join(r.root, name.(string)))
		state += string(text)
	}
	return state
}

func (r *router) signal(s os.Signal) {
	if r.procd.running != nil {
		_ = r.procd.running.Process.Signal(s)
	}
}

// spawn starts the instance, as procd does with ujail and without.
func (r *router) spawn() {
	p := &r.procd
	if p.respawn != nil {
		p.respawn.Stop()
		p.respawn = nil
	}
	seconds, _ := p.instance["term_timeout"].(float64)
	p.patience = time.Duration(seconds) * time.Second
	_, p.jailed = p.instance["jail"]
	cmd := r.command(r.argv()...)
	cmd.Stderr = &p.log
	if err := r.start(cmd); err != nil {
		fmt.Fprintln(&p.log, err)
		return
	}
	p.running, p.halted = cmd, false
	p.starts++
	go func() {
		_ = cmd.Wait() // what it came to is in its log
		r.mu.Lock()
		defer r.mu.Unlock()
		p.running = nil
		switch {
		case p.instance == nil:
		case p.halted:
			r.spawn()
		default:
			r.later()
		}
	}()
}

// later starts the instance again, after the time that it says.
func (r *router) later() {
	p := &r.procd
	respawn, _ := p.instance["respawn"].([]any)
	if len(respawn) != 3 || p.waits {
		return
	}
	seconds, err := strconv.Atoi(respawn[1].(string))
	if err != nil {
		fmt.Fprintln(&p.log, err)
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(time.Duration(seconds)*time.Second, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if p.respawn == timer {
			r.spawn()
		}
	})
	p.respawn = timer
}

// argv is the command line of the instance.
func (r *router) argv() (args []string) {
	in := r.procd.instance
	if jail, ok := in["jail"].(object); ok {
		args = append(args, "/sbin/ujail", "-t", fmt.Sprint(in["term_timeout"]), "-n", jail["name"].(string),
			"-U", in["user"].(string), "-G", in["group"].(string), "-C", in["capabilities"].(string))
		if in["no_new_privs"] == true {
			args = append(args, "-c")
		}
		if jail["procfs"] == true {
			args = append(args, "-p")
		}
		for path, writable := range jail["mount"].(object) {
			args = append(args, map[any]string{"0": "-r", "1": "-w"}[writable], path)
		}
		args = append(args, "--")
	}
	for _, word := range in["command"].([]any) {
		args = append(args, word.(string))
	}
	return args
}

// supervised has the test's procd end with it.
func (r *router) supervised(t *testing.T) {
	t.Cleanup(func() {
		r.mu.Lock()
		r.halt()
		r.mu.Unlock()
		for deadline := time.Now().Add(30 * time.Second); r.pid() != 0; {
			if time.Now().After(deadline) {
				t.Error("it does not end")
				r.mu.Lock()
				r.signal(syscall.SIGKILL)
				r.mu.Unlock()
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		if t.Failed() {
			t.Logf("the daemon's log:\n%s", r.procd.log.String())
		}
	})
}

// pid is that of the process that procd has started; 0: none runs.
func (r *router) pid() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.procd.running == nil {
		return 0
	}
	return r.procd.running.Process.Pid
}
