package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"portcullis/firewall"
)

// maxNATChain is how long a chain's name can be with -POSTROUTING behind it (28 in all).
const maxNATChain = 16

// shown refuses two files in one place, and a chain whose rules do something.
func (r *reader) shown(c *Config) {
	m := &c.Miniupnpd
	for _, f := range []struct {
		key  string
		file Path
	}{{"miniupnpd.lease_file", m.LeaseFile}, {"miniupnpd.lease_file6", m.LeaseFile6}} {
		if err := c.CheckShown(f.file); err != nil {
			r.fail(f.key, "%s %v", quote(string(f.file)), err)
		}
	}
	if m.LeaseFile != "" && Collide(m.LeaseFile, m.LeaseFile6) {
		r.fail("miniupnpd.lease_file6", "%s is miniupnpd.lease_file too, or what stands beside that; allowed: a file of its own", quote(string(m.LeaseFile6)))
	}
	switch {
	case m.Chain == firewall.Chain{}:
	case m.Chain.Family != "inet" && m.Chain.Family != "ip":
		r.fail("miniupnpd.chain", "%s has a family without IPv4; allowed: a chain of family inet or ip", quote(m.Chain.String()))
	case m.Chain.OfNAT() && len(m.Chain.Name) > maxNATChain:
		r.fail("miniupnpd.chain", "%s has a name that is too long for iptables with -POSTROUTING behind it; allowed: at most %d characters", quote(m.Chain.String()), maxNATChain)
	case m.Chain.OfNAT() && slices.Contains([]string{"PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"}, m.Chain.Name):
		r.fail("miniupnpd.chain", "%s sees packets; allowed: a chain of its own, in which there is nothing else", quote(m.Chain.String()))
	case m.Chain == c.Firewall.AcceptChain, m.Chain == c.Firewall.AcceptChain6:
		r.fail("miniupnpd.chain", "%s is an accept chain too; allowed: a chain of its own, in which there is nothing else", quote(m.Chain.String()))
	}
}

// besides are the files that internal/leasefile has beside a lease file.
func besides(file Path) []string {
	f := string(file)
	return []string{f, f + ".new", f + ".written", f + ".written.new"}
}

// system are directories in which, and below which, whoever writes can become root: the
// sandbox would have to leave them to the daemon.
var system = append([]string{
	"/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/overlay", "/proc", "/root",
	"/sbin", "/sys", "/usr", "/var/lib/dpkg", "/var/lib/systemd", "/var/run/systemd", "/var/run/udev", "/var/spool/cron",
}, InRun...)

// InRun are those of them that are where other daemons have their files, if this machine has them.
// Where it does, a lease file directly there would have the sandbox open them.
var InRun = []string{"/run/systemd", "/run/udev"}

// Collide reports whether two lease files are one, or one is what stands beside the other.
func Collide(a, b Path) bool {
	return slices.Contains(besides(a), string(b)) || slices.Contains(besides(b), string(a))
}

// CheckShown returns why a lease file cannot be where it is: it would be, or stand beside,
// another file of the configuration's, or is in a directory of the system's or in one that
// holds the daemon's state, which the sandbox would open. Its error is the rest of a sentence that
// begins with the path.
func (c *Config) CheckShown(file Path) error {
	dir := filepath.Dir(string(file))
	if file == "" {
		return nil
	}
	for _, top := range system {
		if dir == "/" || dir == top || strings.HasPrefix(dir, top+"/") {
			return errors.New("is in a directory of the system's, which is not the daemon's to write in; allowed: a directory that holds nothing else, /run/portcullis say")
		}
	}
	others := map[string]string{string(c.Control.Socket): "control.socket", string(c.State.Dir): "state.dir"}
	for _, l := range c.LAN.Leases {
		others[l.Path()] = "lan.leases"
	}
	if len(c.Hook.Command) > 0 {
		others[c.Hook.Command[0]] = "hook.command"
	}
	for _, f := range besides(file) {
		if key := others[f]; key != "" {
			return fmt.Errorf("is %s too, or that stands beside it; allowed: a file of its own", key)
		}
	}
	if state := string(c.State.Dir); dir == state || strings.HasPrefix(dir, state+"/") {
		return errors.New("is in state.dir; allowed: a file elsewhere")
	} else if strings.HasPrefix(state, dir+"/") {
		return errors.New("is in a directory that state.dir is below; allowed: a directory that holds nothing else, /run/portcullis say")
	}
	return nil
}
