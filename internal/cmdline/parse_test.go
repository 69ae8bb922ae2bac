package cmdline_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"portcullis/internal/cmdline"
)

func nothing(context.Context, *cmdline.Call) error { return nil }

var (
	config = cmdline.Option{Name: "config", Arg: "FILE", Does: "a file"}
	asJSON = cmdline.Option{Name: "json", Does: "print JSON"}
	sorted = cmdline.Option{Name: "sort", Arg: "id|port", Does: "the order"}
	all    = cmdline.Option{Name: "all", Does: "everything"}
)

// table has a row of each kind.
var table = []cmdline.Command{
	{Name: "run", Does: "run it", Options: []cmdline.Option{config}, Run: nothing},
	{Name: "list", Does: "list it", Options: []cmdline.Option{config, asJSON, sorted}, Run: nothing},
	{Name: "add", Does: "add it", Options: []cmdline.Option{config}, Forms: []string{"tcp|udp PORT"}, Example: "portcullis add tcp 80", Run: nothing},
	{Name: "delete", Does: "delete it", Options: []cmdline.Option{config, asJSON, all}, Forms: []string{"ID...", "tcp|udp PORT", "--all"}, Run: nothing},
	{Name: "explain", Does: "explain it", Forms: []string{"PORT FILE..."}, Run: nothing},
	{Name: "version", Does: "print it", Options: []cmdline.Option{asJSON}, Run: nothing},
	{Name: "help", Does: "help", Forms: []string{"[COMMAND]"}, Run: nothing},
}

// line returns what came of a command line, in one.
func line(args []string) string {
	c, call, err := cmdline.Parse(table, args)
	if err != nil {
		var e *cmdline.Error
		if !errors.As(err, &e) {
			return "not an Error: " + err.Error()
		}
		if e.Command != nil {
			return e.Command.Name + ": " + e.Text
		}
		return e.Text
	}
	given := []string{}
	for name, value := range call.Given {
		given = append(given, name+"="+value)
	}
	slices.Sort(given)
	return fmt.Sprint(c.Name, " ", given, " ", call.Args)
}

func TestParse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ args, want string }{
		{"list", "list [] []"},
		{"list --json --config f", "list [config=f json=] []"},
		{"--config f list --json", "list [config=f json=] []"},
		{"--config=f list", "list [config=f] []"},
		{"list -config f -json", "list [config=f json=] []"},
		{"list --json --json", "list [json=] []"},
		{"list --sort port", "list [sort=port] []"},
		{"delete 1 --json 2", "delete [json=] [1 2]"},
		{"delete --all", "delete [all=] []"},
		{"delete", "delete [] []"}, // which form was meant is the command's to say
		{"delete icmp 80", "delete [] [icmp 80]"},
		{"delete -- --all -1", "delete [] [--all -1]"},
		{"-- delete 7", "delete [] [7]"},
		{"delete -", "delete [] [-]"},
		{"--config=-f list", "list [config=-f] []"},
		{"add tcp 80", "add [] [tcp 80]"},
		{"explain 80 a b", "explain [] [80 a b]"},
		{"help", "help [] []"},
		{"-h", "help [] []"},
		{"help help", "help [] [help]"},
		{"help list", "help [] [list]"},
		{"help list -h", "help [] [list]"},
		{"list --help", "help [] [list]"},
		{"--help list", "help [] [list]"},
		{"list --frob x y --sort -h", "help [] [list]"},
		{"-V", "version [] []"},
		{"--version --json", "version [json=] []"},

		{"", "a command is missing"},
		{"--json", "a command is missing"},
		{"--frob", `there is no option "--frob"`},
		{"--config", "--config needs a value: --config FILE"},
		{"lst", `there is no command "lst"; did you mean list?`},
		{"frobnicate --json", `there is no command "frobnicate"`},
		{"help lst", `there is no command "lst"; did you mean list?`},
		{"lst -h", `there is no command "lst"; did you mean list?`},
		{"help list extra", `help: "extra" is too much`},
		{"help --json", "help: help has no option --json"},
		{"list extra", `list: list takes no arguments, and here is "extra"`},
		{"list --jsn", `list: there is no option "--jsn"; did you mean --json?`},
		{"list --frob=7", `list: there is no option "--frob"`},
		{"list --all", "list: list has no option --all"},
		{"list -V", `list: there is no option "-V"`},
		{"list --json=no", "list: --json takes no value"},
		{"list --config", "list: --config needs a value: --config FILE"},
		{"list --config=", "list: --config needs a value: --config FILE"},
		{"list --config --json", "list: --config needs a value: --config FILE"},
		{"list --config a --config b", "list: --config is given twice"},
		{"list --sort prot", `list: --sort: "prot" is not id or port; did you mean port?`},
		{"add", "add: tcp|udp is missing"},
		{"add tcp", "add: PORT is missing"},
		{"add tpc 80", `add: "tpc" is not tcp or udp; did you mean tcp?`},
		{"add tcp 80 81", `add: "81" is too much`},
		{"explain 80", "explain: FILE is missing"},
		{"delete -1", `delete: there is no option "-1"`},
	} {
		if got := line(strings.Fields(c.args)); got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.args, got, c.want)
		}
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"list", "--config", ""}, "list: --config needs a value: --config FILE"},
		{[]string{"", "list"}, "list: a command is missing"},
	} {
		if got := line(c.args); got != c.want {
			t.Errorf("%q: %s, want %s", c.args, got, c.want)
		}
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	want := `portcullis delete: delete it

usage: portcullis delete [--config FILE] [--json] ID...
       portcullis delete [--config FILE] [--json] tcp|udp PORT
       portcullis delete [--config FILE] [--json] --all

  --config FILE  a file
  --json         print JSON
  --all          everything
`
	if got := table[3].Help(); got != want {
		t.Errorf("help of delete is\n%s\nwant\n%s", got, want)
	}
	if got, want := table[3].UsageLine(), "portcullis delete [--config FILE] [--json] ID... | tcp|udp PORT | --all"; got != want {
		t.Errorf("its usage is %s, want %s", got, want)
	}
	if got, want := table[2].Help(), "portcullis add: add it\n\nusage: portcullis add [--config FILE] tcp|udp PORT\n\n  --config FILE  a file\n\nexample: portcullis add tcp 80\n"; got != want {
		t.Errorf("help of add is\n%s\nwant\n%s", got, want)
	}
	for _, c := range table {
		if got := cmdline.Help(table); !strings.Contains(got, "\n  "+c.Name+" ") || !strings.Contains(got, "  "+c.Does+"\n") {
			t.Errorf("help has no line for %s:\n%s", c.Name, got)
		}
	}
}

// FuzzParse: whatever the words, there is a command or one line that says what is wrong;
// and a command only gets options and as many arguments as its row has.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"list --json", "--config=x delete 1 2", "delete -- --all", "help lst", "-h -V", "--=", "- -- --", "add tcp 80 81\n\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		args := strings.Split(text, " ")
		c, call, err := cmdline.Parse(table, args)
		if err != nil {
			if s := err.Error(); s == "" || strings.ContainsAny(s, "\n\r\x00\x1b") || len(s) > 500 {
				t.Errorf("%q: %q", args, s)
			}
			return
		}
		for name, value := range call.Given {
			i := slices.IndexFunc(c.Options, func(o cmdline.Option) bool { return o.Name == name })
			if i < 0 || (c.Options[i].Arg == "") != (value == "") {
				t.Errorf("%q: %s got --%s %q", args, c.Name, name, value)
			}
		}
		if len(c.Forms) == 0 && len(call.Args) > 0 {
			t.Errorf("%q: %s got %q", args, c.Name, call.Args)
		}
	})
}
