package config

import (
	"log/slog"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"portcullis/portmap"
)

// The words of the closed sets, in the order in which errors list them.
var (
	actionWords  = []string{"allow", "ask", "deny"}
	privateWords = []string{"refuse", "allow"}
	nonceWords   = []string{"same-client", "strict"}
	backendWords = []string{"auto", "nftables", "iptables"}
	leaseWords   = []string{"dnsmasq", "odhcpd", "isc", "kea"}
	levelWords   = []string{"debug", "info", "warn", "error"}
	formatWords  = []string{"text", "json"}
)

var (
	actions = map[string]portmap.Action{"allow": portmap.Allow, "ask": portmap.Ask, "deny": portmap.Deny}
	levels  = map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
)

// convert turns the texts of the file into values. What cannot be converted is
// reported, and the value is zero then.
func (r *reader) convert(raw *rawFile) Config {
	c := Config{
		LAN:    r.lan(raw.LAN),
		WAN:    r.wan(raw.WAN),
		UPnP:   r.upnp(raw.UPnP),
		PCP:    PCP{NATPMP: raw.PCP.NATPMP, PCP: raw.PCP.PCP, StrictNonce: r.word("pcp.nonce", raw.PCP.Nonce, nonceWords) == "strict"},
		Lease:  r.lease(raw.Lease),
		Limits: r.limits(raw.Limits),
		Policy: Policy{
			Default:     actions[r.word("policy.default", raw.Policy.Default, actionWords)],
			SameDevice:  raw.Policy.SameDevice,
			UniqueLocal: raw.Policy.UniqueLocal,
		},
		Rules: r.ruleList(raw.Rules),
		Firewall: Firewall{
			Backend:      r.backend("firewall.backend", raw.Firewall.Backend),
			AcceptChain:  r.chain("firewall.accept_chain", raw.Firewall.AcceptChain, "inet", "ip"),
			AcceptChain6: r.chain("firewall.accept_chain6", raw.Firewall.AcceptChain6, "inet", "ip6"),
			Mark:         r.mark("firewall.mark", raw.Firewall.Mark),
			KeepOnStop:   raw.Firewall.KeepOnStop,
		},
		State: State{Dir: r.path("state.dir", raw.State.Dir, maxDir)},
		Control: Control{
			Socket: r.path("control.socket", raw.Control.Socket, maxSocket),
			Group:  r.group("control.group", raw.Control.Group),
		},
		Metrics: Metrics{Listen: r.listen("metrics.listen", raw.Metrics.Listen)},
		Log: Log{
			Level: levels[r.word("log.level", raw.Log.Level, levelWords)],
			JSON:  r.word("log.format", raw.Log.Format, formatWords) == "json",
		},
	}
	r.unavailable(&c)
	r.together(&c)
	return c
}

func (r *reader) lan(raw rawLAN) LAN {
	var lan LAN
	const names, prefixes, leases = "lan.interfaces", "lan.extra_prefixes", "lan.leases"
	for i, name := range r.list(names, raw.Interfaces) {
		lan.Interfaces = append(lan.Interfaces, r.ifname(elementPath(names, i), name))
	}
	for i, s := range r.list(prefixes, raw.ExtraPrefixes) {
		p, why := parsePrefix(s)
		if why == "" && !fitsLAN(p) {
			why = "is no network of hosts"
		}
		if why != "" {
			r.fail(elementPath(prefixes, i), "%s %s; allowed: a unicast network like \"192.168.7.0/24\" or \"2001:db8:7::/64\", with a prefix length of 8 or more", quote(s), why)
		}
		lan.ExtraPrefixes = append(lan.ExtraPrefixes, p)
	}
	for i, s := range r.list(leases, raw.Leases) {
		format, path, named := strings.Cut(s, ":")
		if named && !strings.HasPrefix(s, "/") {
			r.word(elementPath(leases, i), format, leaseWords)
		} else {
			path = s
		}
		r.path(elementPath(leases, i), path, maxDir)
	}
	lan.Leases = append(lan.Leases, raw.Leases...)
	return lan
}

func (r *reader) wan(raw rawWAN) WAN {
	wan := WAN{AllowPrivateAddress: r.word("wan.private_address", raw.PrivateAddress, privateWords) == "allow"}
	if raw.Interface != "" {
		wan.Interface = r.ifname("wan.interface", raw.Interface)
	}
	if raw.Interface6 != "" {
		wan.Interface6 = r.ifname("wan.interface6", raw.Interface6)
	}
	if raw.ExternalIP == "" {
		return wan
	}
	a, err := netip.ParseAddr(raw.ExternalIP)
	if err != nil || !isPublic4(a) {
		r.fail("wan.external_ip", "%s is not a public IPv4 address; allowed: a public IPv4 address in numbers, or \"\" for the interface's own", quote(raw.ExternalIP))
		return wan
	}
	wan.ExternalIP = a
	return wan
}

func (r *reader) upnp(raw rawUPnP) UPnP {
	const port, name = "upnp.http_port", "upnp.friendly_name"
	u := UPnP{Enabled: raw.Enabled, Events: raw.Events, FriendlyName: raw.FriendlyName}
	switch n := raw.HTTPPort; {
	case n == 1900 || n == 5351:
		r.fail(port, "%d belongs to the discovery or to NAT-PMP and PCP; allowed: 1 to 65535 without 1900 and 5351", n)
	case n < 1 || n > 65535:
		r.fail(port, "%d is not a port; allowed: 1 to 65535 without 1900 and 5351", n)
	default:
		u.HTTPPort = uint16(n)
	}
	// UDA 1.1 section 2.3: a friendly name has less than 64 characters.
	if !isText(u.FriendlyName, 63) {
		r.fail(name, "%s is not a name to show; allowed: 1 to 63 printable characters", quote(u.FriendlyName))
	}
	return u
}

// lease reads both bounds. A file that only shortens max moves the default of
// min with it.
func (r *reader) lease(raw rawLease) Lease {
	l := Lease{Max: r.lifetime("lease.max", raw.Max), Min: r.lifetime("lease.min", raw.Min)}
	switch {
	case r.bad["lease.max"] || r.bad["lease.min"] || l.Min <= l.Max:
	case r.at.has("lease.min"):
		r.fail("lease.min", "%s is longer than lease.max, which is %s; allowed: at most lease.max", quote(raw.Min), quote(raw.Max))
	default:
		l.Min = l.Max
	}
	return l
}

func (r *reader) limits(raw rawLimits) Limits {
	// The kernel's maps have room for 131072 elements: twice the most we
	// allow, because an element lives 60 s longer there than its mapping here.
	return Limits{
		MappingsPerClient: r.number("limits.mappings_per_client", raw.MappingsPerClient, 1, 65535),
		Mappings:          r.number("limits.mappings", raw.Mappings, 1, 65535),
		GrantsPerSecond:   r.number("limits.grants_per_second", raw.GrantsPerSecond, 0, 1000),
		RequestsPerSecond: r.number("limits.requests_per_second", raw.RequestsPerSecond, 0, 100000),
	}
}

// unavailable refuses the keys of the contract that this version cannot
// honour: better no start than a setting that is taken and ignored.
func (r *reader) unavailable(c *Config) {
	const text = "%s is not available in this version; allowed: %s"
	if c.Metrics.Listen.IsValid() {
		r.fail("metrics.listen", text, quote(c.Metrics.Listen.String()), `""`)
	}
}

// together checks what only several keys show, above all that no interface is
// on both sides of the wall (abuse case A9).
func (r *reader) together(c *Config) {
	for _, wan := range []struct{ key, name string }{{"wan.interface", c.WAN.Interface}, {"wan.interface6", c.WAN.Interface6}} {
		if wan.name != "" && slices.Contains(c.LAN.Interfaces, wan.name) {
			r.fail(wan.key, "%s is also in lan.interfaces; allowed: an interface that is on one side only", quote(wan.name))
		}
	}
	for i, p := range c.LAN.ExtraPrefixes {
		if p.IsValid() && p.Contains(c.WAN.ExternalIP) {
			r.fail(elementPath("lan.extra_prefixes", i), "%s holds wan.external_ip; allowed: networks of the LAN only", quote(p.String()))
		}
	}
	if c.Firewall.Backend == BackendIPTables {
		for _, chain := range []struct {
			key  string
			name Chain
		}{{"firewall.accept_chain", c.Firewall.AcceptChain}, {"firewall.accept_chain6", c.Firewall.AcceptChain6}} {
			if chain.name != (Chain{}) {
				r.fail(chain.key, "%s has no use with backend %s, whose rule stands first in FORWARD; allowed: %s",
					quote(chain.name.String()), quote(string(BackendIPTables)), `""`)
			}
		}
	}
	for i, rule := range c.Rules {
		for j, m := range rule.Clients {
			if m.Kind == ByInterface {
				r.ruleInterface(elementPath(rulePath(i)+".clients", j), m.Interface, c)
			}
		}
	}
}

// ruleInterface refuses a condition that could never hold: in a deny rule it
// would leave open what the owner believes shut.
func (r *reader) ruleInterface(path, name string, c *Config) {
	served := c.LAN.Interfaces
	if name == "" || r.bad["lan.interfaces"] || served == nil && name != c.WAN.Interface {
		return
	}
	if served == nil {
		r.fail(path, "%s is the WAN interface; allowed: a LAN interface", quote(interfaceTag+name))
	} else if !slices.Contains(served, name) {
		r.fail(path, "%s is not in lan.interfaces; allowed: %s", quote(interfaceTag+name), oneOf(served))
	}
}

func (r *reader) backend(path, v string) Backend {
	if b := Backend(v); b == BackendIPTables {
		return b
	}
	return Backend(r.word(path, v, backendWords))
}

// word checks a closed set.
func (r *reader) word(path, v string, allowed []string) string {
	if !slices.Contains(allowed, v) {
		r.fail(path, "%s is unknown; allowed: %s", quote(v), oneOf(allowed))
	}
	return v
}

func (r *reader) number(path string, v, low, high int64) int {
	if v < low || v > high {
		r.fail(path, "%d is out of range; allowed: %d to %d", v, low, high)
		return 0
	}
	return int(v)
}

// mark checks the bits of a packet's mark.
func (r *reader) mark(path, v string) uint32 {
	bits, err := strconv.ParseUint(v, 0, 32)
	if err != nil || bits == 0 {
		r.fail(path, "%s is no mark; allowed: \"0x1\" to \"0xffffffff\"", quote(v))
	}
	return uint32(bits)
}

// maxList bounds every list of the file.
const maxList = 256

// list refuses a list that is too long, and one that says the same thing twice.
func (r *reader) list(path string, all []string) []string {
	if len(all) > maxList {
		r.fail(path, "%d elements; allowed: at most %d", len(all), maxList)
		return nil
	}
	for i, s := range all {
		if slices.Contains(all[:i], s) {
			r.fail(elementPath(path, i), "%s stands there twice; allowed: once", quote(s))
		}
	}
	return all
}

// ifname checks the name of an interface. The pointless "lo" is refused,
// because serving it would serve whoever can reach the gateway's own services.
func (r *reader) ifname(path, name string) string {
	if name == "lo" || name == "." || name == ".." || len(name) < 1 || len(name) > 15 ||
		strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c > '~' || strings.ContainsRune(`/:*"`, c) }) {
		r.fail(path, "%s is not an interface name; allowed: %s", quote(name), ifnameForm)
	}
	return name
}

const ifnameForm = `1 to 15 characters, no spaces, none of / : * ", and not "lo"`
