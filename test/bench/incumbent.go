package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// errAbsent means that there is nothing to compare with.
var errAbsent = errors.New("miniupnpd with its nftables backend is not installed (test/install bench does it); only our half is measured")

// incumbentConfig is miniupnpd's configuration. It reads a documentation address
// as private and would refuse everything, so it is told that its external
// address is another one; it only reports it. Its rules go into the table of
// the gateway's firewall, as they do on OpenWrt, because an accept in a table of its
// own would not undo that one's drop.
const incumbentConfig = `ext_ifname=wan0
ext_ip=9.9.9.9
listening_ip=br-lan
http_port=5000
ipv6_disable=yes
enable_natpmp=yes
enable_upnp=yes
secure_mode=yes
system_uptime=no
notify_interval=900
clean_ruleset_interval=0
uuid=11111111-2222-3333-4444-555555555555
upnp_table_name=hostfw
upnp_nat_table_name=hostfw
upnp_forward_chain=miniupnpd
upnp_nat_chain=prerouting_miniupnpd
upnp_nat_postrouting_chain=postrouting_miniupnpd
allow 1024-65535 192.168.77.0/24 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
`

// findIncumbent returns the path of a miniupnpd that drives nf_tables, and its
// version.
func findIncumbent() (exe, version string, err error) {
	if exe, err = exec.LookPath("miniupnpd"); err != nil {
		exe = "/usr/sbin/miniupnpd" // not in everybody's path
	}
	out, err := exec.Command(exe, "--version").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "nftables") {
		return "", "", errAbsent
	}
	return exe, strings.ReplaceAll(strings.TrimSpace(string(out)), "\n", ", "), nil
}

// startIncumbent starts miniupnpd on a network of its own.
func startIncumbent(ctx context.Context, exe string) (*gate, error) {
	n, err := networkOf()
	if err != nil {
		return nil, err
	}
	g := &gate{Network: n, name: incumbentName, stop: func() error { return nil }}
	g.kernel = g.incumbentRules
	if err := g.incumbentChains(); err != nil {
		n.Close()
		return nil, err
	}
	if err := g.runIncumbent(ctx, exe); err != nil {
		n.Close()
		return nil, err
	}
	return g, g.ready(ctx)
}

func (g *gate) nftables() (*nftables.Conn, *nftables.Table, error) {
	conn, err := nftables.New(nftables.WithNetNSFd(int(g.Gateway.Namespace())))
	return conn, &nftables.Table{Family: nftables.TableFamilyINet, Name: "hostfw"}, err
}

// incumbentChains makes the chains that its package should have made.
//
//	table inet hostfw {
//		chain miniupnpd { }
//		chain prerouting_miniupnpd { }
//		chain postrouting_miniupnpd { }
//		chain forward { ...; jump miniupnpd }
//		chain prerouting { type nat hook prerouting priority dstnat; jump prerouting_miniupnpd }
//	}
func (g *gate) incumbentChains() error {
	conn, table, err := g.nftables()
	if err != nil {
		return err
	}
	for _, name := range []string{"miniupnpd", "prerouting_miniupnpd", "postrouting_miniupnpd"} {
		conn.AddChain(&nftables.Chain{Table: table, Name: name})
	}
	prerouting := conn.AddChain(&nftables.Chain{
		Table: table, Name: "prerouting", Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest,
	})
	jump := func(from *nftables.Chain, to string) {
		conn.AddRule(&nftables.Rule{Table: table, Chain: from, Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: to}}})
	}
	jump(&nftables.Chain{Table: table, Name: "forward"}, "miniupnpd")
	jump(prerouting, "prerouting_miniupnpd")
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("the chains of miniupnpd: %w", err)
	}
	return nil
}

// incumbentRules counts the mappings in its chain.
func (g *gate) incumbentRules() (int, error) {
	conn, table, err := g.nftables()
	if err != nil {
		return 0, err
	}
	rules, err := conn.GetRules(table, &nftables.Chain{Table: table, Name: "prerouting_miniupnpd"})
	return len(rules), err
}

// keeperEnv marks the process that is miniupnpd's keeper.
const keeperEnv = "PORTCULLIS_BENCH_KEEPER"

// runIncumbent starts miniupnpd in a process namespace of its own. It goes into
// the background by itself (in the foreground it would log at full length), so
// nothing would end it when we die; but the kernel ends a process namespace with
// its first process, and that one, our own program as the keeper, with us.
func (g *gate) runIncumbent(ctx context.Context, exe string) error {
	dir, err := os.MkdirTemp("", "portcullis-bench-")
	if err != nil {
		return err
	}
	config := filepath.Join(dir, "miniupnpd.conf")
	if err := os.WriteFile(config, []byte(incumbentConfig), 0o600); err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	keeper := exec.Command("/proc/self/exe", exe, "-f", config, "-P", filepath.Join(dir, "pid"))
	keeper.Env = append(os.Environ(), keeperEnv+"=1")
	keeper.Stderr = os.Stderr
	keeper.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	if err := g.Gateway.Start(keeper); err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	g.stop = func() error {
		err := keeper.Process.Kill()
		_ = keeper.Wait() // it was killed
		return errors.Join(err, os.RemoveAll(dir))
	}
	if g.pid, err = daemonOf(ctx, keeper.Process.Pid); err != nil {
		return errors.Join(err, g.stop())
	}
	return nil
}

// daemonOf waits until the one child of the keeper has gone into the background:
// it has then been handed to the keeper, and is the only one.
func daemonOf(ctx context.Context, keeper int) (int, error) {
	deadline := time.NewTimer(5 * time.Second)
	defer deadline.Stop()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-deadline.C:
			return 0, errors.New("miniupnpd did not start")
		case <-look.C:
		}
		if pid := detachedChild(strconv.Itoa(keeper)); pid != 0 {
			return pid, nil
		}
	}
}

// detachedChild returns the child of a process that leads a session of its own, as
// a daemon does; 0 while there is none.
func detachedChild(parent string) int {
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0
	}
	for _, path := range all {
		pid := filepath.Base(filepath.Dir(path))
		fields, err := statFields(pid)
		if err == nil && fields[1] == parent && fields[3] == pid {
			n, _ := strconv.Atoi(pid)
			return n
		}
	}
	return 0
}

// keep is the whole life of the keeper: it starts the command and waits for all
// that come after it.
func keep(args []string) int {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench: miniupnpd:", err)
		return 1
	}
	for {
		if _, err := syscall.Wait4(-1, nil, 0, nil); err != nil && !errors.Is(err, syscall.EINTR) {
			return 0
		}
	}
}
