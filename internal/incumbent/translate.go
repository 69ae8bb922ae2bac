package incumbent

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"strings"

	"portcullis/config"
	"portcullis/policy"
	"portcullis/portmap"
)

// NoteKind is why something is noted.
type NoteKind string

// The kinds of notes.
const (
	NoCounterpart NoteKind = "no counterpart" // nothing here does that
	Stricter      NoteKind = "stricter"       // less is opened than was
	Look          NoteKind = "look at this"   // the owner knows what the program cannot
)

// Note is what did not become the same.
type Note struct {
	File string
	Line int    // of the file, from 1; 0: of none
	Key  string // where in our file it belongs, "lan.interfaces" or "rule[0]"; "": to none
	Kind NoteKind
	Text string
}

// Machine is what is known of the gateway that the file is of. Its zero value knows nothing.
type Machine struct {
	Router *Router                                        // the file is its own; nil: it may be another machine's
	Holder func(a netip.Addr) (device string, known bool) // of an address of the gateway's own
}

// Router is OpenWrt as it runs.
type Router struct {
	Networks map[string]string // the device of each network (Networks)
	Zone     string            // the first device of the zone that external_zone names; "": it has none now
	FW3      bool              // its firewall is fw3, of iptables
}

// Plan is what a file becomes.
type Plan struct {
	Config config.Config
	Notes  []Note // by file and line
	Unread *Error // the first option that is not known; nil: there is none
}

// Base is what holds where a file says nothing.
type Base struct {
	config.Config
	Says func(key string) bool // whether its owner has written down a key of his; nil: none
}

func (b *Base) says(key string) bool { return b.Says != nil && b.Says(key) }

// translation is a Plan in the making.
type translation struct {
	file    *File
	machine Machine
	base    Base
	config  config.Config
	notes   []Note
	noted   map[Note]bool
	names   map[string]bool   // of rules
	denied6 map[string]bool   // ports that a rule keeps from IPv6
	lans    map[string]string // the interfaces of what the file calls them
	unknown bool              // a LAN was named whose interface is not known
	zone    value             // external_zone
	failed  *Error            // nil: a configuration can be made
	unread  *Error            // the first option that is not known
	set     map[string]bool   // the options that the files have
}

// Translate returns what a file of the kind Conf or UCI becomes. An error is an *Error.
func Translate(f *File, m Machine) (Plan, error) {
	return TranslateOver(Base{Config: config.Default()}, m, f)
}

// TranslateOver returns what files of one kind become together. What a later one sets counts,
// what none sets is base's; LANs and rules add up, and the rules of base come first.
func TranslateOver(base Base, m Machine, files ...*File) (Plan, error) {
	t := newTranslation(base, files[0], m)
	for _, f := range files {
		t.file = f
		t.notes = append(t.notes, f.notes...)
		for _, s := range f.settings {
			t.setting(s)
		}
	}
	t.file = files[0]
	t.absent()
	t.zoned()
	t.identity()
	t.leaseFiles()
	for _, f := range files {
		t.file = f
		for _, r := range namingFirst(f.rules) {
			t.ruleOf(r)
		}
	}
	t.file = files[0]
	order := func(n Note) int { return slices.IndexFunc(files, func(f *File) bool { return f.Name == n.File }) }
	sort.SliceStable(t.notes, func(i, j int) bool {
		a, b := t.notes[i], t.notes[j]
		return cmp.Or(cmp.Compare(order(a), order(b)), cmp.Compare(a.Line, b.Line)) < 0
	})
	return Plan{Config: t.config, Notes: t.notes, Unread: t.unread}, t.wrong()
}

func newTranslation(base Base, f *File, m Machine) *translation {
	t := &translation{
		file: f, machine: m, base: base, config: base.Config, noted: map[Note]bool{}, names: map[string]bool{}, denied6: map[string]bool{}, lans: map[string]string{}, set: map[string]bool{},
	}
	t.config.Rules = slices.Clone(base.Rules)
	for _, r := range base.Rules {
		t.names[r.Name] = true
	}
	return t
}

// closed reports whether it is not known which LANs may be served.
func (t *translation) closed() bool { return t.unknown && t.config.LAN.Interfaces == nil }

func (t *translation) note(line int, key string, kind NoteKind, text string) {
	if n := (Note{t.file.Name, line, key, kind, text}); !t.noted[n] {
		t.noted[n] = true
		t.notes = append(t.notes, n)
	}
}

// setting finds the option of a setting in the table, and has it done.
func (t *translation) setting(s setting) {
	o := find(t.file.Kind, s.name)
	if o == nil {
		t.note(s.line, "", NoCounterpart, shown(s.name)+" is no option that is known, and nothing comes of it")
		if t.unread == nil {
			t.unread = t.file.failed(s.line, "%s is no option that is known", shown(s.name))
		}
		return
	}
	if o.Name() == "listening_ip" && !t.set[o.Name()] {
		t.config.LAN.Interfaces = nil // of the base
	}
	t.set[o.Name()] = true
	v := value{t.file.Kind, s.line, s.name, s.value, o}
	if o.to != nil {
		o.to(t, v)
		return
	}
	t.lost(v)
}

// absent is what it means that an option is not set.
func (t *translation) absent() {
	if t.file.Kind == Conf && !t.set["enable_natpmp"] {
		t.withoutPCP()
	}
	if t.file.Kind == UCI {
		if !t.set["listening_ip"] {
			t.lan(0, "lan")
		}
		t.leases()
		t.firewall()
	}
	if t.file.Kind == Conf && !t.set["listening_ip"] && len(t.config.LAN.Interfaces) == 0 {
		t.note(0, "lan.interfaces", Look, "listening_ip is not set, perhaps because it was given by the option -a: without interfaces, every private LAN is served")
	}
	if t.closed() {
		t.names[closedName] = true
		t.config.Rules = append([]policy.Rule{{Name: closedName, Action: portmap.Deny}}, t.config.Rules...)
		t.note(0, "rule[0]", Stricter, "nothing is opened until you set lan.interfaces and remove this rule")
	}
}

// withoutPCP is what it means that NAT-PMP and PCP are not set, as far as the owner has not said
// himself which he wants.
func (t *translation) withoutPCP() {
	natpmp, pcp := t.base.says("pcp.natpmp"), t.base.says("pcp.pcp")
	t.config.PCP.NATPMP = t.config.PCP.NATPMP && natpmp
	t.config.PCP.PCP = t.config.PCP.PCP && pcp
	switch {
	case !natpmp:
		t.note(0, "pcp.natpmp", Look, "miniupnpd has NAT-PMP and PCP off where enable_pcp_pmp is not set, and so it stays")
	case !pcp:
		t.note(0, "pcp.pcp", Look, "miniupnpd has PCP off where enable_pcp_pmp is not set, and so it stays")
	}
}

// pageLeases is where LuCI's page has the leases of a router whose file does not say.
const pageLeases = "/var/run/miniupnpd.leases"

// leases has a router write them where LuCI's page looks for them: without a file its button
// deletes nothing.
func (t *translation) leases() {
	if t.machine.Router == nil || t.file.has("upnp_lease_file") || t.file.has("lease_file") {
		return
	}
	t.config.Miniupnpd.LeaseFile = pageLeases
	if !t.file.has("upnp_lease_file6") {
		t.config.Miniupnpd.LeaseFile6 = pageLeases + "-ipv6"
	}
}

// firewall is what OpenWrt has to be told of mappings, which no option says.
func (t *translation) firewall() {
	if t.machine.Router != nil && t.machine.Router.FW3 {
		t.config.Firewall.Backend = config.BackendIPTables
		t.config.Miniupnpd.Chain = shownChain3
		return
	}
	t.config.Firewall.AcceptChain = fw4
	if t.machine.Router != nil {
		t.config.Firewall.Backend = config.BackendNFTables // only root could see that there is no other
		t.config.Miniupnpd.Chain = shownChain
	} else {
		t.note(0, "firewall.accept_chain", Look, "this is the chain of OpenWrt 22.03 and later; before them, remove it and set backend = \"iptables\"")
	}
}

// closedName is the name of the rule that stands where no LAN is known: without interfaces
// the daemon would detect them, and serve more than was served.
const closedName = "closed until lan.interfaces is set"

// ubusName returns the name of a network for a command that somebody may paste: a file may have
// anything there.
func ubusName(network string) string {
	if network == "" || strings.Trim(network, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") != "" {
		return "NAME"
	}
	return network
}

// lan adds a LAN by its interface, its address or its network's name in OpenWrt.
func (t *translation) lan(line int, word string) {
	name := word
	if t.file.Kind == UCI && t.machine.Router != nil {
		name = t.device(line, "lan.interfaces", word)
	} else if t.file.Kind == UCI {
		name = "br-" + word
		t.note(line, "lan.interfaces", Look, fmt.Sprintf("%s is a network of OpenWrt, whose device is a guess: on the router, ubus call network.interface.%s status has it as l3_device", shown(word), ubusName(word)))
	} else if a, _, _ := strings.Cut(word, "/"); strings.Count(a, ".") == 3 && strings.Trim(a, "0123456789.") == "" {
		addr, err := netip.ParseAddr(a)
		known := false
		if err == nil && t.machine.Holder != nil {
			name, known = t.machine.Holder(addr)
		}
		if !known {
			t.unknown = true
			t.note(line, "lan.interfaces", Look, fmt.Sprintf("no interface of this machine has the address %s: name the one of the LAN", shown(word)))
			return
		}
	}
	var i config.Interface
	if err := i.UnmarshalText([]byte(name)); err != nil {
		t.unknown = true
		t.note(line, "lan.interfaces", Look, fmt.Sprintf("%s %v", shown(name), err))
		return
	}
	t.lans[word] = name
	if len(t.config.LAN.Interfaces) <= config.MaxList && !slices.Contains(t.config.LAN.Interfaces, i) {
		t.config.LAN.Interfaces = append(t.config.LAN.Interfaces, i)
	}
}

// device returns what a network of the router's is on. A name that is none is taken for the
// interface's own: no other way to the Internet, and no other LAN, stands in for it.
func (t *translation) device(line int, key, network string) string {
	if device, known := t.machine.Router.Networks[network]; known {
		return device
	}
	t.note(line, key, Look, fmt.Sprintf("%s is no network that has a device now, and is taken for the name of an interface", shown(network)))
	return network
}

// wan sets an interface to the Internet.
func (t *translation) wan(v value, key string, to *config.Interface) {
	name := v.text
	switch {
	case v.text == "":
		return
	case t.file.Kind == UCI && t.machine.Router == nil:
		t.note(v.line, key, Look, fmt.Sprintf("%s is a network of OpenWrt, whose device is not known here, so the one with the default route is taken; on the router, ubus call network.interface.%s status has it as l3_device", shown(v.text), ubusName(v.text)))
		return
	case t.file.Kind == UCI:
		name = t.device(v.line, key, v.text)
	}
	if to.UnmarshalText([]byte(name)) == nil {
		return
	}
	if t.machine.Router != nil {
		t.fail(v.line, shown(name)+" is not the name of an interface")
		return
	}
	t.note(v.line, key, Look, shown(name)+" is not the name of an interface, so the one with the default route is taken")
}

// fail is for what no configuration is made of. The first one counts.
func (t *translation) fail(line int, text string) {
	if t.failed == nil {
		t.failed = &Error{t.file.Name, line, text}
	}
}

// identity makes the UUID of a router of the MAC address of its first LAN. Its state is in
// memory, as a rule, and a new one after each start would be a new gateway to every program.
func (t *translation) identity() {
	if t.machine.Router == nil || t.config.UPnP.UUID != "" || len(t.config.LAN.Interfaces) == 0 {
		return
	}
	_ = t.config.UPnP.UUID.UnmarshalText([]byte("mac:" + string(t.config.LAN.Interfaces[0]))) // or it is none, and one is made
}

// zoned is what external_zone means, where external_iface does not say what it would.
func (t *translation) zoned() {
	v := t.zone
	if v.text == "" {
		return
	}
	if t.machine.Router == nil {
		t.note(v.line, "wan.interface", Look, v.name+": "+v.option.Why)
		return
	}
	for _, to := range []*config.Interface{&t.config.WAN.Interface, &t.config.WAN.Interface6} {
		if *to == "" && to.UnmarshalText([]byte(t.machine.Router.Zone)) != nil || *to == "" {
			t.fail(v.line, "the zone "+shown(v.text)+" of external_zone has no device now")
		}
	}
}

// wrong returns what no configuration can be.
func (t *translation) wrong() error {
	if t.failed != nil {
		return t.failed
	}
	for _, i := range []config.Interface{t.config.WAN.Interface, t.config.WAN.Interface6} {
		if i != "" && slices.Contains(t.config.LAN.Interfaces, i) {
			return &Error{t.file.Name, 1, shown(string(i)) + " is the way to the Internet and a LAN: no configuration can be made of this"}
		}
	}
	for _, n := range []struct {
		what string
		is   int
		most int
	}{{"rules", len(t.config.Rules), config.MaxRules}, {"LANs", len(t.config.LAN.Interfaces), config.MaxList}} {
		if n.is > n.most {
			return &Error{t.file.Name, 1, fmt.Sprintf("too many %s; allowed: at most %d", n.what, n.most)}
		}
	}
	return nil
}
