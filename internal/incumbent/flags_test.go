package incumbent_test

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"portcullis/config"
	"portcullis/internal/incumbent"
)

// called is what becomes of a command line, with the file that it names where there is one.
func called(args []string, conf []byte) (call, text, notes string, err error) {
	v, err := incumbent.Arguments(args, "/work")
	if err != nil {
		return "", "", "", err
	}
	call = fmt.Sprintf("conf=%q base=%q pid=%q debug=%v watched=%v stays=%v help=%v version=%v\ndaemon: %q\n",
		v.Conf, v.Base, v.PidFile, v.Debug, v.Watched, v.Stays, v.Help, v.Version, v.Daemon)
	files := []*incumbent.File{&v.Options}
	if conf != nil {
		f, err := incumbent.Read("miniupnpd.conf", conf)
		if err != nil {
			return "", "", "", err
		}
		files = append([]*incumbent.File{&f}, files...)
	}
	plan, err := incumbent.TranslateOver(incumbent.Base{Config: config.Default()}, incumbent.Machine{}, files...)
	if err != nil {
		return "", "", "", err
	}
	if plan.Unread != nil {
		return "", "", "", plan.Unread
	}
	for _, n := range plan.Notes {
		notes += n.In(n.File) + "\n"
	}
	return call, string(config.Brief(plan.Config, nil)), notes, nil
}

// TestCommandLines: the command lines by which distributions and vendors run miniupnpd, with
// their files, become what testdata/line has, which config accepts.
func TestCommandLines(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/line/*.txtar")
	if err != nil || len(files) < 6 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			args := strings.Split(strings.TrimSuffix(string(archive.Files[0].Data), "\n"), "\n")
			got := archive.Files[:1:1]
			var conf []byte
			if len(archive.Files) > 1 && archive.Files[1].Name == "miniupnpd.conf" {
				conf, got = archive.Files[1].Data, archive.Files[:2:2]
			}
			call, text, notes, err := called(args, conf)
			if err != nil {
				got = append(got, txtar.File{Name: "error", Data: []byte(err.Error() + "\n")})
			} else {
				got = append(got, txtar.File{Name: "call", Data: []byte(call)}, txtar.File{Name: "portcullis.toml", Data: []byte(text)},
					txtar.File{Name: "notes", Data: []byte(notes)})
				if _, err := config.Parse("portcullis.toml", []byte(text)); err != nil {
					t.Errorf("config refuses it: %v", err)
				}
			}
			archive.Files = got
			if *update {
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(txtar.Format(archive))); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// The options of miniupnpd 2.3.11's command line, by its reader, and of older ones.
const theirFlags = "v 4 1 b o t r u z s m N U l L S i I q T p H Q n P d D w B a A f h"

// TestAllFlags: there is no option of their command line that the table does not have; each has
// a reason, or sets an option that has one.
func TestAllFlags(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	for _, f := range incumbent.Flags() {
		known[f.Name] = true
		if f.Does() == "" {
			t.Errorf("%s has no reason", f.Name)
		}
	}
	for _, name := range strings.Fields(theirFlags) {
		if !known["-"+name] {
			t.Errorf("-%s is missing", name)
		}
	}
}

// TestFlagsDocument: docs/dropin.md has the table of options as the program has it.
func TestFlagsDocument(t *testing.T) {
	t.Parallel()
	const page, begin, end = "../../docs/dropin.md", "<!-- flags -->\n", "<!-- end of flags -->\n"
	data, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(data), begin)
	list, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		t.Fatal("the page has no table")
	}
	want := "| option | miniupnpd.conf | portcullis.toml | |\n|---|---|---|---|\n"
	for _, f := range incumbent.Flags() {
		sets, becomes, why := "", "", f.Why
		if o := f.Option(); o != nil {
			sets, becomes = "`"+f.Sets()+"`", "none"
			if o.Becomes != "" {
				becomes = "`" + strings.ReplaceAll(o.Becomes, ", ", "`, `") + "`"
			}
			why = strings.Trim(f.Why+"; "+o.Why, "; ")
		}
		want += fmt.Sprintf("| `%s` | %s | %s | %s |\n", strings.Join(append([]string{f.Name}, f.Args...), " "), sets, becomes, why)
	}
	if *update {
		if err := os.WriteFile(page, []byte(before+begin+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if diff := cmp.Diff(want, list); diff != "" {
		t.Errorf("-want +page:\n%s", diff)
	}
}

// TestWrongArguments: what is not understood is an error that counts the arguments; nothing is
// left out or taken for something else.
func TestWrongArguments(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"x":                               `command line:1: "x" is no option that is known`,
		"-":                               `command line:1: "-" is no option`,
		"--frobnicate":                    `command line:1: "--frobnicate" is no option that is known`,
		"-x":                              `command line:1: "-x" is no option that is known`,
		"-N|-p5000":                       `command line:2: "-p5000" is no option: each stands alone, and its value is the next argument, as in -p PORT`,
		"-dN":                             `command line:1: "-dN" is no option: each stands alone`,
		"-S1":                             `command line:1: "-S1" is no option`,
		"-vd":                             `command line:1: "-vd" is no option`,
		"-f":                              "command line:1: -f needs FILE",
		"-N|-B|1":                         "command line:2: -B needs DOWN and UP",
		"-A|allow 80":                     `command line:2: "allow 80" is not a whole rule: miniupnpd does not start with such a rule`,
		"-i|a\nb":                         `command line:2: "a\nb" is not what -i takes`,
		"-i|a\x00b":                       `command line:2: "a\x00b" is not what -i takes`,
		"-i|" + strings.Repeat("x", 2000): "is not what -i takes",
		strings.Repeat("-A|deny 80 10.0.0.1 80|", 1001) + "-N": "too many rules; allowed: at most 1000",
	} {
		if _, err := incumbent.Arguments(strings.Split(in, "|"), "/"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, want %s", in, err, want)
		}
	}
}

// TestOver: what miniupnpd is told counts before a configuration of ours, whose rules come first;
// the base stays as it was.
func TestOver(t *testing.T) {
	t.Parallel()
	base, err := config.Parse("base", []byte("[lan]\ninterfaces = [\"br-old\"]\n[upnp]\nhttp_port = 5001\nserial_number = \"1\"\n"+
		"[metrics]\nmappings = true\n[[rule]]\nname = \"line 3 of miniupnpd\"\naction = \"deny\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	before := string(config.Effective(base))
	v, err := incumbent.Arguments([]string{"-a", "br-lan", "-s", "2", "-A", "deny 80 10.0.0.1 80", "-N", "-A", "deny 81 10.0.0.1 81"}, "/")
	if err != nil {
		t.Fatal(err)
	}
	f, err := incumbent.Read("conf", []byte("serial=3\nlistening_ip=br-iot\ndeny 82 10.0.0.1 82\n"))
	if err != nil {
		t.Fatal(err)
	}
	plan, err := incumbent.TranslateOver(incumbent.Base{Config: base}, incumbent.Machine{}, &f, &v.Options)
	if err != nil {
		t.Fatal(err)
	}
	const want = `[lan]
interfaces = ["br-iot", "br-lan"]

[upnp]
http_port = 5001
serial_number = "2"

[[rule]]
name = "line 3 of miniupnpd"
action = "deny"

[[rule]]
name = "line 3 of miniupnpd (2)"
action = "deny"
clients = ["10.0.0.1/32"]
external_ports = ["82"]
internal_ports = ["82"]

[[rule]]
name = "argument 6 of miniupnpd"
action = "deny"
clients = ["10.0.0.1/32"]
external_ports = ["80"]
internal_ports = ["80"]

[[rule]]
name = "argument 9 of miniupnpd"
action = "deny"
clients = ["10.0.0.1/32"]
external_ports = ["81"]
internal_ports = ["81"]

[metrics]
mappings = true
`
	if diff := cmp.Diff(want, strings.TrimPrefix(string(config.Brief(plan.Config, nil)), "\n")); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if after := string(config.Effective(base)); after != before {
		t.Errorf("the base has become\n%s", after)
	}
	unread, err := incumbent.Read("conf", []byte("port=1\nfrob=1\nx=2\n"))
	if err != nil {
		t.Fatal(err)
	}
	plan, err = incumbent.TranslateOver(incumbent.Base{Config: base}, incumbent.Machine{}, &unread, &v.Options)
	if err != nil || plan.Unread == nil || plan.Unread.Error() != `conf:2: "frob" is no option that is known` {
		t.Errorf("%v, %v", plan.Unread, err)
	}
}

// FuzzArguments: no command line panics; the one that the daemon gets means the same, without
// the pid file and in the foreground; and what it sets is a configuration.
func FuzzArguments(f *testing.F) {
	for _, in := range []string{"-f|conf|-d", "-i|eth0|-a|br-lan|-N|-S0|-4|-1|-U|-vv", "-B|1|2|-A|allow 1024-65535 0.0.0.0/0 1024-65535|-P|pid", "-o|STUN:h:1|--config|x", "-z||-w|javascript:x|-u|0"} {
		f.Add(in)
	}
	f.Fuzz(func(t *testing.T, in string) {
		v, err := incumbent.Arguments(strings.Split(in, "|"), "/dir")
		if err != nil {
			return
		}
		again, err := incumbent.Arguments(v.Daemon, "/other")
		if err != nil {
			t.Fatalf("%q is refused: %v", v.Daemon, err)
		}
		if !again.Stays || again.PidFile != "" || again.Conf != v.Conf || again.Base != v.Base || again.Debug != v.Debug || again.Watched != v.Watched {
			t.Errorf("%+v has become %+v", v, again)
		}
		if !reflect.DeepEqual(again.Daemon, v.Daemon) {
			t.Errorf("%q has become %q", v.Daemon, again.Daemon)
		}
		plan, err := incumbent.TranslateOver(incumbent.Base{Config: config.Default()}, incumbent.Machine{}, &v.Options)
		if err != nil {
			return
		}
		same, err := incumbent.TranslateOver(incumbent.Base{Config: config.Default()}, incumbent.Machine{}, &again.Options)
		if err != nil {
			t.Fatal(err)
		}
		text := config.Effective(plan.Config)
		if _, err := config.Parse("out", text); err != nil {
			t.Fatalf("config refuses it: %v\n%s", err, text)
		}
		if len(same.Notes) != len(plan.Notes) || len(same.Config.Rules) != len(plan.Config.Rules) {
			t.Errorf("the daemon has %d notes and %d rules, and not %d and %d", len(same.Notes), len(same.Config.Rules), len(plan.Notes), len(plan.Config.Rules))
		}
	})
}
