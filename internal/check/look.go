package check

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"portcullis/config"
	"portcullis/firewall"
	"portcullis/firewall/nft"
	"portcullis/internal/accounts"
	"portcullis/internal/leasefile"
	"portcullis/internal/netif"
	"portcullis/internal/slog"
)

// Machine is what the warnings depend on.
type Machine struct {
	Interfaces []string // that are there
	Group      error    // why control.group cannot be used
	NoFiles    []int    // places in lan.leases where there is no file
	Leases     [2]Lease // where miniupnpd.lease_file and lease_file6 are
	Hook       error    // why hook.command cannot be started
	Chains     [2]error // why firewall.accept_chain and accept_chain6 cannot be used
}

// Lease is the directory of a lease file.
type Lease struct {
	Beside string // another file that is there, "": none
	Unfit  error  // why no file is written there
	Unit   bool   // a daemon that the unit for systemd runs cannot write there
}

// Look reads the machine for a configuration.
func Look(ctx context.Context, c config.Config) (Machine, netif.State, error) {
	var m Machine
	state, err := readNetwork(ctx)
	if err != nil {
		return m, state, err
	}
	for _, l := range state.Links {
		m.Interfaces = append(m.Interfaces, l.Name)
	}
	if c.Control.Group != "" {
		_, m.Group = accounts.Group(string(c.Control.Group))
	}
	if len(c.Hook.Command) > 0 {
		m.Hook = Runnable(c.Hook.Command[0])
	}
	for i, f := range c.LAN.Leases {
		if _, err := os.Stat(f.Path()); errors.Is(err, fs.ErrNotExist) {
			m.NoFiles = append(m.NoFiles, i)
		}
	}
	m.Leases = leases(c)
	for i, chain := range []firewall.Chain{c.Firewall.AcceptChain, c.Firewall.AcceptChain6} {
		// The programs of iptables make their chains when they are asked to.
		if chain != (firewall.Chain{}) && !chain.OfIPTables() {
			m.Chains[i] = nft.FindChain(ctx, chain, i == 1)
		}
	}
	return m, state, nil
}

// leases looks at where both lease files are.
func leases(c config.Config) (all [2]Lease) {
	for i, file := range []config.Path{c.Miniupnpd.LeaseFile, c.Miniupnpd.LeaseFile6} {
		if file != "" {
			all[i] = lookAround(c, string(file))
		}
	}
	return all
}

// daemonUser is whom the packages have the daemon run as.
const daemonUser = "portcullis"

// daemonUsers returns that user's number, if there is one: root checks for him.
func daemonUsers() []uint32 {
	uid, _, err := accounts.User(daemonUser)
	if err != nil {
		return nil
	}
	return []uint32{uid}
}

// lookAround looks at the directory of a lease file, which the sandbox opens as a whole. What
// is not there is made.
func lookAround(c config.Config, file string) (l Lease) {
	dir := filepath.Dir(file)
	if l.Unfit = leasefile.Usable(dir, config.InRun, daemonUsers()...); l.Unfit != nil {
		return l
	}
	l.Unit = unitForbids("/", dir)
	all, err := os.Open(dir)
	if err != nil {
		return l
	}
	defer all.Close()
	names, err := all.Readdirnames(-1)
	if err != nil {
		return l
	}
	slices.Sort(names)
	for _, name := range names {
		path := filepath.Join(dir, name)
		ours := slices.Contains([]string{string(c.Control.Socket), string(c.State.Dir), string(c.Control.Socket) + ".lock"}, path)
		if !ours && !config.Collide(config.Path(path), c.Miniupnpd.LeaseFile) && !config.Collide(config.Path(path), c.Miniupnpd.LeaseFile6) {
			l.Beside = path
			return l
		}
	}
	return l
}

// Runnable returns why a file is no program that a user without rights could start.
func Runnable(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("there is no such file")
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return errors.New("it is not a file")
	case info.Mode()&0o001 == 0:
		return errors.New("not everybody may execute it, and the hook is a user without rights")
	}
	return nil
}

func readNetwork(ctx context.Context) (netif.State, error) {
	kernel, err := netif.Open(slog.New(slog.DiscardHandler))
	if err != nil {
		return netif.State{}, fmt.Errorf("read the network: %w", err)
	}
	defer kernel.Close()
	state, err := kernel.Read(ctx)
	if err != nil {
		return state, fmt.Errorf("read the network: %w", err)
	}
	return state, nil
}
