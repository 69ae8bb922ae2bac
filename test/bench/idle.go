package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"portcullis/internal/lab"
)

// What a daemon costs while nobody asks it for anything: each time that a thread of it is
// woken, a processor has perhaps left its sleep. The kernel counts when the thread goes to
// sleep again, as a voluntary context switch (proc(5)). One that somebody else pushes aside
// is not woken for that.
const (
	idleName  = "idle"
	mostWakes = 60                // a minute, of all processes together
	idleAfter = 140 * time.Second // the last announcement of a start is past (RFC 6886 section 3.2.1)
)

// Idleness is how often an idle daemon was woken.
type Idleness struct {
	Backend   string  `json:"backend"`
	Processes int     `json:"processes"`
	Seconds   float64 `json:"seconds"`
	Wakes     int     `json:"wakeups"`
	Programs  bool    `json:"programs_run"`
	Most      int     `json:"at_most_per_minute"` // 0: too little time to say so
}

func (i Idleness) perMinute() float64 { return float64(i.Wakes) * 60 / i.Seconds }

// idleHome is a backend, the owner's rules, and what the configuration says of it.
type idleHome struct{ backend, flavour, setting string }

// legacyName is the backend whose lock is the whole machine's: who uses it wakes the daemon,
// once a second at most (firewall/iptables/doc.go).
const legacyName = "iptables-legacy"

var idleHomes = []idleHome{
	{"nftables", "", `accept_chain = "` + lab.FirewallChain + `"`},
	{"iptables-nft", "nft", `backend = "iptables"`},
	{legacyName, "legacy", `backend = "auto"`},
}

// errNoTables says that the kernel has no tables of iptables-legacy, or the machine no
// program for them.
var errNoTables = errors.New("not on this machine")

// idle measures one daemon of each backend, all in the same time.
func (r *report) idle(ctx context.Context, exe string, p plan) error {
	var gates []*gate
	defer func() {
		for _, g := range gates {
			if err := g.close(); err != nil {
				fmt.Fprintln(r.progress, err)
			}
		}
	}()
	var homes []idleHome
	for _, h := range idleHomes {
		g, err := h.start(ctx, exe)
		if errors.Is(err, errNoTables) {
			fmt.Fprintf(r.progress, "  %s: %v\n", h.backend, err)
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", h.backend, err)
		}
		gates, homes = append(gates, g), append(homes, h)
	}
	if err := pause(ctx, min(idleAfter, p.slice)); err != nil {
		return err
	}
	before := make([]wakes, len(gates))
	for i, g := range gates {
		before[i] = wakesOf(g.pid)
	}
	began := time.Now()
	if err := pause(ctx, p.slice); err != nil {
		return err
	}
	for i, g := range gates {
		now := wakesOf(g.pid)
		row := Idleness{Backend: homes[i].backend, Processes: now.processes, Seconds: time.Since(began).Seconds(),
			Wakes: now.switches - before[i].switches, Programs: now.faults != before[i].faults}
		if p.slice >= time.Minute {
			row.Most = mostWakes
		}
		r.idleness = append(r.idleness, row)
		fmt.Fprintf(r.progress, "  %s: woken %.0f times a minute\n", row.Backend, row.perMinute())
	}
	return nil
}

// start starts a daemon in a home with that firewall.
func (h idleHome) start(ctx context.Context, exe string) (*gate, error) {
	n, err := lab.New(hostName(0))
	if err != nil {
		return nil, err
	}
	if h.flavour == "" {
		err = n.HostFirewall()
	} else {
		err = ownTables(n, h.flavour)
	}
	var d *lab.Daemon
	if err == nil {
		setting := strings.Replace(lab.Settings, `accept_chain = "`+lab.FirewallChain+`"`, h.setting, 1)
		d, err = n.StartDaemonWith(ctx, exe, setting)
	}
	if err != nil {
		n.Close()
		return nil, err
	}
	return &gate{Network: n, name: h.backend, pid: d.Pid(), stop: d.Stop, log: d.Log, daemon: d}, nil
}

// ownTables writes what an owner with iptables has.
func ownTables(n *lab.Network, flavour string) error {
	for _, program := range []string{"iptables", "ip6tables"} {
		cmd := exec.Command(program+"-"+flavour+"-restore", "-w", "5")
		cmd.Stdin = strings.NewReader("*filter\n:FORWARD DROP [0:0]\n-A FORWARD -i br-lan -o wan0 -j ACCEPT\nCOMMIT\n")
		if err := n.Gateway.Start(cmd); err != nil {
			return fmt.Errorf("%w: %w", errNoTables, err)
		}
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("%w: %s: %w", errNoTables, cmd.Path, err)
		}
	}
	return nil
}

// wakes are the counts of a daemon since its start.
type wakes struct {
	processes int
	switches  int
	faults    int // of pages, of children that have ended: each program that is run has some
}

// wakesOf counts those of a process and all that it has started.
func wakesOf(pid int) (w wakes) {
	for _, p := range family(pid) {
		w.processes++
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", p))
		for _, name := range tasks {
			raw, _ := os.ReadFile(name) // of a thread that has just ended
			for line := range strings.Lines(string(raw)) {
				if key, value, _ := strings.Cut(line, ":"); key == "voluntary_ctxt_switches" {
					n, _ := strconv.Atoi(strings.TrimSpace(value))
					w.switches += n
				}
			}
		}
		if fields, err := statFields(strconv.Itoa(p)); err == nil { // it may have just ended
			n, _ := strconv.Atoi(fields[8]) // cminflt
			w.faults += n
		}
	}
	return w
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// wakeups shows them, and what was promised.
func (r *report) wakeups(w io.Writer) {
	if len(r.idleness) == 0 {
		return
	}
	fmt.Fprint(w, "idle portcullis\tprocesses\twake-ups a minute\tat most\tprograms run\t\n")
	for _, i := range r.idleness {
		most, programs := "", "no"
		if i.Most > 0 {
			most = fmt.Sprint(i.Most)
		}
		if i.Programs {
			programs = "yes"
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t\n", i.Backend, i.Processes, grouped(int(math.Round(i.perMinute()))), most, programs)
	}
	fmt.Fprintln(w)
}
