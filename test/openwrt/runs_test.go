package openwrt

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"portcullis/internal/control"
	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// leases is where the package's /etc/config/upnpd has the lease file; wan is more of that file.
const (
	leases = "/var/run/portcullis/miniupnpd.leases"
	wan    = "\toption external_iface 'wan'\n\toption upnp_lease_file '" + leases + "'\n"
)

// TestRuns: what procd was sent runs, as root without ujail and in the jail with it; a console
// maps a port; a reload of fw4, of the configuration, one that needs a new process, and a
// restart keep what is open, and the flow through it; as does a deletion by LuCI of the other mapping; a stop leaves nothing.
func TestRuns(t *testing.T) {
	t.Parallel()
	for _, jail := range []bool{false, true} {
		t.Run(map[bool]string{false: "root", true: "jail"}[jail], func(t *testing.T) {
			t.Parallel()
			n, err := lab.New("a")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(n.Close)
			r := newRouter(t, n.Gateway)
			r.supervised(t)
			if jail {
				r.jails()
			}
			fw4 := testrig.FW4(t, filepath.Join(r.root, "usr/share/nftables.d"))
			load := func() {
				t.Helper()
				r.write("tmp/fw4.nft", fw4)
				testrig.On(t, n.Gateway, "nft", "-f", filepath.Join(r.root, "tmp/fw4.nft"))
			}
			load()
			r.write("etc/config/upnpd", on+wan)
			r.do("/etc/init.d/portcullis", "start")
			socket := filepath.Join(r.root, "tmp/run/portcullis/control.sock")
			owner := control.NewClient(socket)
			up := func() {
				t.Helper()
				testrig.Eventually(t, time.Minute, "the daemon answers", func() bool {
					_, err := owner.Status(t.Context())
					return err == nil
				})
			}
			up()
			confined(t, r, jail)
			rig := &testrig.Rig{Network: n, Owner: owner}
			a := n.Host("a")
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			for _, port := range []uint16{6000, 7000} {
				if _, err := a.MapNATPMP(ctx, map[uint16]string{6000: "UDP", 7000: "TCP"}[port], port, port, time.Hour); err != nil {
					t.Fatal(err)
				}
			}
			works := func(what string) {
				t.Helper()
				if !rig.Passes(t, "UDP", 6000, a, 6000) {
					t.Errorf("after %s nothing passes\n%s", what, testrig.Ruleset(t, n.Gateway))
				}
			}
			works("the start")
			flow := connected(ctx, t, n)
			for range 3 {
				load()
				flow("a reload of fw4")
			}
			works("a reload of fw4")

			was := r.pid()
			r.write("etc/config/upnpd", on+wan+"config perm_rule\n\toption action 'allow'\n\toption int_ports '6000'\n\toption ext_ports '6000'\n")
			r.do("/etc/init.d/miniupnpd", "reload")
			flow("a reload")
			if r.pid() != was {
				t.Error("a reload has started a new process")
			}
			r.write("etc/config/upnpd", on+wan+"\toption port '5001'\n")
			r.do("/etc/init.d/portcullis", "reload")
			testrig.Eventually(t, time.Minute, "another process", func() bool { now := r.pid(); return now != 0 && now != was })
			up()
			flow("another port for UPnP")
			works("another port for UPnP")
			r.do("/etc/init.d/miniupnpd", "restart")
			up()
			flow("a restart")
			works("a restart")

			// LuCI's page shows a row for each rule, and deletes the first.
			if shown := testrig.On(t, n.Gateway, "nft", "list", "chain", "inet", "fw4", "upnp_prerouting"); strings.Count(shown, "dnat ip to") != 2 {
				t.Errorf("the page would show\n%s", shown)
			}
			r.do("sed", "-i", "1d", leases)
			r.do("/etc/init.d/miniupnpd", "restart")
			up()
			if list := rig.List(t); len(list) != 1 || !rig.Blocked(t, "UDP", 6000, a, 6000) {
				t.Errorf("the mapping of the first line is open when the daemon answers: %+v", list)
			}
			flow("a deletion of the other mapping")

			if s, err := owner.Status(t.Context()); err != nil || s.Firewall.DriftRepaired != 0 {
				t.Errorf("it takes its own writes, or those of fw4, for another's: %+v, %v", s.Firewall, err)
			}
			if jail { // a restart of what is off is a stop
				r.write("etc/config/upnpd", strings.Replace(on, "'1'", "'0'", 1)+wan)
				r.do("/etc/init.d/miniupnpd", "restart")
			} else {
				r.do("/etc/init.d/portcullis", "stop")
			}
			testrig.Eventually(t, time.Minute, "the daemon ends", func() bool { return r.pid() == 0 })
			if left := testrig.Ruleset(t, n.Gateway); strings.Contains(left, "table inet portcullis") || strings.Contains(left, "elements = {") {
				t.Errorf("a stop leaves\n%s", left)
			}
		})
	}
}

// TestGone: what procd stops that is dead already, or has to kill, leaves nothing in the kernel
// when the script returns.
func TestGone(t *testing.T) {
	t.Parallel()
	for _, jail := range []bool{false, true} {
		t.Run(map[bool]string{false: "root", true: "jail"}[jail], func(t *testing.T) {
			t.Parallel()
			n, err := lab.New("a")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(n.Close)
			r := newRouter(t, n.Gateway)
			r.supervised(t)
			if jail {
				r.jails()
			}
			owner := control.NewClient(filepath.Join(r.root, "tmp/run/portcullis/control.sock"))
			start := func(file string) {
				t.Helper()
				r.write("etc/config/upnpd", file)
				r.do("/etc/init.d/portcullis", "start")
				testrig.Eventually(t, time.Minute, "the daemon answers", func() bool {
					_, err := owner.Status(t.Context())
					return err == nil
				})
				if !strings.Contains(testrig.Ruleset(t, n.Gateway), "table inet portcullis") {
					t.Fatal("there is nothing in the kernel")
				}
			}
			gone := func(what string) {
				t.Helper()
				if left := testrig.Ruleset(t, n.Gateway); strings.Contains(left, "table inet portcullis") {
					t.Errorf("%s leaves\n%s", what, left)
				}
				// The script waits for the daemon, and ujail ends a moment after it.
				testrig.Eventually(t, time.Minute, what+" it has ended", func() bool { return r.pid() == 0 })
			}
			r.waitsFor(true)
			for _, how := range []string{"reload", "start", "restart", "stop"} {
				start(on + wan)
				r.kill(t, syscall.SIGKILL)
				testrig.Eventually(t, time.Minute, "it is dead", func() bool { return r.pid() == 0 })
				if how != "stop" {
					r.write("etc/config/upnpd", strings.Replace(on, "1", "0", 1))
				}
				if out, err := r.run("/etc/init.d/portcullis", how); err != nil && how != "start" {
					t.Errorf("%s: %v\n%s", how, err, out)
				}
				gone("what was dead, after " + how + ",")
			}
			start(on + wan)
			r.kill(t, syscall.SIGSTOP)
			r.do("/etc/init.d/portcullis", "stop")
			gone("what hung")

			r.write("etc/portcullis/own.toml", "[lan]\ninterfaces = [\"br-lan\"]\n[firewall]\nkeep_on_stop = true\n")
			start(on + "\toption config_file '/etc/portcullis/own.toml'\n")
			r.do("/etc/init.d/portcullis", "stop")
			testrig.Eventually(t, time.Minute, "it ends", func() bool { return r.pid() == 0 })
			if !strings.Contains(testrig.Ruleset(t, n.Gateway), "table inet portcullis") {
				t.Error("a stop closes what the owner's own file keeps")
			}
		})
	}
}

// kill sends a signal to the process that decides, which in a jail is ujail's child.
func (r *router) kill(t *testing.T, s syscall.Signal) {
	t.Helper()
	for _, pid := range family(t, r.pid()) {
		if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil && string(name) == "portcullis\n" {
			if err := syscall.Kill(pid, s); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("there is no daemon")
}

// waitsFor has procd wait for longer than the test does until it starts again what has died.
func (r *router) waitsFor(long bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.procd.waits = long
}

// confined checks which user the daemon's processes are, and that they have no capability but
// the one. Without a jail the one that decides is root, and the front the package's user.
func confined(t *testing.T, r *router, jail bool) {
	t.Helper()
	var found, users int
	for _, pid := range family(t, r.pid()) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			t.Fatal(err)
		}
		status := string(text)
		if !strings.HasPrefix(status, "Name:\tportcullis") {
			continue
		}
		found++
		if strings.Contains(status, "\nUid:\t32768\t32768\t32768\t32768\nGid:\t32768\t32768\t32768\t32768\n") {
			users++
		}
		wrong := !strings.Contains(status, "\nNoNewPrivs:\t1\n")
		for _, set := range []string{"CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb"} {
			wrong = wrong || !regexp.MustCompile(`\n`+set+`:\t000000000000[01]000\n`).MatchString(status)
		}
		if wrong {
			t.Errorf("it can do more:\n%s", status)
		}
	}
	if found != 2 || users != map[bool]int{false: 1, true: 2}[jail] {
		t.Errorf("there are %d processes, %d of which are the user's", found, users)
	}
}

// family returns a process and all below it.
func family(t *testing.T, pid int) []int {
	t.Helper()
	all := []int{pid}
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range tasks {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // a thread that has ended
		}
		for child := range strings.FieldsSeq(string(text)) {
			n, err := strconv.Atoi(child)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, family(t, n)...)
		}
	}
	return all
}

// connected connects from the Internet to port 7000 of a host, and returns a function that
// wants an octet to come back through that connection.
func connected(ctx context.Context, t *testing.T, n *lab.Network) func(after string) {
	t.Helper()
	l, err := n.Host("a").Listen(":7000")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); c.Close() }()
		}
	}()
	c, err := n.Internet.Dial(ctx, "tcp", netip.AddrPortFrom(lab.GatewayWAN, 7000).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return func(after string) {
		t.Helper()
		_ = c.SetDeadline(time.Now().Add(15 * time.Second))
		_, err := c.Write([]byte{1})
		if err == nil {
			_, err = io.ReadFull(c, make([]byte, 1))
		}
		if err != nil {
			t.Errorf("after %s the connection is over: %v", after, err)
		}
	}
}
