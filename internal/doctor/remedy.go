package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"portcullis/config"
	"portcullis/firewall"
)

// edit is a key of the configuration with the value that it should have.
type edit struct {
	key   string // "firewall.backend"
	value string // without its quotes
}

// edited returns what to write into the file, and how that takes effect. What the file has
// already needs the latter alone.
func (f *Facts) edited(edits ...edit) string {
	var lines, keys []string
	var table string
	for _, e := range edits {
		keys = append(keys, e.key)
		if written, there := f.Written[e.key]; there && written == e.value {
			continue
		}
		name := ""
		table, name, _ = strings.Cut(e.key, ".")
		lines = append(lines, fmt.Sprintf("%s = %q", name, e.value))
	}
	if len(lines) == 0 {
		return "the file has it already" + f.then(keys...)
	}
	return strings.Join(lines, " and ") + " in [" + table + "] of " + f.file() + f.then(keys...)
}

// file returns where a remedy is to be written.
func (f *Facts) file() string {
	return cmp.Or(f.Daemon.File, f.Daemon.Mine, "/etc/portcullis/portcullis.toml")
}

// then returns the last line of a remedy that changes these keys.
func (f *Facts) then(keys ...string) string {
	if f.Daemon.Answers && !slices.ContainsFunc(keys, func(k string) bool { return !config.Live(k) }) {
		return "\nthen: portcullis reload" + f.Option
	}
	return "\nthen: systemctl restart portcullis"
}

// start returns what starts the daemon.
func (f *Facts) start() string {
	return "systemctl start portcullis, or: portcullis run" + f.Option
}

// judgeHook adds why nobody is told of events.
func judgeHook(f *Facts, add adder) {
	d := f.Daemon
	switch h := f.Hook; {
	case h.Err != nil:
		add("hook", Warning, fmt.Sprintf("correct command in [hook], or chmod a+rx %s", h.Command)+f.then("hook.command"),
			"the hook %s cannot be started: %v", h.Command, h.Err)
	case d.Hook != nil && d.Hook.Over:
		add("hook", Warning, "systemctl restart portcullis", "the hook %s is not started again: %s", h.Command, d.Hook.LastEnd)
	case d.Hook != nil && d.Hook.PID == 0 && d.Hook.Ended > 0:
		add("hook", Warning, "find out why it ends; what it writes to its standard error is in the log", "the hook %s does not run now, and has ended %d times: %s",
			h.Command, d.Hook.Ended, d.Hook.LastEnd)
	}
}

// judgePaths adds what became of both packets.
func judgePaths(f *Facts, add adder) {
	chain4 := f.AcceptChain
	if w := words(f.Trial.Mapping, f.AcceptChain); w.chain != "" {
		chain4 = w.chain
	}
	judgePath(f, add, "IPv4 mapping", "path", "firewall.accept_chain", f.AcceptChain, f.Trial.Mapping)
	key, configured := "firewall.accept_chain6", f.AcceptChain6
	if configured == "" && strings.HasPrefix(f.AcceptChain, "inet ") {
		configured = f.AcceptChain
	}
	six := words(f.Trial.Pinhole, configured).chain
	if f.AcceptChain6 == "" && strings.HasPrefix(six, "inet ") && (chain4 == "" || chain4 == six) {
		key = "firewall.accept_chain"
	}
	judgePath(f, add, "IPv6 pinhole", "path6", key, configured, f.Trial.Pinhole)
}

// needs is what the configuration should say, so that a packet passes.
type needs struct {
	iptables bool     // a rule in FORWARD of iptables
	chain    string   // one in this chain of nftables; "": none
	more     []string // and other chains of nftables, which cannot be named as well
	others   []string // chains that have to let the packet pass by themselves
}

// words returns what a verdict comes to; a chain that is named already stays.
func words(v Verdict, configured string) (n needs) {
	all := v.Bare
	if len(all) == 0 {
		all = v.Blame
	}
	for _, b := range all {
		switch {
		case b.Elsewhere:
			n.others = append(n.others, b.Chain)
		case b.OfIPTables:
			n.iptables = true
		case n.chain == "" || b.Chain == configured:
			if n.chain != "" {
				n.more = append(n.more, n.chain)
			}
			n.chain = b.Chain
		default:
			n.more = append(n.more, b.Chain)
		}
	}
	return n
}

func judgePath(f *Facts, add adder, what, id, key, configured string, v Verdict) {
	switch {
	case !v.Tried:
		return
	case v.Passed:
		add(id, Fine, "", "a packet for an %s passes the rules of this machine", what)
		return
	case len(v.Blame) == 0:
		add(id, Failure, "find out what drops packets or forwards them elsewhere, with `nft list ruleset`", "a packet for an %s does not pass the rules of this machine", what)
		return
	}
	n := words(v, configured)
	var edits []edit
	if n.iptables && f.Backend != firewall.IPTables {
		edits = append(edits, edit{"firewall.backend", firewall.IPTables})
	}
	if n.chain != "" && n.chain != configured {
		edits = append(edits, edit{key, n.chain})
	}
	var lines []string
	if len(edits) > 0 {
		lines = append(lines, f.edited(edits...))
	}
	for _, c := range n.more {
		if id == "path" {
			lines = append(lines, "nft insert rule "+c+" ct status dnat accept, and the same where its rules are written: "+key[len("firewall."):]+" names one chain only")
		} else {
			lines = append(lines, "have "+c+" accept what "+n.chain+" accepts: "+key[len("firewall."):]+" names one chain only")
		}
	}
	for _, c := range n.others {
		lines = append(lines, "change "+c+", before which Portcullis has no jump, to accept what comes in by the WAN and is not refused later")
	}
	if len(lines) == 0 {
		lines = append(lines, "check the rules of that chain before ours, and the ingress and prerouting chains")
	}
	add(id, Failure, strings.Join(lines, "\n"), "a packet for an %s is dropped by %s", what, listed(v.Blame))
}

// listed names chains in a sentence.
func listed(all []Blame) string {
	var text string
	for i, b := range all {
		switch {
		case i > 0 && i == len(all)-1:
			text += " and by "
		case i > 0:
			text += ", by "
		}
		text += b.Chain
		if b.OfIPTables {
			text += " (iptables)"
		}
	}
	return text
}
