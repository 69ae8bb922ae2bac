package openwrt

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"portcullis/config"
)

const on = "config upnpd 'config'\n\toption enabled '1'\n"

const off = "config upnpd 'config'\n\toption enabled '0'\n"

// ownLeases has them where a daemon in its jail can write them.
const ownLeases = "\toption upnp_lease_file '/var/run/portcullis/miniupnpd.leases'\n"

// wanted is the message that starts Portcullis on a router without ujail, or with it.
func wanted(t *testing.T, jail bool) object {
	t.Helper()
	text := `{"name": "portcullis", "script": "/etc/init.d/portcullis", "instances": {"instance1": {
		"command": ["/usr/sbin/portcullis", "run", "--config", "/var/etc/portcullis/portcullis.toml"],
		"file": ["/var/etc/portcullis/portcullis.toml"],
		"reload_signal": 1, "respawn": ["3600", "3", "0"], "term_timeout": 15, "stderr": true}},
		"triggers": [
			["config.change", ["if", ["eq", "package", "upnpd"], ["run_script", "/etc/init.d/portcullis", "reload"]], 1000],
			["config.change", ["if", ["eq", "package", "firewall"], ["run_script", "/etc/init.d/portcullis", "reload"]], 1000],
			["interface.*", [["run_script", "/etc/init.d/portcullis", "reload"]], 2000]]}`
	var message object
	if err := json.Unmarshal([]byte(text), &message); err != nil {
		t.Fatal(err)
	}
	if jail {
		in := message["instances"].(object)["instance1"].(object)
		in["user"], in["group"], in["capabilities"], in["no_new_privs"] = "portcullis", "portcullis", "/etc/capabilities/portcullis.json", true
		in["jail"] = object{"name": "portcullis", "procfs": true, "mount": object{
			"/var/etc/portcullis": "0", "/tmp/dhcp.leases": "0", "/tmp/hosts": "0",
			"/run/portcullis": "1", "/var/run/portcullis": "1", "/var/lib/portcullis": "1"}}
	}
	return message
}

// TestStart: what procd is sent where ujail is, and where it is not: user, capability and
// jail go together, or not at all.
func TestStart(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		jail bool
		do   func(r *router)
	}{
		{"without ujail", false, func(*router) {}},
		{"with ujail", true, (*router).jails},
		{"with ujail, without the user", false, func(r *router) {
			r.jails()
			r.write("etc/passwd", "root:x:0:0:root:/root:/bin/ash\n")
		}},
		{"with ujail, without the capability", false, func(r *router) {
			r.jails()
			if err := os.Remove(filepath.Join(r.root, "etc/capabilities/portcullis.json")); err != nil {
				t.Error(err)
			}
		}},
		{"with ujail, and a lease file among others", false, func(r *router) {
			r.jails()
			r.write("etc/config/upnpd", on+"\toption upnp_lease_file '/var/run/miniupnpd.leases'\n")
		}},
		{"with ujail, and leases where the page looks for them", false, func(r *router) {
			r.jails()
			r.write("etc/config/upnpd", on+"\toption port '5000'\n")
		}},
		{"with ujail, and the package's file", true, func(r *router) {
			r.jails()
			r.write("etc/config/upnpd", strings.Replace(r.read("etc/config/upnpd"), "enabled '0'", "enabled '1'", 1))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRouter(t, nil)
			before := r.read("etc/config/upnpd")
			c.do(r)
			if r.read("etc/config/upnpd") == before {
				r.write("etc/config/upnpd", on+ownLeases)
			}
			r.do("/etc/init.d/miniupnpd", "start") // LuCI's name for it
			if diff := cmp.Diff([]call{{"set", wanted(t, c.jail)}}, r.said()); diff != "" {
				t.Errorf("-want +sent:\n%s", diff)
			}
			r.do("/usr/sbin/portcullis", "check", "--config", "/etc/portcullis/portcullis.toml")
		})
	}
}

// instances returns how many each message "set" has had; nothing else was sent.
func instances(t *testing.T, sent []call) (all []int) {
	t.Helper()
	for _, c := range sent {
		if c.Method != "set" {
			t.Errorf("it sent %q", c)
			continue
		}
		all = append(all, len(c.Message["instances"].(object)))
	}
	return all
}

// TestOff: what is off, broken or not there is not started, and the log has why.
func TestOff(t *testing.T) {
	t.Parallel()
	r := newRouter(t, nil)
	networks := r.networks
	for _, c := range []struct {
		name, file, networks, says string
		starts                     int
	}{
		{"the package's", r.read("etc/config/upnpd"), networks, "", 0},
		{"off", strings.Replace(on, "'1'", "'off'", 1), networks, "", 0},
		{"neither on nor off", strings.Replace(on, "'1'", "'maybe'", 1), networks, "", 0},
		{"on where nothing is said", "config upnpd 'config'\n", networks, "", 1},
		{"the second version's", "config settings 'settings'\n\toption enabled '1'\nconfig internal_network\n\toption interface 'lan'\n\toption acl_preset 'accept-high-ports'\n", networks, "daemon.notice /etc/config/upnpd:3: stricter: ", 1},
		{"the second version's without a LAN", "config settings 'settings'\n\toption enabled '1'\n", networks, "/etc/config/upnpd:1: look at this: no LAN is named", 1},
		{"off, in a section of another type", "config config\n\toption enabled '0'\n", networks, "", 0},
		{"off, in a second section", "config upnpd\n" + off, networks, "/etc/config/upnpd:2: there are settings in line 1 already", 0},
		{"off, by what uci does not read", off + "config perm_rule 'my-rule'\n\toption action 'allow'\n", networks, `/etc/config/upnpd:3: "my-rule" is no name`, 0},
		{"off, by what uci alone does not read", off + unread + "\n", networks, "daemon.err /etc/config/upnpd: uci: Parse error", 0},
		{"a broken line", on + "\toption x\n", networks, `daemon.err portcullis: /etc/config/upnpd:3: "\toption x" is no line of a UCI file`, 0},
		{"a broken string", on + "\toption port '5000\n\toption igdv1 '1'\n", networks, "/etc/config/upnpd:3: ", 0},
		{"a broken rule", on + "config perm_rule\n\toption action 'allowed'\n", networks, "/etc/config/upnpd:3: ", 0},
		{"no netifd", on, "Command failed: Not found\n", "daemon.err portcullis: standard input: not what `ubus", 0},
		{"a zone without a device", on + "\toption external_zone 'vpn'\n", networks, `/etc/config/upnpd:3: the zone "vpn" of external_zone has no device now`, 0},
		{"no path", on + "\toption config_file 'x.toml'\n", networks, "config_file is not a path from the root", 0},
		{"an unknown option", on + "\toption colour 'blue'\n", networks, `daemon.notice /etc/config/upnpd:3: no counterpart: "colour" is no option`, 1},
		{"a rule that is stricter here", on + "config perm_rule\n\toption action 'allow'\n", networks, "daemon.notice /etc/config/upnpd:3: stricter: ", 1},
	} {
		r.write("etc/config/upnpd", c.file)
		r.write("tmp/log", "")
		r.boots()
		r.mu.Lock()
		r.networks = c.networks
		r.mu.Unlock()
		out, _ := r.run("/etc/init.d/portcullis", "start")
		if got := instances(t, r.said()); !slices.Equal(got, []int{c.starts}) {
			t.Errorf("%s: it starts %v\n%s", c.name, got, out)
		}
		if log := r.read("tmp/log"); !strings.Contains(log, c.says) || c.says == "" && log != "" {
			t.Errorf("%s: the log says\n%s", c.name, log)
		}
		if c.starts == 1 {
			r.do("/usr/sbin/portcullis", "check")
		}
	}
}

// boots makes the router know nothing of a daemon, as after its own start.
func (r *router) boots() {
	r.t.Helper()
	if err := os.RemoveAll(filepath.Join(r.root, "var/etc/portcullis/instance")); err != nil {
		r.t.Fatal(err)
	}
}

// TestMistake: with a mistake in the configuration a daemon that runs goes on with what it has,
// whatever it is told to do but to stop; at the start of the router there is none.
func TestMistake(t *testing.T) {
	t.Parallel()
	r := newRouter(t, nil)
	r.write("etc/config/upnpd", on)
	r.do("/etc/init.d/portcullis", "start")
	r.said()
	for _, broken := range []string{on + "\toption x\n", on + "\toption external_zone 'vpn'\n", on + "\toption config_file '/etc/no.toml'\n"} {
		r.write("etc/config/upnpd", broken)
		for _, command := range []string{"start", "restart", "reload"} {
			out, err := r.run("/etc/init.d/miniupnpd", command)
			if sent := r.said(); len(sent) > 0 || err == nil || out == "" {
				t.Errorf("%s with %q sends %v: %v\n%s", command, broken, sent, err, out)
			}
		}
		if _, err := r.run("env", "PKG_UPGRADE=1", "/etc/init.d/portcullis", "stop"); err == nil || len(r.said()) > 0 {
			t.Errorf("an upgrade with %q stops it: %v", broken, err)
		}
	}
	r.write("etc/config/upnpd", on)
	r.do("/etc/init.d/portcullis", "restart")
	if sent := r.said(); len(sent) != 3 || sent[0].Method != "signal" || sent[1].Method != "delete" || sent[2].Method != "set" {
		t.Errorf("a restart sends %v", sent)
	}
	r.write("etc/config/upnpd", on+"\toption x\n")
	r.do("/etc/init.d/portcullis", "stop")
	if sent := r.said(); len(sent) != 1 || sent[0].Method != "delete" {
		t.Errorf("a stop sends %v", sent)
	}
	_, err := r.run("/etc/init.d/portcullis", "restart")
	if got := instances(t, r.said()[1:]); err != nil || !slices.Equal(got, []int{0}) {
		t.Errorf("a restart of what does not run starts %v: %v", got, err)
	}
}

// TestAliasStays: that the WAN of an alias goes down and comes up is no other configuration.
func TestAliasStays(t *testing.T) {
	t.Parallel()
	r := newRouter(t, nil)
	netifd := func(wan, wan6 string) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.networks = `{"interface":[{"interface":"lan","up":true,"l3_device":"br-lan","device":"br-lan"},{"interface":"wan","proto":"pppoe",` + wan + `},{"interface":"wan6","proto":"dhcpv6",` + wan6 + `}]}`
	}
	r.write("etc/config/network", "config interface 'wan'\n\toption device 'eth1'\n\toption proto 'pppoe'\n\nconfig interface 'wan6'\n\toption device '@wan'\n\toption proto 'dhcpv6'\n")
	r.write("etc/config/upnpd", on+"\toption external_iface 'wan'\n\toption external_iface6 'wan6'\n")
	netifd(`"up":true,"l3_device":"pppoe-wan","device":"eth1"`, `"up":true,"l3_device":"pppoe-wan","device":"pppoe-wan"`)
	r.do("/etc/init.d/portcullis", "start")
	was := r.read("var/etc/portcullis/portcullis.toml")
	if !strings.Contains(was, "interface6 = \"pppoe-wan\"") {
		t.Fatal(was)
	}
	r.said()
	netifd(`"up":false,"pending":true,"device":"eth1"`, `"up":false`)
	out, err := r.run("/etc/init.d/portcullis", "reload")
	if now := r.read("var/etc/portcullis/portcullis.toml"); now != was || len(r.said()) != 0 || err != nil {
		t.Errorf("%v\n%s\nbecomes\n%s", err, out, now)
	}
}

// TestReload: only what has changed is sent, and a mistake changes nothing.
func TestReload(t *testing.T) {
	t.Parallel()
	r := newRouter(t, nil)
	r.write("etc/config/upnpd", on)
	r.do("/etc/init.d/portcullis", "start")
	r.said()
	reload := func(want ...int) {
		t.Helper()
		out, err := r.run("/etc/init.d/portcullis", "reload")
		if got := instances(t, r.said()); !slices.Equal(got, want) || (err != nil) != (want == nil && out != "") {
			t.Errorf("sent %v, want %v: %v\n%s", got, want, err, out)
		}
	}
	reload()
	r.write("etc/config/upnpd", on+"\toption ipv6_disable '1'\n")
	reload(1)
	networks := r.networks
	was := r.read("var/etc/portcullis/portcullis.toml")
	r.write("etc/config/upnpd", on+"\toption ipv6_disable '0\n")
	reload()
	r.write("etc/config/upnpd", on+"\toption external_iface 'lte'\n")
	r.mu.Lock()
	r.networks = ""
	r.mu.Unlock()
	reload()
	if now := r.read("var/etc/portcullis/portcullis.toml"); now != was {
		t.Errorf("a mistake has changed the configuration:\n%s", now)
	}
	r.write("etc/config/upnpd", strings.Replace(on, "1", "0", 1))
	reload(0)
	r.mu.Lock()
	r.networks = networks
	r.mu.Unlock()
	r.write("etc/config/upnpd", on+"\toption ipv6_disable '1'\n") // as it was when it ran last
	reload(1)
}

// TestUncommitted: what was not committed counts for nothing, whether it is the script that asks
// for it or the import; sections of one name are one, for both.
func TestUncommitted(t *testing.T) {
	t.Parallel()
	r := newRouter(t, nil)
	r.write("etc/config/upnpd", on)
	start := func(want int) {
		t.Helper()
		r.do("/etc/init.d/portcullis", "restart")
		sent := r.said()
		if got := instances(t, sent[len(sent)-1:]); !slices.Equal(got, []int{want}) {
			t.Errorf("it starts %v, want %d", got, want)
		}
	}
	start(1)
	r.do("uci", "set", "upnpd.config.enabled=0")
	r.do("uci", "set", "upnpd.config.port=5001")
	start(1)
	if text := r.read("var/etc/portcullis/portcullis.toml"); strings.Contains(text, "5001") {
		t.Errorf("it has what was not committed:\n%s", text)
	}
	r.do("uci", "commit", "upnpd")
	r.write("etc/config/upnpd", r.read("etc/config/upnpd")+"config upnpd config\n\toption enabled 1\n")
	start(1)
	if text := r.read("var/etc/portcullis/portcullis.toml"); !strings.Contains(text, "5001") {
		t.Errorf("it has not what was committed:\n%s", text)
	}
	r.write("etc/config/upnpd", r.read("etc/config/upnpd")+"config settings config\n\toption enabled 1\n")
	if out, err := r.run("/etc/init.d/portcullis", "start"); err == nil || !strings.Contains(out, "\"config\" is a section of another type in line ") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestStrings: what stands in strings is never executed, and never part of another string.
func TestStrings(t *testing.T) {
	t.Parallel()
	r := newRouter(t, nil)
	const evil = `a'b"; touch /tmp/evil; $(touch /tmp/evil) ` + "`touch /tmp/evil`\n[[rule]]\nname = \"x\""
	for option, values := range map[string][]string{
		"external_zone": {evil, "--fw3", "*"},
		"config_file":   {evil, "--fw3", "-", "/" + evil + ".toml"},
		"enabled":       {evil, "-n"},
		"state_dir":     {evil, "/etc", "/portcullis/state /etc/portcullis/state"},
		"friendly_name": {evil}, "uuid": {evil}, "external_iface": {evil, "--fw3"}, "internal_iface": {evil}, "upnp_lease_file": {evil},
	} {
		for _, value := range values {
			r.write("etc/config/upnpd", on+"\toption "+option+" \""+strings.ReplaceAll(value, `"`, `\"`)+"\"\n")
			r.boots()
			out, _ := r.run("/etc/init.d/portcullis", "start")
			got := instances(t, r.said())
			if _, err := os.Stat(filepath.Join(r.root, "tmp/evil")); err == nil || len(got) != 1 {
				t.Errorf("%s %q: it was executed, or sends %v\n%s", option, value, got, out)
			}
			if slices.Equal(got, []int{1}) {
				text := r.read("var/etc/portcullis/portcullis.toml")
				if _, err := config.Parse("", []byte(text)); err != nil || strings.Contains(text, "\nname = \"x\"") {
					t.Errorf("%s %q: %v\n%s", option, value, err, text)
				}
			}
		}
	}
}

// TestOwnFile: a TOML of the owner's is read as it is, by a daemon that starts as root,
// because its files may be anywhere; a miniupnpd.conf is translated.
func TestOwnFile(t *testing.T) {
	t.Parallel()
	r := newRouter(t, nil)
	r.jails()
	r.write("etc/portcullis/own.toml", "[lan]\ninterfaces = [\"br-lan\"]\n")
	r.write("etc/miniupnpd.conf", "listening_ip=br-lan\nenable_upnp=yes\n")
	started := 0
	for file, config := range map[string]string{"/etc/portcullis/own.toml": "/etc/portcullis/own.toml", "/etc/miniupnpd.conf": "/var/etc/portcullis/portcullis.toml"} {
		r.write("etc/config/upnpd", on+"\toption config_file '"+file+"'\n")
		r.do("/etc/init.d/portcullis", "start")
		sent := r.said()
		if started++; len(sent) != started || started == 2 && (sent[1].Method != "signal" || sent[1].Message["signal"] != float64(unix.SIGUSR2)) {
			t.Errorf("start %d: %v", started, sent) // procd would only tell it to read its file again
		}
		in := sent[0].Message["instances"].(object)["instance1"].(object)
		command := in["command"].([]any)
		if command[len(command)-1] != config || (in["user"] == nil) != (config == file) {
			t.Errorf("%s: %v", file, in)
		}
	}
	r.write("etc/portcullis/own.toml", "[lan]\ninterfaces = br-lan\n")
	r.write("etc/config/upnpd", on+"\toption config_file '/etc/portcullis/own.toml'\n")
	if out, err := r.run("/etc/init.d/portcullis", "reload"); err == nil || !strings.Contains(out, "own.toml:2") || len(r.said()) > 0 {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestFW3: on OpenWrt before 22.03 the backend is iptables, whose programs no jail would hold.
func TestFW3(t *testing.T) {
	t.Parallel()
	r := newRouter(t, nil)
	r.jails()
	if err := os.Rename(filepath.Join(r.root, "sbin/fw4"), filepath.Join(r.root, "sbin/fw3")); err != nil {
		t.Fatal(err)
	}
	r.write("etc/config/upnpd", on+"\toption external_zone 'wan'\n")
	r.do("/etc/init.d/portcullis", "start")
	if diff := cmp.Diff([]call{{"set", wanted(t, false)}}, r.said()); diff != "" {
		t.Errorf("-want +sent:\n%s", diff)
	}
	text := r.read("var/etc/portcullis/portcullis.toml")
	for _, want := range []string{`backend = "iptables"`, `interface = "wan0"`, `interface6 = "wan0"`} {
		if !strings.Contains(text, "\n"+want+"\n") {
			t.Errorf("it has no %s:\n%s", want, text)
		}
	}
}

// TestPackage: installing enables both names of the service and starts what is on; removing
// stops it, and has fw4 make its rules without the package's files.
func TestPackage(t *testing.T) {
	t.Parallel()
	r := newRouter(t, nil)
	for _, name := range []string{"postinst", "prerm", "postrm"} {
		text, err := os.ReadFile("../../etc/openwrt/" + name)
		if err != nil {
			t.Fatal(err)
		}
		r.write("tmp/"+name, string(text))
	}
	r.write("etc/passwd", "root:x:0:0:root:/root:/bin/ash\n")
	r.do("sh", "/tmp/postinst")
	if got := instances(t, r.said()); !slices.Equal(got, []int{0, 0}) {
		t.Errorf("it starts %v", got)
	}
	for _, name := range []string{"S94portcullis", "K15portcullis"} {
		if _, err := os.Lstat(filepath.Join(r.root, "etc/rc.d", name)); err != nil {
			t.Error(err)
		}
	}
	if !strings.Contains(r.read("etc/passwd"), "\nportcullis:") {
		t.Error("there is no user")
	}
	r.do("env", "PKG_UPGRADE=1", "sh", "/tmp/prerm")
	if sent := r.said(); len(sent) > 0 {
		t.Errorf("an upgrade stops it: %v", sent)
	}
	r.do("sh", "/tmp/prerm")
	if sent := r.said(); len(sent) != 2 || sent[0].Method != "delete" || sent[0].Message["name"] != "portcullis" {
		t.Errorf("%v", sent)
	}
	r.do("sh", "/tmp/postrm") // there is no firewall
	r.write("etc/init.d/firewall", "#!/bin/sh\necho \"$@\" >>/tmp/firewall\n")
	if err := os.Chmod(filepath.Join(r.root, "etc/init.d/firewall"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.do("env", "PKG_UPGRADE=1", "sh", "/tmp/postrm")
	r.do("sh", "/tmp/postrm")
	if told := r.read("tmp/firewall"); told != "reload\n" {
		t.Errorf("what fw4 has taken in stays: it was told %q", told)
	}
	if left, err := filepath.Glob(filepath.Join(r.root, "etc/rc.d/*")); err != nil || len(left) > 0 {
		t.Error(left, err)
	}
}

// TestDocument: what docs/install.md says for OpenWrt has the service run, but for the first
// block, whose programs cannot be had here.
func TestDocument(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/install.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## OpenWrt\n")
	section, _, _ = strings.Cut(section, "\n## ")
	r := newRouter(t, nil)
	blocks := regexp.MustCompile("(?s)```console\n(.*?)```").FindAllStringSubmatch(section, -1)
	for i, block := range blocks {
		for line := range strings.Lines(block[1]) {
			command := strings.Fields(strings.TrimPrefix(line, "$ "))
			if (command[0] == "opkg") != (i == 0) {
				t.Errorf("block %d has %q", i, line)
			}
			if i > 0 {
				r.do(command...)
			}
		}
	}
	sent := r.said()
	if len(blocks) != 2 || len(sent) == 0 {
		t.Fatalf("%d blocks, %v", len(blocks), sent)
	}
	if diff := cmp.Diff(call{"set", wanted(t, false)}, sent[len(sent)-1]); diff != "" {
		t.Errorf("-want +sent:\n%s", diff)
	}
}

// TestOwner: the directories of the daemon, and the files in them, are its user's, and nothing is
// to which a link or another directory there leads; where they are, nothing is touched.
func TestOwner(t *testing.T) {
	t.Parallel()
	r := newRouter(t, nil)
	if err := os.Mkdir(filepath.Join(r.root, "run"), 0o755); err != nil { // no link to /var/run
		t.Fatal(err)
	}
	r.jails()
	r.write("etc/config/upnpd", on+ownLeases)
	r.write("etc/shadow", "")
	r.write("tmp/lib/portcullis/leases.journal", "")
	r.write("tmp/lib/portcullis/other/file", "")
	r.link("/etc/shadow", "tmp/lib/portcullis/link")
	owners := func(after string, want map[string]uint32) {
		t.Helper()
		r.do("/etc/init.d/portcullis", "start")
		for name, want := range want {
			var s unix.Stat_t
			if err := unix.Lstat(filepath.Join(r.root, name), &s); err != nil || s.Uid != want || s.Gid != want {
				t.Errorf("%s: %s is %d's: %v", after, name, s.Uid, err)
			}
		}
	}
	owners("root's", map[string]uint32{"tmp/lib/portcullis": 32768, "tmp/lib/portcullis/leases.journal": 32768, "tmp/run/portcullis": 32768,
		"run/portcullis": 32768, "tmp/lib/portcullis/other": 0, "tmp/lib/portcullis/other/file": 0, "tmp/lib/portcullis/link": 0, "etc/shadow": 0})
	r.write("tmp/lib/portcullis/new", "")
	owners("the user's", map[string]uint32{"tmp/lib/portcullis": 32768, "tmp/lib/portcullis/new": 0})
	if err := os.Remove(filepath.Join(r.root, "sbin/ujail")); err != nil {
		t.Fatal(err)
	}
	owners("without ujail", map[string]uint32{"tmp/lib/portcullis": 0, "tmp/lib/portcullis/leases.journal": 0, "run/portcullis": 0, "tmp/run/portcullis": 0})
}
