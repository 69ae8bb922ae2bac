package incumbent

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"portcullis/config"
	"portcullis/firewall"
	"portcullis/policy"
	"portcullis/portmap"
)

// Option is one of miniupnpd's, or of OpenWrt's configuration of it.
type Option struct {
	Conf    []string // its names in miniupnpd.conf
	UCI     []string // and in /etc/config/upnpd, of both versions
	Becomes string   // our key, or keys; "": it has no counterpart
	Why     string   // what is to know about it
	to      func(*translation, value)
}

// Name returns the name by which it is known.
func (o *Option) Name() string { return append(o.Conf, o.UCI...)[0] }

// value is what an option is set to.
type value struct {
	kind       Kind
	line       int
	name, text string
	option     *Option
}

// yes reports whether a switch is on for certain; OpenWrt's script has more words for it.
func (v value) yes() bool {
	return v.text == "yes" || v.kind == UCI && slices.Contains([]string{"1", "on", "true", "enabled"}, v.text)
}

// no reports whether it is off for certain.
func (v value) no() bool {
	return v.text == "no" || v.kind == UCI && slices.Contains([]string{"0", "off", "false", "disabled", ""}, v.text)
}

// Options returns all that are known.
func Options() []Option { return options }

func find(kind Kind, name string) *Option {
	for i := range options {
		names := options[i].Conf
		if kind == UCI {
			names = options[i].UCI
		}
		if slices.Contains(names, name) {
			return &options[i]
		}
	}
	return nil
}

// lost notes an option that nothing comes of, if it was set to something.
func (t *translation) lost(v value) {
	if v.text != "" || v.name == "set_learn_dscp" {
		t.note(v.line, "", NoCounterpart, v.name+": "+v.option.Why)
	}
}

// lostIfYes is lost for a switch that is off by itself.
func lostIfYes(t *translation, v value) {
	if v.yes() {
		t.lost(v)
	}
}

// stricter notes what was allowed, and never is.
func (t *translation) stricter(v value) {
	t.note(v.line, "", Stricter, v.name+": "+v.option.Why)
}

// fw4 is where OpenWrt 22.03 and later drop what no zone lets pass.
var fw4 = firewall.Chain{Family: "inet", Table: "fw4", Name: "forward"}

const (
	ourTable = "the chains are its own, in the table inet portcullis"
	pfOnly   = "for pf, which Linux does not have"
	itself   = "the description says which program this is"
	stun     = "there is no STUN; where the WAN's own address is private nothing is opened, unless wan.private_address = \"allow\""
	comeBack = "clients ask again; `portcullis import` reads the file as well, and prints the commands that open the same"
)

var options = []Option{
	{Conf: []string{"ext_ifname"}, UCI: []string{"external_iface"}, Becomes: "wan.interface",
		Why: "of a network of OpenWrt the device is not known, so the default route decides",
		to:  func(t *translation, v value) { t.wan(v, "wan.interface", &t.config.WAN.Interface) }},
	{Conf: []string{"ext_ifname6"}, UCI: []string{"external_iface6"}, Becomes: "wan.interface6", Why: "the same for IPv6",
		to: func(t *translation, v value) { t.wan(v, "wan.interface6", &t.config.WAN.Interface6) }},
	{UCI: []string{"external_zone"}, Becomes: "wan.interface", Why: "a zone of fw4 has no name here; name its device, or let the default route decide",
		to: func(t *translation, v value) {
			t.note(v.line, "wan.interface", Look, v.name+": "+v.option.Why)
		}},
	{Conf: []string{"ext_ip"}, UCI: []string{"external_ip"}, Becomes: "wan.external_ip", Why: "a public address; for a private one, wan.private_address", to: externalIP},
	{Conf: []string{"ext_allow_private_ipv4"}, UCI: []string{"ext_allow_private_ipv4", "force_forwarding"}, Becomes: "wan.private_address",
		Why: "yes is \"allow\"", to: func(t *translation, v value) {
			if v.yes() {
				t.config.WAN.PrivateAddress = config.AllowPrivate
			}
		}},
	{Conf: []string{"ext_perform_stun"}, UCI: []string{"use_stun", "allow_cgnat", "allow_cgnat_use"}, Becomes: "wan.private_address", Why: stun, to: behindNAT},
	{Conf: []string{"ext_stun_host"}, UCI: []string{"stun_host"}, Why: "there is no STUN"},
	{Conf: []string{"ext_stun_port"}, UCI: []string{"stun_port"}, Why: "there is no STUN"},
	{Conf: []string{"listening_ip"}, UCI: []string{"internal_iface"}, Becomes: "lan.interfaces",
		Why: "an address becomes the interface that has it on this machine; of a network of OpenWrt, br-NAME is guessed",
		to: func(t *translation, v value) {
			words := strings.Fields(v.text)
			if len(words) == 0 {
				t.unknown = true
				t.note(v.line, "lan.interfaces", Look, "no LAN is named: name its interface")
			}
			if t.file.Kind == Conf && len(words) > 1 {
				t.note(v.line, "lan.interfaces", NoCounterpart, "listening_ip: the ports of a bridge need no names")
				words = words[:1]
			}
			for _, w := range words {
				t.lan(v.line, w)
			}
		}},
	{Conf: []string{"ipv6_listening_ip"}, Why: "sockets are bound to each LAN and its addresses"},
	{Conf: []string{"ipv6_disable"}, UCI: []string{"ipv6_disable"}, Becomes: "rule", Why: "a rule denies IPv6; who has no IPv6 needs none", to: noIPv6},
	{Conf: []string{"port", "http_port"}, UCI: []string{"port", "http_port", "upnp_igd_http_port"}, Becomes: "upnp.http_port", Why: "0, which takes any, becomes 5000", to: httpPort},
	{Conf: []string{"https_port"}, Why: "no HTTPS: control points do not check certificates, nor have one"},
	{Conf: []string{"bitrate_up"}, UCI: []string{"upload", "upload_kbps", "upnp_igd_upload"}, Why: "the rate of the line is not told"},
	{Conf: []string{"bitrate_down"}, UCI: []string{"download", "download_kbps", "upnp_igd_download"}, Why: "the rate of the line is not told"},
	{Conf: []string{"presentation_url"}, UCI: []string{"presentation_url"}, Why: "the description names no page"},
	{Conf: []string{"friendly_name"}, UCI: []string{"friendly_name", "upnp_igd_friendly_name"}, Becomes: "upnp.friendly_name",
		Why: "at most 63 characters", to: func(t *translation, v value) {
			if v.text != "" && t.config.UPnP.FriendlyName.UnmarshalText([]byte(v.text)) != nil {
				t.note(v.line, "upnp.friendly_name", Look, shown(v.text)+" cannot be shown as a name")
			}
		}},
	{Conf: []string{"manufacturer_name"}, Why: itself},
	{Conf: []string{"manufacturer_url"}, Why: itself},
	{Conf: []string{"model_name"}, Why: itself},
	{Conf: []string{"model_description"}, Why: itself},
	{Conf: []string{"model_url"}, Why: itself},
	{Conf: []string{"model_number"}, UCI: []string{"model_number"}, Why: itself},
	{Conf: []string{"serial"}, UCI: []string{"serial_number"}, Why: itself},
	{Conf: []string{"uuid"}, UCI: []string{"uuid"}, Why: "made once, and kept in state.dir"},
	{Conf: []string{"notify_interval"}, UCI: []string{"notify_interval"}, Why: "announcements come as UPnP asks"},
	{Conf: []string{"system_uptime"}, UCI: []string{"system_uptime"}, Why: "the uptime told is the daemon's: clients watch it for restarts", to: lostIfYes},
	{Conf: []string{"clean_ruleset_interval"}, UCI: []string{"clean_ruleset_interval"}, Why: "a mapping without an end is closed when its device has left"},
	{Conf: []string{"clean_ruleset_threshold"}, UCI: []string{"clean_ruleset_threshold"}, Why: "a mapping without an end is closed when its device has left"},
	{Conf: []string{"upnp_table_name"}, Becomes: "firewall.accept_chain",
		Why: "fw4 becomes \"inet fw4 forward\"; otherwise the table inet portcullis is its own, and `portcullis doctor` says whether your firewall needs the key",
		to: func(t *translation, v value) {
			if v.text == "fw4" {
				t.config.Firewall.AcceptChain = fw4
			} else {
				t.lost(v)
			}
		}},
	{Conf: []string{"upnp_nat_table_name"}, Why: ourTable},
	{Conf: []string{"upnp_forward_chain"}, Why: ourTable},
	{Conf: []string{"upnp_nat_chain"}, Why: ourTable},
	{Conf: []string{"upnp_nat_postrouting_chain"}, Why: ourTable},
	{Conf: []string{"upnp_nftables_family_split"}, Why: "the table is of the family inet"},
	{Conf: []string{"enable_natpmp", "enable_pcp_pmp"}, UCI: []string{"enable_natpmp"}, Becomes: "pcp.natpmp, pcp.pcp",
		Why: "in a miniupnpd.conf that does not have it, no", to: func(t *translation, v value) {
			n, err := strconv.Atoi(v.text)
			t.mappings(v.yes() || err == nil && n != 0)
		}},
	{Conf: []string{"enable_upnp"}, UCI: []string{"enable_upnp"}, Becomes: "upnp.enabled", Why: "anything but yes is no",
		to: func(t *translation, v value) { t.config.UPnP.Enabled = v.yes() }},
	{UCI: []string{"enable_protocols", "enabled_protocols"}, Becomes: "upnp.enabled, pcp.natpmp, pcp.pcp", Why: "all, upnp-igd or pcp+nat-pmp",
		to: func(t *translation, v value) {
			t.config.UPnP.Enabled = v.text == "all" || v.text == "upnp-igd"
			t.mappings(v.text == "all" || v.text == "pcp+nat-pmp")
		}},
	{Conf: []string{"min_lifetime"}, Becomes: "lease.min", Why: "for PCP, as there", to: func(t *translation, v value) { t.lifetime(v, "lease.min", &t.config.Lease.Min) }},
	{Conf: []string{"max_lifetime"}, Becomes: "lease.max", Why: "for all protocols, not for PCP alone", to: func(t *translation, v value) {
		t.lifetime(v, "lease.max", &t.config.Lease.Max)
		t.config.Lease.Min = min(t.config.Lease.Min, t.config.Lease.Max)
		t.note(v.line, "lease.max", Stricter, "max_lifetime: this holds for UPnP and NAT-PMP as well")
	}},
	{Conf: []string{"pcp_allow_thirdparty"}, Why: "nobody opens a port of another host, by whatever protocol", to: func(t *translation, v value) {
		if v.yes() {
			t.stricter(v)
		}
	}},
	{UCI: []string{"allow_third_party_mapping"}, Why: "nobody opens a port of another host, by whatever protocol", to: func(t *translation, v value) {
		if v.text != "0" {
			t.stricter(v)
		}
	}},
	{Conf: []string{"secure_mode"}, UCI: []string{"secure_mode"}, Why: "always on: nobody opens a port of another host", to: func(t *translation, v value) {
		if v.no() {
			t.stricter(v)
		}
	}},
	{Conf: []string{"lease_file"}, UCI: []string{"upnp_lease_file", "lease_file"}, Why: comeBack},
	{Conf: []string{"lease_file6"}, UCI: []string{"upnp_lease_file6"}, Why: comeBack},
	{Conf: []string{"force_igd_desc_v1"}, UCI: []string{"igdv1"}, Why: "not needed: each client gets the version that it searches for", to: lostIfYes},
	{UCI: []string{"upnp_igd_compat"}, Why: "not needed: each client gets the version that it searches for"},
	{Conf: []string{"minissdpdsocket"}, Why: "searches are answered by the daemon itself, on a socket that others can share"},
	{Conf: []string{"packet_log"}, Why: pfOnly},
	{Conf: []string{"anchor"}, Why: pfOnly},
	{Conf: []string{"queue"}, Why: pfOnly},
	{Conf: []string{"tag"}, Why: pfOnly},
	{Conf: []string{"quickrules"}, Why: pfOnly},
	{Conf: []string{"set_learn_dscp"}, Why: "an operation of PCP that is no standard"},
	{UCI: []string{"enabled"}, Why: "whether the service starts is up to systemd or procd", to: func(t *translation, v value) {
		if v.no() {
			t.note(v.line, "", Look, "enabled: the service was off; whether this one starts is up to systemd or procd")
		}
	}},
	{UCI: []string{"log_output"}, Becomes: "log.level", Why: "debug is \"debug\"", to: func(t *translation, v value) {
		if v.text == "debug" {
			t.config.Log.Level = config.LevelDebug
		}
	}},
	{UCI: []string{"config_file"}, Why: "the file that it names is the configuration, and this one is not: import that", to: func(t *translation, v value) {
		t.note(v.line, "", Look, v.name+": "+v.option.Why)
	}},
	{UCI: []string{"access_defaults"}, Becomes: "policy.default", Why: "of a draft: look at policy.default", to: func(t *translation, v value) {
		t.note(v.line, "policy.default", Look, v.name+": "+v.option.Why)
	}},
	{UCI: []string{"check_acl"}, Why: "of a draft; rules are always asked"},
}

func (t *translation) mappings(on bool) { t.config.PCP.NATPMP, t.config.PCP.PCP = on, on }

func externalIP(t *translation, v value) {
	var ip config.PublicIP
	if v.text == "" {
		return
	}
	if err := ip.UnmarshalText([]byte(v.text)); err != nil {
		t.note(v.line, "wan.external_ip", Look, fmt.Sprintf("%s %v", shown(v.text), err))
		return
	}
	t.config.WAN.ExternalIP = ip
}

// behindNAT is about a WAN whose address is private: STUN, or what OpenWrt calls CGNAT.
func behindNAT(t *translation, v value) {
	switch v.text {
	case "", "0", "no", "off", "false", "disabled":
	case "allow-private-ext-ipv4":
		t.config.WAN.PrivateAddress = config.AllowPrivate
	default:
		t.note(v.line, "wan.private_address", NoCounterpart, v.name+": "+stun)
	}
}

// noIPv6 denies what comes by IPv6, before all other rules.
func noIPv6(t *translation, v value) {
	if v.kind == Conf && !v.yes() || v.no() || t.names[noIPv6Name] {
		return
	}
	var all policy.ClientMatch
	if all.UnmarshalText([]byte("::/0")) != nil {
		panic("incumbent: no network holds all of IPv6")
	}
	t.names[noIPv6Name] = true
	t.config.Rules = append(t.config.Rules, policy.Rule{Name: noIPv6Name, Action: portmap.Deny, Clients: []policy.ClientMatch{all}})
	t.note(v.line, ipv6Key, Look, "ipv6_disable: pinholes are denied, and IPv6 is answered all the same")
}

const noIPv6Name = "no pinholes of IPv6"

func httpPort(t *translation, v value) {
	n, err := strconv.ParseUint(v.text, 10, 16)
	switch {
	case err == nil && n == 0, v.text == "":
		t.config.UPnP.HTTPPort = config.Default().UPnP.HTTPPort
	case err != nil || n == 1900 || n == 5351:
		t.note(v.line, "upnp.http_port", Look, shown(v.text)+" cannot be the port of UPnP's descriptions")
	default:
		t.config.UPnP.HTTPPort = uint16(n)
	}
}

// lifetime sets a bound of leases, as far as miniupnpd keeps to it: from 2 minutes to a day.
func (t *translation) lifetime(v value, key string, to *time.Duration) {
	n, err := strconv.ParseUint(v.text, 10, 31)
	if err != nil || n == 0 {
		t.note(v.line, key, Look, shown(v.text)+" is not a number of seconds")
		return
	}
	*to = time.Duration(min(n, 86400)) * time.Second // #nosec G115 -- a day
	if key == "lease.min" {
		*to = min(max(*to, 2*time.Minute), t.config.Lease.Max)
	}
}
