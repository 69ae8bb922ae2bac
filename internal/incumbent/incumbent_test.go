package incumbent_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"portcullis/config"
	"portcullis/internal/incumbent"
)

var update = flag.Bool("update", false, "write the goldens, and the table of docs/migrating.md")

var now = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

// imported is what the command prints of a file: TOML and notes, or the error.
func imported(name string, data []byte, router *incumbent.Router) (text string, notes string, err error) {
	f, err := incumbent.Read(name, data)
	if err != nil {
		return "", "", err
	}
	var all []incumbent.Note
	if f.Kind == incumbent.Leases {
		var b []byte
		b, all = incumbent.LeaseText(&f, now)
		text = string(b)
	} else {
		plan, err := incumbent.Translate(&f, incumbent.Machine{Router: router})
		if err != nil {
			return "", "", err
		}
		text, all = string(plan.Text(f.Name)), plan.Notes
	}
	for _, n := range all {
		notes += n.In(name) + "\n"
	}
	return text, notes, nil
}

// TestGolden holds each file of testdata: the input, and what becomes of it, which config
// accepts, or the error.
func TestGolden(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) < 10 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			input := archive.Files[0]
			got := []txtar.File{input}
			var router *incumbent.Router
			if second := archive.Files[min(1, len(archive.Files)-1)]; second.Name == "networks.json" {
				got = append(got, second)
				router = routerOf(t, second.Data, string(archive.Comment))
			}
			text, notes, err := imported(input.Name, input.Data, router)
			if err != nil {
				got = append(got, txtar.File{Name: "error", Data: []byte(err.Error() + "\n")})
			} else {
				got = append(got, txtar.File{Name: "portcullis.toml", Data: []byte(text)}, txtar.File{Name: "notes", Data: []byte(notes)})
				if _, err := config.Parse("portcullis.toml", []byte(text)); err != nil {
					t.Errorf("config refuses it: %v", err)
				}
			}
			archive.Files = got
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if *update {
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(want), string(txtar.Format(archive))); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// routerOf is the router of a file of testdata, by its networks and its comment: a line "zone: DEVICE", a
// line "fw3".
func routerOf(t *testing.T, dump []byte, comment string) *incumbent.Router {
	t.Helper()
	networks, err := incumbent.Networks(dump, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := &incumbent.Router{Networks: networks}
	for line := range strings.Lines(comment) {
		line = strings.TrimSpace(line)
		zone, found := strings.CutPrefix(line, "zone: ")
		if found {
			r.Zone = zone
		}
		r.FW3 = r.FW3 || line == "fw3"
	}
	return r
}

// The options of miniupnpd 2.3.11, by its reader of the file, and what OpenWrt's init
// scripts read, of both versions.
var (
	confOptions = strings.Fields(`ext_ifname ext_ifname6 ext_ip ext_allow_private_ipv4 ext_perform_stun ext_stun_host
		ext_stun_port listening_ip ipv6_listening_ip ipv6_disable port http_port https_port bitrate_up bitrate_down
		presentation_url friendly_name manufacturer_name manufacturer_url model_name model_description model_url
		notify_interval system_uptime packet_log uuid serial model_number clean_ruleset_threshold clean_ruleset_interval
		upnp_table_name upnp_nat_table_name upnp_forward_chain upnp_nat_chain upnp_nat_postrouting_chain
		upnp_nftables_family_split enable_natpmp enable_pcp_pmp min_lifetime max_lifetime pcp_allow_thirdparty enable_upnp
		anchor queue tag quickrules lease_file lease_file6 force_igd_desc_v1 minissdpdsocket secure_mode set_learn_dscp`)
	uciOptions = strings.Fields(`enabled enable_upnp enable_natpmp secure_mode log_output download upload external_iface
		external_iface6 external_zone external_ip internal_iface port upnp_lease_file upnp_lease_file6 igdv1 use_stun
		stun_host stun_port uuid serial_number model_number presentation_url notify_interval system_uptime ipv6_disable
		ext_allow_private_ipv4 config_file clean_ruleset_interval clean_ruleset_threshold force_forwarding
		enable_protocols enabled_protocols allow_cgnat allow_cgnat_use allow_third_party_mapping lease_file upnp_igd_compat
		download_kbps upload_kbps friendly_name http_port upnp_igd_http_port upnp_igd_upload upnp_igd_download
		upnp_igd_friendly_name access_defaults check_acl state_dir`)
)

// TestAllOptions: there is no option of theirs that the table does not have, and each has a
// key of ours or a reason.
func TestAllOptions(t *testing.T) {
	t.Parallel()
	var conf, uci []string
	var keys []string
	table := ""
	for line := range strings.Lines(string(config.Effective(config.Default()))) {
		if name, ok := strings.CutPrefix(line, "["); ok {
			table = strings.Trim(name, "]\n")
		} else if name, _, ok := strings.Cut(line, " = "); ok {
			keys = append(keys, table+"."+name)
		}
	}
	for _, o := range incumbent.Options() {
		conf, uci = append(conf, o.Conf...), append(uci, o.UCI...)
		if o.Why == "" {
			t.Errorf("%s has no reason", o.Name())
		}
		for key := range strings.SplitSeq(o.Becomes, ", ") {
			if key != "" && key != "rule" && !slices.Contains(keys, key) {
				t.Errorf("%s becomes %s, which is no key", o.Name(), key)
			}
		}
	}
	for _, c := range []struct{ got, want []string }{{conf, confOptions}, {uci, uciOptions}} {
		slices.Sort(c.got)
		slices.Sort(c.want)
		if diff := cmp.Diff(c.want, c.got); diff != "" {
			t.Errorf("-theirs +ours:\n%s", diff)
		}
	}
}

// TestDocument: docs/migrating.md has the table of options as the program has it.
func TestDocument(t *testing.T) {
	t.Parallel()
	const page, begin, end = "../../docs/migrating.md", "<!-- options -->\n", "<!-- end of options -->\n"
	data, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(data), begin)
	list, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		t.Fatal("the page has no table")
	}
	code := func(words []string) string {
		if len(words) == 0 {
			return ""
		}
		return "`" + strings.Join(words, "`, `") + "`"
	}
	want := "| miniupnpd.conf | /etc/config/upnpd | portcullis.toml | |\n|---|---|---|---|\n"
	for _, o := range incumbent.Options() {
		becomes := "none"
		if o.Becomes != "" {
			becomes = code(strings.Split(o.Becomes, ", "))
		}
		want += "| " + strings.Join([]string{code(o.Conf), code(o.UCI), becomes, o.Why}, " | ") + " |\n"
	}
	if *update {
		if err := os.WriteFile(page, []byte(before+begin+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if diff := cmp.Diff(want, list); diff != "" {
		t.Errorf("-want +page:\n%s", diff)
	}
}

// TestRefused: what could open more than it did, if it were skipped, stops the import, and
// so does what is too large, or nothing of theirs.
func TestRefused(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                       "x:1: the file has nothing but comments",
		"# x\n\n":                "x:1: the file has nothing but comments",
		"[lan]\ninterfaces=[]\n": "x:1: this is no miniupnpd.conf",
		"port=5000\nport\n":      `x:2: "port" is neither an option`,
		"port=5000\nx\x00=1":     "x:2: a NUL byte",
		"allow 80\n":             `x:1: "allow 80" is not a whole rule`,
		"deny 90-80 10.0.0.1 80": `x:1: "90-80" is not a port or a range`,
		"deny 80 10.0.0 80":      `x:1: "10.0.0" is not an IPv4 address`,
		"deny 80 010.0.0.1/8 80": "is not an IPv4 address", // inet_aton reads octal there
		"deny 80 10.0.0.0/33 80": "is not an IPv4 address",
		"deny 80 ::/0 80":        "is not an IPv4 address",
		"deny 80:81 10.0.0.1 80": "has a colon",
		"denyx 80 10.0.0.1 80":   "is not a whole rule",
		"deny 65536 10.0.0.1 80": `"65536" is not a port`,
		"config upnpd 'x\n":      "a quotation mark is open",
		"config upnpd\noption x 'a\noption y 'b'\n":                      `x:2: "option x 'a": a quotation mark is open`,
		"config upnpd\noption x '" + strings.Repeat("a\n", 5000) + "'\n": "x:2: ",
		"config upnpd\noption x":                                         `"option x" is no line of a UCI file`,
		// libuci reads nothing of such a file, which says perhaps that the service is off.
		"config upnpd\n\nconfig perm_rule 'my-rule'\n":                            `x:3: "my-rule" is no name of a section`,
		"config upnpd\noption my-option 1\n":                                      `x:2: "my-option" is no name of an option`,
		"config 'perm rule'\n":                                                    `x:1: "perm rule" is no type of a section`,
		"config upnpd\noption enabled 1\nconfig upnpd config\noption enabled 0\n": `x:3: there are settings in line 1 already`,
		"config upnpd\nconfig settings\n":                                         `x:2: there are settings in line 1 already`,
		"package a b\nconfig upnpd\n":                                             `x:1: "package a b" is no line of a UCI file`,
		"package a.b\nconfig upnpd\n":                                             `x:1: "package a.b" is no line of a UCI file`,
		"config upnpd\noption comment a;b\n":                                      `x:2: "option comment a;b" is no line of a UCI file`,
		"config upnpd; option enabled 0\n":                                        `x:1: "config upnpd; option enabled 0" is no line of a UCI file`,
		"config upnpd\n}":                                                         "is no line of a UCI file",
		"config perm_rule\n\toption action 'permit'":                              `x:1: "permit" is no action`,
		"config perm_rule\n\toption ext_ports 'http'":                             `x:1: "http" is not a port`,
		"config perm_rule\n\toption int_addr 'nas'":                               `x:1: "nas" is not an IPv4 address`,
		"config upnpd\n" + strings.Repeat("list a b\n", 5000):                     "the section has more than 32768 bytes",
		"config internal_network\n":                                               "x:1: an internal_network without its interface",
		"ext_ifname=eth0\nlistening_ip=eth0\n":                                    `x:1: "eth0" is the way to the Internet and a LAN`,
		"port=" + strings.Repeat("1", 1100):                                       "x:1: the line has 1105 bytes",
		strings.Repeat("#\n", 1<<19) + "port=1\n":                                 "x:1: the file is too large",
		"config internal_network\noption interface lan\noption acl_accept_ports '" + strings.Repeat("80 ", 2000) + "'": "x:1: too many rules",
		strings.Repeat("deny 80 10.0.0.1 80\n", 1001):                                                                  "x:1001: too many rules; allowed: at most 1000",
	} {
		text, _, err := imported("x", []byte(in), nil)
		if of := (*incumbent.Error)(nil); !errors.As(err, &of) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, want %s\n%s", in, err, want, text)
		}
	}
}

var plainCommand = regexp.MustCompile(`^# portcullis add (tcp|udp) ([0-9]+ [0-9.:]+|'\[[0-9a-f:]+\]:[0-9]+')( --from [0-9a-f.:]+)?( --for [0-9hms]+)?( --description='[a-zA-Z0-9 ._:()+/-]+')?( # [a-zA-Z0-9 ,()/-]+)?$`)

// FuzzImport: no file panics; what comes out is a configuration, the same as was meant, and
// one line of a comment stays one; commands for leases are words that a shell takes as they
// are.
func FuzzImport(f *testing.F) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(archive.Files[0].Data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		in, err := incumbent.Read("in\n[put]", data)
		if err != nil {
			return
		}
		if in.Kind == incumbent.Leases {
			text, _ := incumbent.LeaseText(&in, now)
			for i, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
				if i > 1 && !plainCommand.MatchString(line) {
					t.Errorf("a command that is none: %q", line)
				}
			}
			return
		}
		router := &incumbent.Router{Networks: map[string]string{"lan": "br-lan", "wan": "eth1"}, Zone: "eth1", FW3: len(data)%2 == 0}
		for _, m := range []incumbent.Machine{{}, {Router: router}} {
			plan, err := incumbent.Translate(&in, m)
			if err != nil {
				continue
			}
			text := plan.Text(in.Name)
			got, err := config.Parse("out", text)
			if err != nil {
				t.Fatalf("config refuses it: %v\n%s", err, text)
			}
			if diff := cmp.Diff(string(config.Effective(plan.Config)), string(config.Effective(got))); diff != "" {
				t.Errorf("-meant +written:\n%s", diff)
			}
		}
	})
}

// TestNotifyInterval: an interval that is not kept to is said, whichever bound it is beyond.
func TestNotifyInterval(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		is    time.Duration
		noted string
	}{
		"59": {time.Minute, "once a minute, and not more often"}, "60": {time.Minute, ""}, "900": {15 * time.Minute, ""},
		"43200": {12 * time.Hour, ""}, "43201": {12 * time.Hour, "every 12 hours, and not more rarely"},
	} {
		f, err := incumbent.Read("conf", []byte("listening_ip=lan0\nnotify_interval="+text+"\n"))
		if err != nil {
			t.Fatal(err)
		}
		plan, err := incumbent.Translate(&f, incumbent.Machine{})
		if err != nil {
			t.Fatal(err)
		}
		var noted string
		for _, n := range plan.Notes {
			if n.Key == "upnp.notify_interval" {
				noted = strings.TrimPrefix(n.Text, "notify_interval: ")
			}
		}
		if plan.Config.UPnP.NotifyInterval != want.is || noted != want.noted {
			t.Errorf("%s: %v, noted %q", text, plan.Config.UPnP.NotifyInterval, noted)
		}
	}
}
