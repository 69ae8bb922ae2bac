package iptables

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"portcullis/firewall"
	"portcullis/portmap"
)

// Names of our chains.
const (
	prefix     = "PORTCULLIS-"
	chainIn    = prefix + "IN"
	chainMap   = prefix + "MAP"
	chainOut   = prefix + "OUT"
	chainKeep  = prefix + "KEEP"
	chainHair  = prefix + "HAIR"
	chainBack  = prefix + "BACK"
	chainFwd   = prefix + "FWD"
	chainEnded = prefix + "ENDED"
	chainOpen  = prefix + "OPEN"
	chainPin   = prefix + "PIN"
	chainGuard = prefix + "GUARD"
)

// jump is a rule in a built-in chain that leads into one of ours.
type jump struct {
	table, from, to string
	last            bool     // the owner's rules come first
	beaten          []string // targets before it that would take what is ours
}

var drops = []string{"DROP", "REJECT"}

// jumps are the jumps of each family.
var jumps = map[family][]jump{
	four: {
		{"filter", "FORWARD", chainFwd, false, drops},
		{"filter", "INPUT", chainGuard, false, nil},
		{"nat", "PREROUTING", chainIn, true, nil},
		{"nat", "POSTROUTING", chainOut, false, []string{"MASQUERADE", "SNAT"}},
	},
	six: {
		{"filter", "FORWARD", chainFwd, false, drops},
		{"filter", "INPUT", chainGuard, false, nil},
	},
}

// tables are those of each family, in the order of writing; and their chains.
var tables = map[family][]string{four: {"filter", "nat"}, six: {"filter"}}

var chains = map[family]map[string][]string{
	four: {
		"filter": {chainFwd, chainEnded, chainOpen, chainGuard},
		"nat":    {chainIn, chainMap, chainOut, chainKeep, chainHair, chainBack},
	},
	six: {"filter": {chainFwd, chainEnded, chainPin, chainGuard}},
}

// grace is how much longer than the lease the kernel keeps a rule: the daemon
// removes it first, the kernel only when the daemon is dead (design: section 5).
const grace = 60 * time.Second

// written is a rule to be written.
type written struct {
	place
	text    string
	counted firewall.Key // zero: its counter is nobody's
}

// ruleset is what the kernel shall hold for one family.
type ruleset struct {
	rules []written
	stop  func(firewall.Entry) string // the date when it ends, "" for never
	id    func(firewall.Key) uint64   // of its mapping
}

func (r *ruleset) add(table, chain, format string, args ...any) {
	r.rules = append(r.rules, written{place: place{table, chain}, text: fmt.Sprintf(format, args...)})
}

// text gives all rules, to be compared.
func (r *ruleset) text() string {
	var b strings.Builder
	for _, w := range r.rules {
		b.WriteString(w.table + " " + w.chain + " " + w.text + "\n")
	}
	return b.String()
}

// facts writes what depends on the gateway alone.
func (r *ruleset) facts(f family, g firewall.Gateway) {
	r.add("filter", chainFwd, "-j %s", chainEnded)
	if f == four {
		r.facts4(g)
	} else {
		for _, wan := range g.WAN6 {
			for _, lan := range g.LAN {
				r.add("filter", chainFwd, "-i %s -o %s -m conntrack --ctdir ORIGINAL -j %s", wan, lan, chainPin)
				r.add("filter", chainFwd, "-i %s -o %s -m conntrack --ctdir REPLY -j %s", lan, wan, chainPin)
			}
		}
	}
	r.guard(f, g)
}

func (r *ruleset) facts4(g firewall.Gateway) {
	r.add("filter", chainFwd, "-m conntrack --ctstate DNAT -j %s", chainOpen)
	for _, a := range g.WANAddrs() {
		// Traffic that merely bears a mapped port is not addressed to us (abuse
		// case B9).
		for _, name := range unique(append(wanNames(g), g.LAN...)) {
			r.add("nat", chainIn, "-d %s/32 -i %s -j %s", a, name, chainMap)
		}
	}
	for _, name := range wanNames(g) {
		r.add("nat", chainOut, "-o %s -j %s", name, chainKeep)
	}
	for _, name := range g.LAN {
		for _, p := range g.LANPrefixes {
			if p.Addr().Is4() {
				r.add("nat", chainOut, "-s %s -o %s -m conntrack --ctstate DNAT -j %s", p.Masked(), name, chainHair)
			}
		}
	}
}

// back makes a host behind us look as it does from outside (RFC 4787 section 6,
// REQ-9): it has the address of ours that it sent to, and from a mapped endpoint the
// mapped port.
func (r *ruleset) back(f family, g firewall.Gateway, all []firewall.Entry) {
	if f != four {
		return
	}
	for _, a := range g.WANAddrs() {
		for _, e := range all {
			if e.Kind == firewall.Kept {
				r.add("nat", chainBack, "-s %s/32 -p %s -m %[2]s --sport %d -m conntrack --ctorigdst %s -j SNAT --to-source %s:%d",
					e.Internal.Addr(), proto(e), e.Internal.Port(), a, a, e.External)
			}
		}
		r.add("nat", chainBack, "-m conntrack --ctorigdst %s -j SNAT --to-source %s", a, a)
	}
}

// guard keeps everybody but the LAN away from our sockets, with the answers of a
// closed port (abuse cases A1 to A3, A5, A7).
func (r *ruleset) guard(f family, g firewall.Gateway) {
	for _, name := range append([]string{"lo"}, g.LAN...) {
		r.add("filter", chainGuard, "-i %s -j RETURN", name)
	}
	r.add("filter", chainGuard, "-m conntrack --ctdir REPLY -j RETURN")
	unreachable := "icmp-port-unreachable"
	if f == six {
		unreachable = "icmp6-port-unreachable"
	}
	for _, p := range unique(g.ServiceTCP) {
		r.add("filter", chainGuard, "-p tcp -m tcp --dport %d -j REJECT --reject-with tcp-reset", p)
	}
	for _, p := range unique(g.ServiceUDP) {
		r.add("filter", chainGuard, "-p udp -m udp --dport %d -j REJECT --reject-with %s", p, unreachable)
	}
}

// entries writes what depends on the mappings. Of the holes those for one host
// come first, then those for a network or a port, then those for anyone; see
// firewall.Source.
func (r *ruleset) entries(f family, g firewall.Gateway, all []firewall.Entry) {
	all = slices.Clone(all)
	firewall.SortEntries(all)
	r.back(f, g, all)
	sort.SliceStable(all, func(i, j int) bool { return class(all[i].Source) < class(all[j].Source) })
	for _, e := range all {
		if (e.Kind == firewall.Pin) != (f == six) {
			continue
		}
		until := ""
		if stop := r.stop(e); stop != "" {
			until = " -m time --datestop " + stop
		}
		switch e.Kind {
		case firewall.Hole:
			r.hole(e, until)
		case firewall.Kept:
			r.add("nat", chainKeep, "-s %s/32 -p %s -m %[2]s --sport %d%s -j MASQUERADE --to-ports %d",
				e.Internal.Addr(), proto(e), e.Internal.Port(), until, e.External)
		case firewall.Pin:
			r.add("filter", chainPin, "-p %s -m conntrack%s --ctorigdst %s%s --ctorigdstport %d%s%s -j ACCEPT",
				proto(e), origin(e.Source), e.Internal.Addr(), originPort(e.Source), e.Internal.Port(), until, r.comment(e))
			r.count(e)
		}
	}
}

func class(s firewall.Source) int {
	switch {
	case s.OneHost():
		return 0
	case s.Filtered():
		return 1
	}
	return 2
}

func (r *ruleset) hole(e firewall.Entry, until string) {
	from, port := "", ""
	if !e.Source.Anyone() {
		if e.Source.Prefix.Bits() > 0 {
			from = "-s " + e.Source.Prefix.String() + " "
		}
		port = portRange(" --sport ", e.Source)
	}
	r.add("nat", chainMap, "%s-p %s -m %[2]s%s --dport %d%s%s -j DNAT --to-destination %s",
		from, proto(e), port, e.External, until, r.comment(e), e.Internal)
	// A flow is known by the external port it first went to and the endpoint it
	// was translated to, in both directions: nothing that anybody else translated
	// passes for ours.
	flow := fmt.Sprintf("-p %s -m conntrack%s --ctreplsrc %s%s --ctorigdstport %d --ctreplsrcport %d%s",
		proto(e), origin(e.Source), e.Internal.Addr(), originPort(e.Source), e.External, e.Internal.Port(), until)
	r.add("filter", chainOpen, "%s -j ACCEPT", flow)
	r.count(e)
	r.add("nat", chainHair, "%s -j %s", flow, chainBack)
}

// count makes the last rule the one that counts for the entry.
func (r *ruleset) count(e firewall.Entry) { r.rules[len(r.rules)-1].counted = e.Key() }

func (r *ruleset) comment(e firewall.Entry) string {
	return fmt.Sprintf(" -m comment --comment \"portcullis mapping %d\"", r.id(e.Key()))
}

// lastDate is the last one that xt_time knows.
var lastDate = time.Date(2038, 1, 19, 3, 14, 7, 0, time.UTC)

// date gives a time as xt_time reads it.
func date(t time.Time) string {
	if t = t.UTC(); t.After(lastDate) {
		t = lastDate
	}
	return t.Format("2006-01-02T15:04:05")
}

func proto(e firewall.Entry) string {
	if e.Transport == portmap.TCP {
		return "tcp"
	}
	return "udp"
}

// origin and originPort say who may have begun a flow.
func origin(s firewall.Source) string {
	if s.Anyone() || s.Prefix.Bits() == 0 {
		return ""
	}
	if s.Prefix.IsSingleIP() {
		return " --ctorigsrc " + s.Prefix.Addr().String()
	}
	return " --ctorigsrc " + s.Prefix.String()
}

func originPort(s firewall.Source) string {
	if s.Anyone() {
		return ""
	}
	return portRange(" --ctorigsrcport ", s)
}

func portRange(option string, s firewall.Source) string {
	switch {
	case s.Low == 0 && s.High == lastPort:
		return ""
	case s.Low == s.High:
		return fmt.Sprintf("%s%d", option, s.Low)
	}
	return fmt.Sprintf("%s%d:%d", option, s.Low, s.High)
}

const lastPort = 1<<16 - 1

// script gives the input of iptables-restore that turns what is there into the
// ruleset. Each chain that it names is emptied first.
func (r *ruleset) script(f family, there *saved, counter func(firewall.Key) firewall.Counter) string {
	var b strings.Builder
	for _, table := range tables[f] {
		fmt.Fprintf(&b, "*%s\n", table)
		for _, chain := range chains[f][table] {
			fmt.Fprintf(&b, ":%s - [0:0]\n", chain)
		}
		for _, w := range r.rules {
			if w.table != table {
				continue
			}
			var c firewall.Counter
			if w.counted != (firewall.Key{}) {
				c = counter(w.counted)
			}
			fmt.Fprintf(&b, "[%d:%d] -A %s %s\n", c.Packets, c.Bytes, w.chain, w.text)
		}
		for _, j := range jumps[f] {
			if j.table == table && !j.intact(there) {
				j.remove(&b, there)
				j.write(&b)
			}
		}
		b.WriteString("COMMIT\n")
	}
	return b.String()
}

// removal gives the input that takes all of ours away, and nothing else; "" where
// there is nothing. What translates goes first.
func removal(f family, there *saved) string {
	var b strings.Builder
	for _, table := range slices.Backward(tables[f]) {
		var ours []string
		for at := range there.chains {
			if at.table == table && ourChain(at.chain) {
				ours = append(ours, at.chain)
			}
		}
		if len(ours) == 0 {
			continue
		}
		slices.Sort(ours)
		fmt.Fprintf(&b, "*%s\n", table)
		for _, chain := range ours {
			fmt.Fprintf(&b, ":%s - [0:0]\n", chain)
		}
		for _, j := range jumps[f] {
			if j.table == table {
				j.remove(&b, there)
			}
		}
		for _, chain := range ours {
			fmt.Fprintf(&b, "-X %s\n", chain)
		}
		b.WriteString("COMMIT\n")
	}
	return b.String()
}

// intact says whether the jump is there once, in a place where it works.
func (j jump) intact(there *saved) bool {
	found := 0
	for _, l := range there.chains[place{j.table, j.from}] {
		switch {
		case l.target() == j.to:
			found++
		case found == 0 && slices.Contains(j.beaten, l.target()), found > 0 && j.last:
			return false
		}
	}
	return found == 1
}

func (j jump) remove(b *strings.Builder, there *saved) {
	for _, l := range there.chains[place{j.table, j.from}] {
		if l.target() == j.to {
			fmt.Fprintf(b, "-D %s %s\n", j.from, quote(l.words))
		}
	}
}

func (j jump) write(b *strings.Builder) {
	how := "-I " + j.from + " 1"
	if j.last {
		how = "-A " + j.from
	}
	fmt.Fprintf(b, "%s -m comment --comment portcullis -j %s\n", how, j.to)
}

// quote joins words for the program to read.
func quote(words []string) string {
	out := make([]string, len(words))
	for i, w := range words {
		if strings.ContainsAny(w, " \"\\") || w == "" {
			w = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(w) + `"`
		}
		out[i] = w
	}
	return strings.Join(out, " ")
}

func wanNames(g firewall.Gateway) []string {
	var names []string
	for _, up := range g.WAN {
		names = append(names, up.Interface)
	}
	return unique(names)
}

func unique[T comparable](list []T) []T {
	var out []T
	for _, x := range list {
		if !slices.Contains(out, x) {
			out = append(out, x)
		}
	}
	return out
}
