package check

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"

	"portcullis/config"
	"portcullis/firewall"
	"portcullis/internal/leasefile"
	"portcullis/internal/nearest"
	"portcullis/policy"
	"portcullis/portmap"
)

// Warning is something in a valid file that will not do what it says.
type Warning struct {
	Line   int    `json:"line"` // from 1
	What   string `json:"what"` // a sentence
	Remedy string `json:"remedy"`
}

// judge collects the warnings. It lives for one call.
type judge struct {
	config config.Config
	lines  config.Lines
	all    []Warning
}

// Judge returns the warnings, by line. It is pure.
func Judge(c config.Config, lines config.Lines, m Machine) []Warning {
	j := &judge{config: c, lines: lines}
	j.interfaces(m.Interfaces)
	for i, key := range []string{"firewall.accept_chain", "firewall.accept_chain6"} {
		j.chain(key, m.Chains[i])
	}
	if m.Group != nil {
		j.warn(lines.Of("control.group", 0), fmt.Sprintf("groupadd --system %s, or name another group", c.Control.Group),
			"control.group: this machine has no group %q, and the daemon does not start without it", c.Control.Group)
	}
	if m.Hook != nil {
		j.warn(lines.Of("hook.command", 0), fmt.Sprintf("correct the path, or chmod a+rx %s", c.Hook.Command[0]),
			"hook.command: %q cannot be started: %v", c.Hook.Command[0], m.Hook)
	}
	for _, i := range m.NoFiles {
		j.warn(lines.Of("lan.leases", i), "correct the path, unless the DHCP server makes the file later",
			"lan.leases: there is no file %q", c.LAN.Leases[i])
	}
	for i, l := range m.Leases {
		j.leaseFile(leaseKeys[i], l)
	}
	for _, d := range policy.Doubts(c.Rules) {
		j.warn(lines.Rule(d.Rule, d.Key, d.Index), d.Remedy, "%s", d.What)
	}
	j.disabled()
	sort.SliceStable(j.all, func(a, b int) bool { return j.all[a].Line < j.all[b].Line })
	return j.all
}

func (j *judge) warn(line int, remedy, what string, args ...any) {
	j.all = append(j.all, Warning{max(line, 1), fmt.Sprintf(what, args...), remedy})
}

// interfaces warns of those that are not there.
func (j *judge) interfaces(there []string) {
	one := func(line int, key, name string) {
		if name == "" || slices.Contains(there, name) {
			return
		}
		hint := ""
		if near := nearest.Of(name, there); near != "" && near != "lo" {
			hint = fmt.Sprintf(" (did you mean %q?)", near)
		}
		j.warn(line, "correct the name, unless the interface comes later", "%s: this machine has no interface %q%s", key, name, hint)
	}
	for i, name := range j.config.LAN.Interfaces {
		one(j.lines.Of("lan.interfaces", i), "lan.interfaces", string(name))
	}
	one(j.lines.Of("wan.interface", 0), "wan.interface", string(j.config.WAN.Interface))
	one(j.lines.Of("wan.interface6", 0), "wan.interface6", string(j.config.WAN.Interface6))
	if len(j.config.LAN.Interfaces) > 0 {
		return // rules name no others
	}
	for i := range j.config.Rules {
		for k, m := range j.config.Rules[i].Clients {
			one(j.lines.Rule(i, "clients", k), "rule.clients", m.Interface)
		}
	}
}

// chain warns of an accept chain that cannot be used.
func (j *judge) chain(key string, err error) {
	var chain *firewall.ChainError
	switch {
	case err == nil:
	case errors.As(err, &chain):
		what, remedy, _ := strings.Cut(chain.Detail, "; ")
		j.warn(j.lines.Of(key, 0), remedy, "%s %q: %s", key, chain.Chain, what)
	case errors.Is(err, firewall.ErrPermission):
		j.warn(j.lines.Of(key, 0), "run this as root", "%s: only root can tell whether the chain is there", key)
	default:
		j.warn(j.lines.Of(key, 0), "", "%s: %v", key, err)
	}
}

// leaseKeys are those of Machine.Leases.
var leaseKeys = [2]string{"miniupnpd.lease_file", "miniupnpd.lease_file6"}

// ofItsOwn is where a lease file may be.
const ofItsOwn = "name a directory that holds nothing else, /run/portcullis say"

// leaseFile warns of a place where there is no lease file, or more than one.
func (j *judge) leaseFile(key string, l Lease) {
	if l.Unfit != nil {
		remedy := "name a directory of root's or of the daemon's user"
		if over := (*leasefile.OverSystem)(nil); errors.As(l.Unfit, &over) {
			remedy = ofItsOwn
		}
		j.warn(j.lines.Of(key, 0), remedy, "%s: it is not written there: %v", key, l.Unfit)
	}
	if l.Unit {
		j.warn(j.lines.Of(key, 0), "name a file in /run/portcullis, or have a drop-in allow the directory with ReadWritePaths= (docs/systemd.md)",
			"%s: %s lets the daemon write files for others in /run/portcullis alone", key, unitName)
	}
	if l.Beside != "" {
		j.warn(j.lines.Of(key, 0), ofItsOwn,
			"%s: the sandbox lets the daemon change whatever is in its directory, %q among it", key, l.Beside)
	}
}

// disabled warns of rules about protocols that are off.
func (j *judge) disabled() {
	off := map[portmap.Via]string{}
	if !j.config.UPnP.Enabled {
		off[portmap.ViaUPnP] = "upnp.enabled"
	}
	if !j.config.PCP.NATPMP {
		off[portmap.ViaNATPMP] = "pcp.natpmp"
	}
	if !j.config.PCP.PCP {
		off[portmap.ViaPCP] = "pcp.pcp"
	}
	for i, r := range j.config.Rules {
		if len(r.Via) > 0 && !slices.ContainsFunc(r.Via, func(v portmap.Via) bool { return off[v] == "" }) {
			key := off[r.Via[0]]
			j.warn(j.lines.Rule(i, "via", 0), fmt.Sprintf("set %s = true, or remove the rule", key[strings.Index(key, ".")+1:]),
				"the rule %q decides nothing: %s is false", r.Name, key)
		}
	}
}
