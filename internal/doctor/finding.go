package doctor

import (
	"fmt"
	"sort"
	"strings"
	"time"

	"portcullis/internal/control"
)

// Level is how bad a finding is.
type Level string

// The levels. A failure keeps mappings from working.
const (
	Failure Level = "failure"
	Warning Level = "warning"
	Fine    Level = "ok"
)

// Finding is one thing that was looked at.
type Finding struct {
	ID     string `json:"id"` // stable, for programs
	Level  Level  `json:"level"`
	What   string `json:"what"`             // a sentence
	Remedy string `json:"remedy,omitempty"` // exactly what to do; "" where nothing is wrong
}

// Listener is a port of ours that another program has.
type Listener struct {
	Port    string // "udp 5351"
	Program string // "" where it cannot be told
}

// Stray is a network of a LAN whose answers to the Internet do not leave by the WAN.
type Stray struct {
	LAN, WAN string
	Hosts    string // those that a rule picks out: "192.168.1.3/32"; "": all
	IPv6     bool
	By       string // the interface that they leave by; "": they do not leave at all
	Way      string // the rule and the table, or the kernel's error
}

// String is the sentence about it.
func (s Stray) String() string {
	hosts, what := "hosts on "+s.LAN, "IPv4"
	if s.Hosts != "" {
		hosts = s.Hosts + " on " + s.LAN
	}
	if s.IPv6 {
		what = "IPv6"
	}
	if s.By == "" {
		return fmt.Sprintf("replies from %s to the Internet have no route over %s: %s", hosts, what, s.Way)
	}
	return fmt.Sprintf("replies from %s to the Internet leave by %s and not by %s, where %s comes in (%s)", hosts, s.By, s.WAN, what, s.Way)
}

// Facts is what was found on the machine. The zero value of a field is the good one
// unless it says otherwise.
type Facts struct {
	Config   error    // of the configuration file
	Network  error    // what is wrong with the interfaces, as netif says
	Doubts   []string // what may be wrong with them, in sentences with a remedy behind the last semicolon
	LANs     []string
	Detected bool   // they are not in the configuration
	Left     string // an external_ip that is not of this machine any more
	Own      string // and an address of the WAN in its place
	WAN      string // "" is none
	WANGone  bool   // there is no interface of that name
	WANUp    bool   // true is good
	External string
	Private  bool // External cannot be reached from the Internet
	Allowed  bool // and the owner says that it can
	WAN6Up   bool // there is IPv6 outside

	Forwards, Forwards6 bool // true is good
	StrictRP            []string
	DefaultRoutes       int
	Synced              bool // the clock; true is good
	Now                 time.Time
	Taken               []Listener
	OtherGateways       []string // addresses that answer as gateways on a LAN
	OtherDHCP           []string // and as DHCP servers
	State               error    // of the state directory
	Backend             string   // "nftables" or "iptables"
	Firewall            error    // why it cannot be used
	Legacy              bool     // iptables-legacy has rules, beside nftables
	AcceptChain         string   // as configured
	AcceptChain6        string
	Trial               Trial
	AnswersSeen         bool      // that is, by which way they leave; it cannot be in a VRF
	Strays              []Stray   // with the marks that Trial saw
	AsksFailed          error     // why that cannot be tried
	AsksSeen            bool      // that is, whether what clients send to the gateway arrives
	Asks                []Dropped // what does not

	Unserved []string // addresses of LANs that devices ask in vain: "198.51.100.1 on br-lan"
	Quotas   Quotas
	Refusals []control.RefusedDevice // the latest first
	mappings []control.Mapping       // that are open

	Hook struct { // the program of [hook]
		Command string
		Err     error // why it cannot be started
	}
	Option  string            // Called.Option
	Daemon  Daemon            // the one that runs
	Written map[string]string // what the file has in [firewall], where that is not what the daemon runs, by key
}

// earliest is before this program was written: a clock that says less was never set.
var earliest = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Judge returns what the facts mean, the worst first.
func Judge(f *Facts) []Finding {
	var all []Finding
	add := func(id string, level Level, remedy, what string, args ...any) {
		text := strings.ReplaceAll(fmt.Sprintf(what, args...), "\n", "; ") // errors that were joined
		all = append(all, Finding{id, level, text, remedy})
	}
	if f.Config != nil {
		add("config", Failure, "fix the file, and check it with `portcullis check"+f.Option+"`", "the configuration is not valid: %v", f.Config)
		return all
	}
	judgeDaemon(f, add)
	judgeNetwork(f, add)
	judgeMachine(f, add)
	judgeFirewall(f, add)
	judgeHook(f, add)
	judgeQuotas(f, add)
	judgeRefusals(f, add)
	sort.SliceStable(all, func(i, j int) bool { return rank(all[i].Level) < rank(all[j].Level) })
	judgeClock(f, add)
	return all
}

func rank(l Level) int { return strings.Index("failure warning ok", string(l)) }

// Stops reports whether one of the findings keeps a mapping from working.
func Stops(all []Finding) bool { return len(all) > 0 && all[0].Level == Failure }

type adder func(id string, level Level, remedy, what string, args ...any)

func judgeNetwork(f *Facts, add adder) {
	if f.Network != nil {
		add("interfaces", Failure, "correct [lan] and [wan] in the configuration"+f.then("lan.interfaces"), "the interfaces do not fit the configuration: %v", f.Network)
	}
	for _, d := range f.Doubts {
		what, remedy := d, ""
		if i := strings.LastIndex(d, "; "); i >= 0 {
			what, remedy = d[:i], d[i+2:]
		}
		if strings.Contains(remedy, "lan.interfaces") {
			remedy += f.then("lan.interfaces")
		}
		add("interfaces_doubtful", Warning, remedy, "%s", what)
	}
	switch {
	case len(f.LANs) == 0:
		add("lan", Failure, `name the LAN: interfaces = ["br-lan"] in [lan]`+f.then("lan.interfaces"), "no LAN is served")
	default:
		add("lan", Fine, "", "serves %s", strings.Join(f.LANs, ", "))
	}
	switch {
	case f.WAN == "":
		add("wan", Failure, `connect the gateway, or name the interface: interface = "eth0" in [wan]`+f.then("wan.interface"), "there is no IPv4 default route")
	case f.WANGone:
		add("wan", Failure, "correct interface in [wan], or remove it, and the default route decides; one of PPPoE comes with the connection"+f.then("wan.interface"),
			"this machine has no interface %s, which is to be the WAN", f.WAN)
	case !f.WANUp:
		add("wan", Failure, "bring the interface up", "the WAN %s is down, or has no address", f.WAN)
	case f.Private && !f.Allowed:
		add("private_wan", Failure, "have the router upstream forward ports to this one and set private_address = \"allow\" in [wan], or ask the provider for a public address"+f.then("wan.private_address"),
			"the address of %s, %s, cannot be reached from the Internet: another router or the provider translates it", f.WAN, f.External)
	case f.Private:
		add("private_wan", Warning, "make sure that the router upstream forwards ports to this one", "the address %s is private, which the configuration allows", f.External)
	default:
		add("wan", Fine, "", "%s has the address %s", f.WAN, f.External)
	}
	if f.Detected && len(f.LANs) > mostDetected {
		add("lans_detected", Warning, "name those whose devices may open ports: interfaces = [\""+f.LANs[0]+"\", ...] in [lan]"+f.then("lan.interfaces"),
			"%d LANs are served because they were detected: %s", len(f.LANs), strings.Join(f.LANs, ", "))
	}
	for _, a := range f.Unserved {
		add("lan_address", Warning, "if the hosts of that network may open ports, name it in extra_prefixes in [lan]"+f.then("lan.extra_prefixes"),
			"devices that ask at %s are not answered: its network is none of a LAN", a)
	}
	if f.Left != "" {
		add("external_ip", Warning, "correct external_ip in [wan], or remove it"+f.then("wan.external_ip"),
			"devices are told the address %s, which this machine does not have; that of %s is %s", f.Left, f.WAN, f.Own)
	}
	for _, a := range f.OtherGateways {
		add("second_gateway", Warning, "disable UPnP there or here: clients use the one that answers first", "another UPnP gateway answers on the LAN, at %s", a)
	}
	for _, a := range f.OtherDHCP {
		add("second_dhcp", Warning, "leave only one DHCP server on the LAN: hosts that are given another router never use this one", "another DHCP server answers on the LAN, at %s", a)
	}
}

func judgeMachine(f *Facts, add adder) {
	if !f.Forwards {
		add("forwarding", Failure, "sysctl -w net.ipv4.ip_forward=1, and the same in /etc/sysctl.d", "the kernel does not forward IPv4")
	}
	if f.WAN6Up && !f.Forwards6 {
		add("forwarding6", Failure, "sysctl -w net.ipv6.conf.all.forwarding=1, and the same in /etc/sysctl.d", "the kernel does not forward IPv6")
	}
	for _, l := range f.Taken {
		program := "another program"
		if l.Program != "" {
			program = l.Program
		}
		add("port_taken", Failure, "stop it, or disable that protocol in [upnp] or [pcp]"+f.then("upnp.enabled"), "%s is held by %s", l.Port, program)
	}
	if len(f.StrictRP) > 0 && f.DefaultRoutes > 1 {
		add("rp_filter", Warning, "sysctl -w net.ipv4.conf."+f.StrictRP[0]+".rp_filter=2",
			"reverse path filtering is strict on %s and there is more than one default route: replies by the other one are dropped", strings.Join(f.StrictRP, ", "))
	}
	if f.State != nil {
		add("state", Warning, "give state.dir to the user of the daemon, mode 0700", "mappings would not survive a restart: %v", f.State)
	}
}

// mostDetected is how many LANs a home has that nobody has named.
const mostDetected = 2

// judgeClock adds what matters only to leases that are written down.
func judgeClock(f *Facts, add adder) {
	if f.Quotas.Open == 0 {
		return
	}
	switch {
	case f.Now.Before(earliest):
		add("clock", Warning, "set the clock, for example with an NTP client", "the clock says %s, so it was never set", f.Now.UTC().Format(time.DateOnly))
	case !f.Synced:
		add("clock", Warning, "start an NTP client (chrony wants rtcsync)", "the clock is not synchronised: after a reboot, leases last too long by the time the machine was off")
	}
}

func judgeFirewall(f *Facts, add adder) {
	if f.Firewall != nil {
		add("firewall", Failure, "", "%s cannot be used: %v", f.Backend, f.Firewall)
		return
	}
	if f.Legacy {
		add("iptables_legacy", Warning, f.edited(edit{"firewall.backend", "iptables"}), "iptables-legacy has rules too, which nftables does not see")
	}
	judgeAnswers(f, add)
	t := f.Trial
	if t.Skipped != "" {
		add("path", Warning, "", "no packet was sent through a copy of the rules: %s", t.Skipped)
	} else {
		judgePaths(f, add)
	}
	judgeAsks(f, add)
}

// judgeAnswers adds findings about replies that leave by another way. A connection to a mapping
// then does not come about, whatever the rules let pass.
func judgeAnswers(f *Facts, add adder) {
	strayed := map[bool]bool{}
	for _, s := range f.Strays {
		id, level, remedy := "answers", Failure, "have the firewall mark connections that come in by "+s.WAN+
			", and route packets with that mark back by it; docs/firewalls.md has the rules (Answers that leave by another way)"
		if s.IPv6 {
			id = "answers6"
		}
		v := f.Trial.Mapping
		if s.IPv6 {
			v = f.Trial.Pinhole
		}
		if s.Hosts != "" || !v.Marked { // the others' work, or a mark may send answers back
			level = Warning
		}
		if s.By == "" {
			remedy = "give the hosts a route; `ip route get` shows which rule is in the way"
		}
		add(id, level, remedy, "%s", s)
		strayed[s.IPv6] = true
	}
	if f.AnswersSeen && !strayed[false] {
		add("answers", Fine, "", "replies leave by %s", f.WAN)
	}
}
