package incumbent

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"portcullis/config"
	"portcullis/firewall"
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

// shownChain is where LuCI's page looks for rules.
var shownChain = firewall.Chain{Family: "inet", Table: "fw4", Name: "upnp_prerouting"}

// shownChain3 is where it looks on routers with fw3.
var shownChain3 = firewall.Chain{Family: "ip", Table: "nat", Name: "MINIUPNPD"}

const (
	ourTable = "the chains are its own, in the table inet portcullis"
	pfOnly   = "for pf, which Linux does not have"
	stun     = "there is no STUN; where the WAN's own address is private nothing is opened, unless wan.private_address = \"allow\""
	comeBack = "clients ask again; `portcullis import` reads the file as well, and prints the commands that open the same"
)

var options = []Option{
	{Conf: []string{"ext_ifname"}, UCI: []string{"external_iface"}, Becomes: "wan.interface",
		Why: "of a network of OpenWrt the router alone knows the device; elsewhere the default route decides",
		to:  func(t *translation, v value) { t.wan(v, "wan.interface", &t.config.WAN.Interface) }},
	{Conf: []string{"ext_ifname6"}, UCI: []string{"external_iface6"}, Becomes: "wan.interface6", Why: "the same for IPv6",
		to: func(t *translation, v value) { t.wan(v, "wan.interface6", &t.config.WAN.Interface6) }},
	{UCI: []string{"external_zone"}, Becomes: "wan.interface", Why: "on the router the zone's first device; elsewhere name it, or let the default route decide",
		to: func(t *translation, v value) { t.zone = v }},
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
		Why: "an address becomes the interface that has it on this machine; of a network of OpenWrt, br-NAME is guessed but on the router itself",
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
	{Conf: []string{"ipv6_disable"}, UCI: []string{"ipv6_disable"}, Becomes: "lan.ipv6", Why: "yes is false", to: func(t *translation, v value) {
		if v.yes() {
			t.config.LAN.IPv6 = false
		}
	}},
	{Conf: []string{"port", "http_port"}, UCI: []string{"port", "http_port", "upnp_igd_http_port"}, Becomes: "upnp.http_port", Why: "0, which takes any, becomes 5000", to: httpPort},
	{Conf: []string{"https_port"}, Why: "no HTTPS: control points do not check certificates, nor have one"},
	{Conf: []string{"bitrate_up"}, UCI: []string{"upload", "upload_kbps", "upnp_igd_upload"}, Becomes: "upnp.upload_kbps",
		Why: "in kilobits a second; OpenWrt's upload and download are kilobytes, and count only where both are set",
		to:  func(t *translation, v value) { t.rate(v, "upnp.upload_kbps", &t.config.UPnP.UploadKbps) }},
	{Conf: []string{"bitrate_down"}, UCI: []string{"download", "download_kbps", "upnp_igd_download"}, Becomes: "upnp.download_kbps", Why: "the same",
		to: func(t *translation, v value) { t.rate(v, "upnp.download_kbps", &t.config.UPnP.DownloadKbps) }},
	{Conf: []string{"presentation_url"}, UCI: []string{"presentation_url"}, Becomes: "upnp.presentation_url", Why: "without it there is none; there it is the LAN's address",
		to: func(t *translation, v value) { t.link(v, "upnp.presentation_url", &t.config.UPnP.PresentationURL) }},
	{Conf: []string{"friendly_name"}, UCI: []string{"friendly_name", "upnp_igd_friendly_name"}, Becomes: "upnp.friendly_name",
		Why: "at most 63 characters", to: func(t *translation, v value) { t.label(v, "upnp.friendly_name", &t.config.UPnP.FriendlyName) }},
	{Conf: []string{"manufacturer_name"}, Becomes: "upnp.manufacturer", Why: "at most 63 characters",
		to: func(t *translation, v value) { t.label(v, "upnp.manufacturer", &t.config.UPnP.Manufacturer) }},
	{Conf: []string{"manufacturer_url"}, Becomes: "upnp.manufacturer_url", Why: "http: or https:",
		to: func(t *translation, v value) { t.link(v, "upnp.manufacturer_url", &t.config.UPnP.ManufacturerURL) }},
	{Conf: []string{"model_name"}, Becomes: "upnp.model_name", Why: "at most 63 characters",
		to: func(t *translation, v value) { t.label(v, "upnp.model_name", &t.config.UPnP.ModelName) }},
	{Conf: []string{"model_description"}, Becomes: "upnp.model_description", Why: "at most 127 characters", to: func(t *translation, v value) {
		if v.text != "" && t.config.UPnP.ModelDescription.UnmarshalText([]byte(v.text)) != nil {
			t.note(v.line, "upnp.model_description", Look, shown(v.text)+" cannot be shown as a description")
		}
	}},
	{Conf: []string{"model_url"}, Becomes: "upnp.model_url", Why: "http: or https:",
		to: func(t *translation, v value) { t.link(v, "upnp.model_url", &t.config.UPnP.ModelURL) }},
	{Conf: []string{"model_number"}, UCI: []string{"model_number"}, Becomes: "upnp.model_number", Why: "without it there is none",
		to: func(t *translation, v value) { t.label(v, "upnp.model_number", &t.config.UPnP.ModelNumber) }},
	{Conf: []string{"serial"}, UCI: []string{"serial_number"}, Becomes: "upnp.serial_number", Why: "without it there is none",
		to: func(t *translation, v value) { t.label(v, "upnp.serial_number", &t.config.UPnP.SerialNumber) }},
	{Conf: []string{"uuid"}, UCI: []string{"uuid"}, Becomes: "upnp.uuid", Why: "without it, or of zeros alone, one is made and kept in state.dir", to: func(t *translation, v value) {
		text := strings.TrimPrefix(v.text, "uuid:")
		if text != "" && text != "nocli" && strings.Trim(text, "0-") != "" && t.config.UPnP.UUID.UnmarshalText([]byte(text)) != nil {
			t.note(v.line, "upnp.uuid", Look, shown(v.text)+" is not a UUID, so one is made and kept in state.dir")
		}
	}},
	{Conf: []string{"notify_interval"}, UCI: []string{"notify_interval"}, Becomes: "upnp.notify_interval", Why: "from a minute to 12 hours", to: notifyInterval},
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
	{Conf: []string{"upnp_nat_chain"}, Becomes: "miniupnpd.chain", Why: "with upnp_nat_table_name=fw4, as OpenWrt writes it, the chain that its page reads; otherwise " + ourTable, to: natChain},
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
	{Conf: []string{"lease_file"}, Becomes: "miniupnpd.lease_file",
		Why: "for programs that read it, in a directory that the daemon's user can write in; " + comeBack, to: leaseFile},
	{Conf: []string{"lease_file6"}, Becomes: "miniupnpd.lease_file6", Why: "the same for IPv6", to: leaseFile},
	{UCI: []string{"upnp_lease_file", "lease_file"}, Becomes: "miniupnpd.lease_file, miniupnpd.lease_file6",
		Why: "for LuCI's page, see docs/luci.md; clients ask again for what was open. lease_file has that of IPv6 beside it, as its name and -ipv6, and so has a router whose file names none: /var/run/miniupnpd.leases", to: leaseFile},
	{UCI: []string{"upnp_lease_file6"}, Becomes: "miniupnpd.lease_file6", Why: "the same", to: leaseFile},
	{Conf: []string{"force_igd_desc_v1"}, UCI: []string{"igdv1"}, Becomes: "upnp.igdv1", Why: "hardly needed: without it each client gets the version that it searches for", to: func(t *translation, v value) {
		t.version1(v, v.yes())
	}},
	{UCI: []string{"upnp_igd_compat"}, Becomes: "upnp.igdv1", Why: "igdv1 is true", to: func(t *translation, v value) {
		t.version1(v, v.text == "igdv1")
	}},
	{Conf: []string{"minissdpdsocket"}, Why: "searches are answered by the daemon itself, on a socket that others can share"},
	{Conf: []string{"packet_log"}, Why: pfOnly},
	{Conf: []string{"anchor"}, Why: pfOnly},
	{Conf: []string{"queue"}, Why: pfOnly},
	{Conf: []string{"tag"}, Why: pfOnly},
	{Conf: []string{"quickrules"}, Why: pfOnly},
	{Conf: []string{"set_learn_dscp"}, Why: "an operation of PCP that is no standard"},
	{UCI: []string{"state_dir"}, Becomes: "state.dir", Why: "ours alone: a directory on flash, /etc/portcullis/state say; without it mappings are forgotten when the router starts anew", to: stateDir},
	{UCI: []string{"enabled"}, Why: "whether the service starts is up to systemd or procd", to: func(t *translation, v value) {
		if v.no() {
			t.note(v.line, "", Look, "enabled: the service was off; whether this one starts is up to systemd or procd")
		}
	}},
	{UCI: []string{"log_output"}, Becomes: "log.level", Why: "1 and debug are \"debug\"", to: func(t *translation, v value) {
		if v.text == "debug" || v.yes() {
			t.config.Log.Level = config.LevelDebug
		}
	}},
	{UCI: []string{"config_file"}, Why: "the file that it names is the configuration, and this one is not: import that", to: func(t *translation, v value) {
		t.note(v.line, "", Look, v.name+": "+v.option.Why)
	}},
	{UCI: []string{"access_defaults"}, Why: "of a draft: what no rule accepts stays closed", to: func(t *translation, v value) {
		t.stricter(v)
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

// stateful is a directory that is nobody else's, so that the init script can hand it to the
// daemon's user whatever is in it.
var stateful = regexp.MustCompile(`^(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)+/portcullis/state$`)

func stateDir(t *translation, v value) {
	if v.text == "" {
		return
	}
	if !stateful.MatchString(v.text) || t.config.State.Dir.UnmarshalText([]byte(v.text)) != nil {
		t.fail(v.line, shown(v.text)+" cannot be state_dir; allowed: a path of letters, digits, \".\", \"_\" and \"-\" that ends in /portcullis/state")
	}
}

// leaseFile has a lease file written, as miniupnpd does.
func leaseFile(t *translation, v value) {
	set := func(key string, to *config.Path, text string) {
		if text != "" && to.UnmarshalText([]byte(text)) != nil {
			t.note(v.line, key, Look, shown(text)+" is not a usable path, so there is no such file")
		}
	}
	switch v.name {
	case "upnp_lease_file6", "lease_file6":
		set("miniupnpd.lease_file6", &t.config.Miniupnpd.LeaseFile6, v.text)
		return
	case "lease_file":
		if v.text != "" && v.kind == UCI {
			set("miniupnpd.lease_file6", &t.config.Miniupnpd.LeaseFile6, v.text+"-ipv6")
		}
	}
	set("miniupnpd.lease_file", &t.config.Miniupnpd.LeaseFile, v.text)
}

// leaseFiles leaves out what the configuration would refuse.
func (t *translation) leaseFiles() {
	m := &t.config.Miniupnpd
	for i, file := range []*config.Path{&m.LeaseFile, &m.LeaseFile6} {
		if err := t.config.CheckShown(*file); err != nil {
			t.note(0, [2]string{"miniupnpd.lease_file", "miniupnpd.lease_file6"}[i], Look, shown(string(*file))+" "+err.Error()+". There is no such file until then")
			*file = ""
		}
	}
	if m.LeaseFile != "" && config.Collide(m.LeaseFile, m.LeaseFile6) {
		m.LeaseFile6 = ""
		t.note(0, "miniupnpd.lease_file6", Look, "both lease files are one, so there is none of IPv6")
	}
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

// label sets a text that is shown.
func (t *translation) label(v value, key string, to *config.Label) {
	if v.text != "" && to.UnmarshalText([]byte(v.text)) != nil {
		t.note(v.line, key, Look, shown(v.text)+" cannot be shown as a name")
	}
}

// link sets a URL.
func (t *translation) link(v value, key string, to *config.URL) {
	if v.text != "" && to.UnmarshalText([]byte(v.text)) != nil {
		t.note(v.line, key, Look, shown(v.text)+" is not a link that people should open")
	}
}

// version1 has all clients shown version 1.
func (t *translation) version1(v value, forced bool) {
	if t.config.UPnP.IGDv1 = forced; forced {
		t.note(v.line, "upnp.igdv1", Look, v.name+": without it each client gets the version that it searches for, and those of version 2 can open IPv6 ports by UPnP as well")
	}
}

// natChain has the chain shown that OpenWrt's page reads. Elsewhere none is missed.
func natChain(t *translation, v value) {
	if t.file.is("upnp_nat_table_name", "fw4") && t.config.Miniupnpd.Chain.UnmarshalText([]byte("inet fw4 "+v.text)) == nil {
		return
	}
	t.lost(v)
}

// rate sets the rate of the line, of which miniupnpd has bits and OpenWrt kilobytes or
// kilobits a second.
func (t *translation) rate(v value, key string, to *int) {
	n, err := strconv.ParseUint(v.text, 0, 63)
	switch {
	case v.text == "":
		return
	case err != nil:
		t.note(v.line, key, Look, shown(v.text)+" is not a rate")
		return
	case v.kind == Conf:
		n = n/1000 + min(1, n%1000)
	case v.name == "upload" || v.name == "download":
		if !t.file.has("upload") || !t.file.has("download") {
			return
		}
		n = min(n, 1<<40) * 1024 * 8 / 1000
	}
	*to = int(min(n, maxKbps)) // #nosec G115 -- it is bounded
}

// maxKbps is the most that config takes; more than UPnP can tell.
const maxKbps = 100_000_000

// notifyInterval sets how often the gateway is announced.
func notifyInterval(t *translation, v value) {
	n, err := strconv.ParseUint(v.text, 10, 31)
	if v.text == "" || err == nil && n == 0 {
		return
	}
	if err != nil {
		t.note(v.line, "upnp.notify_interval", Look, shown(v.text)+" is not a number of seconds")
		return
	}
	t.config.UPnP.NotifyInterval = time.Duration(min(max(n, 60), 12*3600)) * time.Second // #nosec G115 -- 12 hours
	switch {
	case n < 60:
		t.note(v.line, "upnp.notify_interval", Look, "notify_interval: once a minute, and not more often")
	case n > 12*3600:
		t.note(v.line, "upnp.notify_interval", Look, "notify_interval: every 12 hours, and not more rarely")
	}
}
