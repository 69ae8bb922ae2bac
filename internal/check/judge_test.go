package check_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"portcullis/config"
	"portcullis/firewall"
	"portcullis/internal/check"
	"portcullis/internal/leasefile"
)

var update = flag.Bool("update", false, "write what the mistakes are told")

// TestMistakes: what people do wrong is said in words that lead to what is right.
func TestMistakes(t *testing.T) {
	t.Parallel()
	const file = "testdata/mistakes.txtar"
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(archive.Files); i += 2 {
		input, want := archive.Files[i], &archive.Files[i+1]
		got := told(input.Data)
		if *update {
			want.Data = []byte(got)
			continue
		}
		if diff := cmp.Diff(string(want.Data), got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", input.Name, diff)
		}
	}
	if *update {
		if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// allKeys is a list that grows with each key; config's own tests have it.
var allKeys = regexp.MustCompile(`allowed: ([a-z_]+, ){4,}[a-z_]+`)

// TestLeaseRemedies: what is told of the place of a lease file ends with where it can be.
func TestLeaseRemedies(t *testing.T) {
	t.Parallel()
	run := t.TempDir()
	system := []string{filepath.Join(run, "systemd")}
	if err := os.Mkdir(system[0], 0o755); err != nil {
		t.Fatal(err)
	}
	const ofItsOwn = "; name a directory that holds nothing else, /run/portcullis say"
	for want, l := range map[string]check.Lease{
		"miniupnpd.lease_file6: it is not written there: the sandbox would let the daemon change whatever is in " + run + ", " + system[0] + " among it" + ofItsOwn:                                                               {Unfit: leasefile.Usable(run, system)},
		"miniupnpd.lease_file6: it is not written there: why; name a directory of root's or of the daemon's user":                                                                                                                 {Unfit: errors.New("why")},
		"miniupnpd.lease_file6: the sandbox lets the daemon change whatever is in its directory, \"/x/y\" among it" + ofItsOwn:                                                                                                    {Beside: "/x/y"},
		"miniupnpd.lease_file6: portcullis.service lets the daemon write files for others in /run/portcullis alone; name a file in /run/portcullis, or have a drop-in allow the directory with ReadWritePaths= (docs/systemd.md)": {Unit: true},
	} {
		all := check.Judge(config.Default(), config.Lines{}, check.Machine{Leases: [2]check.Lease{1: l}})
		if len(all) != 1 || all[0].What+"; "+all[0].Remedy != want {
			t.Errorf("%v, want %s", all, want)
		}
	}
}

// told returns the errors of a file, or else its warnings.
func told(data []byte) string {
	c, lines, err := config.ParseLines("F", data)
	if err != nil {
		return allKeys.ReplaceAllString(err.Error(), "allowed: ...") + "\n"
	}
	m := check.Machine{Interfaces: []string{"lo", "br-lan", "wan0"}}
	if c.Control.Group != "" {
		m.Group = errors.New("unknown group")
	}
	if len(c.Hook.Command) > 0 {
		m.Hook = errors.New("there is no such file")
	}
	if chain := c.Firewall.AcceptChain; chain != (firewall.Chain{}) {
		m.Chains[0] = &firewall.ChainError{Chain: chain, Detail: "there is no table inet filter; start the firewall that makes it before portcullis, or correct the name"}
	}
	var b strings.Builder
	for _, w := range check.Judge(c, lines, m) {
		fmt.Fprintf(&b, "F:%d: warning: %s; %s\n", w.Line, w.What, w.Remedy)
	}
	if b.Len() == 0 {
		return "nothing\n"
	}
	return b.String()
}
