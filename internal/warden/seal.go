package warden

import (
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"portcullis/config"
	"portcullis/firewall"
	"portcullis/firewall/witness"
	"portcullis/internal/control"
	"portcullis/internal/leasefile"
	"portcullis/internal/sandbox"
)

// maxFiles bounds the descriptors of the daemon: with every connection that httpd lets
// in on many LANs it has less than half of these.
const maxFiles = 4096

// Seal gives back the memory in which the mappings of the last run were read and written,
// and takes from the process what it does not need any more, before there is a front.
func (w *Warden) Seal() {
	debug.FreeOSMemory()
	w.startHook()
	mode := w.cfg.Sandbox.Mode
	if mode == config.SandboxOff {
		w.sandbox = w.shown(sandbox.Look())
		w.log.Warn("sandbox is off")
		return
	}
	s := sandbox.Enter(w.needs())
	if !s.Apart {
		w.user = sandbox.User{}
	}
	w.sandbox = w.shown(s)
	if missing := s.Lacks(); len(missing) > 0 {
		w.log.Warn("sandbox is incomplete", "err", strings.Join(missing, "; "))
		return
	}
	w.log.Info("sandbox closed", "mode", mode, "capabilities", strings.Join(w.sandbox.Capabilities, ","))
}

// needs returns what the daemon goes on with in this configuration, on this machine.
func (w *Warden) needs() sandbox.Config {
	c := w.cfg
	s := sandbox.Config{
		Capabilities: []sandbox.Capability{sandbox.NetAdmin}, Files: maxFiles,
		Programs: w.backend == firewall.IPTables || c.Firewall.AcceptChain.OfIPTables() || c.Firewall.AcceptChain6.OfIPTables() || c.Miniupnpd.Chain.OfNAT(),
	}
	if c.Sandbox.Mode == config.SandboxSplit {
		s.Role, s.User = sandbox.Warden, w.user
	}
	if w.witness != nil {
		way, _ := w.witness.Way()
		s.PacketSockets = way == witness.PacketSocket
	}
	if s.Programs || s.PacketSockets || bindsNeedRaw() {
		s.Capabilities = append(s.Capabilities, sandbox.NetRaw)
	}
	if c.UPnP.Enabled && c.UPnP.HTTPPort < 1024 { // of a LAN that comes later
		s.Capabilities = append(s.Capabilities, sandbox.NetBindService)
	}
	s.Paths = w.paths(s.Programs)
	return s
}

// paths returns what files the daemon goes on with. Its state directory can be replaced,
// and its socket is removed at the end, which are rights in the directories that hold them;
// where these are the machine's own, it does without: a new state directory is not found
// then, and the next run removes the socket.
func (w *Warden) paths(programs bool) *sandbox.Paths {
	state, socket := filepath.Clean(string(w.cfg.State.Dir)), filepath.Clean(string(w.cfg.Control.Socket))
	p := &sandbox.Paths{Read: true, Write: []string{state}}
	if above := filepath.Dir(state); !machines(above) {
		p.Write = []string{above}
	}
	if above := filepath.Dir(socket); !machines(above) {
		p.Remove = []string{above}
	}
	for _, file := range []config.Path{w.cfg.Miniupnpd.LeaseFile, w.cfg.Miniupnpd.LeaseFile6} {
		if dir := filepath.Dir(string(file)); file != "" && !machines(dir) {
			p.Write = append(p.Write, dir)
		}
	}
	if programs { // for their standard input; their lock is read
		p.Files = []string{os.DevNull}
		w.makeProgramsLock()
	}
	if w.cfg.Sandbox.Mode == config.SandboxSplit {
		p.Execute = []string{"/proc/self/exe"}
	}
	return p
}

// programsLock is where the programs of iptables keep each other out, if nobody has said
// otherwise to them.
const programsLock = "/run/xtables.lock"

// makeProgramsLock makes the file that those programs would make, and could not make in
// the sandbox. Without it they say themselves what is wrong.
func (w *Warden) makeProgramsLock() {
	if os.Geteuid() != 0 {
		return // such programs work for root alone; those of iptables-nft have no lock
	}
	f, err := os.OpenFile(programsLock, os.O_RDONLY|os.O_CREATE, 0o600)
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		w.log.Warn("cannot make the lock of iptables", "err", err)
	}
}

// machines reports whether whoever writes in a directory, or below it, can become root.
func machines(dir string) bool {
	return dir == "/" || dir == "/etc" || dir == "/root" || dir == "/usr" || leasefile.Over(dir, config.InRun) != nil
}

// bindsNeedRaw reports whether binding a socket to a device takes CAP_NET_RAW, as it does
// before Linux 5.7.
func bindsNeedRaw() bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return true
	}
	major, rest, _ := strings.Cut(unix.ByteSliceToString(u.Release[:]), ".")
	minor, _, _ := strings.Cut(rest, ".")
	first, err := strconv.Atoi(major)
	second, err2 := strconv.Atoi(minor)
	return err != nil || err2 != nil || first < 5 || first == 5 && second < 7
}

// shown is what `portcullis status` shows of it.
func (w *Warden) shown(s sandbox.State) control.Sandbox {
	c := control.Sandbox{
		Mode: string(w.cfg.Sandbox.Mode), User: s.User, Capabilities: names(s.Capabilities), Missing: s.Lacks(),
		NoNewPrivs: s.NoNewPrivs, Seccomp: s.Seccomp, Landlock: s.Landlock, Dumpable: s.Dumpable,
	}
	if w.notSplit != nil {
		c.Missing = append(c.Missing, "two processes: "+w.notSplit.Error())
	}
	return c
}

func names(all []sandbox.Capability) []string {
	out := make([]string, len(all))
	for i, held := range all {
		out[i] = held.String()
	}
	return out
}

// Front is what whoever runs the front as a process knows of it.
type Front struct {
	PID     int // 0: there is none
	Sandbox sandbox.State
	Unknown error    // why Sandbox says nothing
	Missing []string // of it, a line each, as the front has said
	Ended   int      // how many have ended that should not have
	Last    string   // why the last of them did
}

// ShowFront has `portcullis status` show the process that the front is.
func (w *Warden) ShowFront(f func() Front) { w.front = f }

// FrontUser returns who the front can be, after Seal; zero: who the warden is.
func (w *Warden) FrontUser() sandbox.User { return w.user }

// Lock returns what holds the instance lock, nil if nothing does.
func (w *Warden) Lock() *os.File { return w.lock }

// showFront has s say what the front is: what the kernel says of it, and not what it says
// itself, but for what its sandbox lacks.
func (w *Warden) showFront(s *control.Sandbox) {
	if w.front == nil {
		return
	}
	f := w.front()
	s.Missing = slices.Clone(s.Missing)
	for _, line := range f.Missing {
		s.Missing = append(s.Missing, "front: "+line)
	}
	s.Front = &control.Front{
		PID: f.PID, Ended: f.Ended, LastEnd: f.Last, User: f.Sandbox.User, Capabilities: names(f.Sandbox.Capabilities),
		NoNewPrivs: f.Sandbox.NoNewPrivs, Seccomp: f.Sandbox.Seccomp,
	}
	if f.Unknown != nil {
		s.Front.Unknown = f.Unknown.Error()
	}
}
