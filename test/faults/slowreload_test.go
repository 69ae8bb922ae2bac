package faults

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// slowProgram stands in the place of the programs of iptables. Before it empties,
// deletes or restores it waits until our rule, or on a version that has it our jump, is in
// FORWARD: such a step of the owner's meets a repair that is done.
const slowProgram = `#!/bin/sh
name=${0##*/}
case " $name $* " in
*-save*|*" -V "*|*"--version"*) exec "$REAL" "$name" "$@" ;;
*-restore\ *|*" -F "*|*" -X "*|*" -P "*)
	tries=0
	until [ ! -e "$HERE/wait" ] || "$REAL" "${name%-restore}-save" -t filter | grep -qi "^-A FORWARD.*portcullis"
	do
		tries=$((tries+1))
		[ $tries -lt 3000 ] || { echo "the rule was never put back" >&2; exit 99; }
		sleep 0.01
	done
esac
[ "$FLAVOUR" = nft ] || set -- "$@" -w 30
exec "$REAL" "$name" "$@"
`

// slowly runs a command for which the programs of iptables are those.
const slowly = `set -e
mount -t tmpfs tmpfs "$HERE/mnt"
mkdir "$HERE/mnt/up" "$HERE/mnt/work"
for name in iptables ip6tables iptables-restore ip6tables-restore iptables-save ip6tables-save; do
	cp "$HERE/program" "$HERE/mnt/up/$name"
done
dir=$(dirname "$REAL")
mount -t overlay -o "lowerdir=$dir,upperdir=$HERE/mnt/up,workdir=$HERE/mnt/work" overlay "$dir"
exec "$@"`

// ownersScript is a firewall as many have written one: all is emptied, and written
// anew, a command a line.
const ownersScript = `iptables -P INPUT DROP; iptables -P FORWARD DROP; ip6tables -P FORWARD DROP
for p in iptables ip6tables; do
	$p -F || exit 1
	$p -X || exit 2
	$p -t mangle -F || exit 3
	$p -t mangle -X || exit 4
	$p -N LANWAN || exit 5
	$p -A LANWAN -i br-lan -o wan0 -j ACCEPT || exit 6
	$p -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT || exit 7
	$p -A FORWARD -j LANWAN || exit 8
	$p -A INPUT -i lo -j ACCEPT || exit 9
	$p -A INPUT -i br-lan -j ACCEPT || exit 10
	$p -A FORWARD -j REJECT || exit 11
done
iptables -t nat -F || exit 12
iptables -t nat -X || exit 13
iptables -t nat -A POSTROUTING -o wan0 -j MASQUERADE || exit 14
`

// slowOwner is an owner of iptables: how his firewall begins, and how he has it write
// all of its rules anew.
type slowOwner struct {
	begin func(t *testing.T, run func(stdin string, argv ...string))
	again []string
	stdin string
}

// slowOwners are these, each with files of its own.
func slowOwners(t *testing.T) map[string]slowOwner {
	t.Helper()
	// Without MANAGE_BUILTINS it empties its own chains alone (TestHostFirewalls).
	ufw := func() slowOwner {
		cmd := []string{"ufw", "--rootdir=/", "--datadir=" + ufwFiles(t, "MANAGE_BUILTINS=yes\n")}
		return slowOwner{again: append(slices.Clone(cmd), "reload"), begin: func(t *testing.T, run func(string, ...string)) {
			for _, args := range []string{
				"allow in on br-lan to any port 1900,5351 proto udp", "allow in on br-lan to any port 5000 proto tcp",
				"route allow in on br-lan out on wan0", "--force enable",
			} {
				run("", append(slices.Clone(cmd), strings.Fields(args)...)...)
			}
		}}
	}
	byScript := func(t *testing.T, run func(string, ...string)) { run(ownersScript, "sh") }
	restore := besideDocker["iptables"]
	return map[string]slowOwner{
		"a script":                     {byScript, []string{"sh"}, ownersScript},
		"iptables-restore":             {byScript, []string{"iptables-restore"}, restore},
		"iptables-restore --noflush":   {byScript, []string{"iptables-restore", "--noflush"}, restore},
		"ufw with the built-in chains": ufw(),
	}
}

// slowNetwork is a network whose owner's programs wait for us, once they are told to.
type slowNetwork struct {
	*testrig.Rig
	flavour, here string
}

func newSlowNetwork(t *testing.T, flavour string) *slowNetwork {
	t.Helper()
	n, err := lab.New("a", "b")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	s := &slowNetwork{&testrig.Rig{Network: n}, flavour, t.TempDir()}
	if err := os.Mkdir(filepath.Join(s.here, "mnt"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.here, "program"), []byte(slowProgram), 0o755); err != nil {
		t.Fatal(err)
	}
	return s
}

// command is one of the owner's.
func (s *slowNetwork) command(t *testing.T, stdin string, argv ...string) *exec.Cmd {
	t.Helper()
	real, err := exec.LookPath("xtables-" + s.flavour + "-multi")
	if err != nil {
		t.Fatalf("%v (test/install brings what is missing)", err)
	}
	cmd := exec.Command("unshare", append([]string{"--mount", "sh", "-c", slowly, "sh"}, argv...)...)
	cmd.Env = append(os.Environ(), "REAL="+real, "HERE="+s.here, "FLAVOUR="+s.flavour)
	cmd.Stdin = strings.NewReader(stdin)
	return cmd
}

// run wants a command to succeed.
func (s *slowNetwork) run(t *testing.T) func(stdin string, argv ...string) {
	return func(stdin string, argv ...string) {
		t.Helper()
		if out, err := output(s.Rig, s.command(t, stdin, argv...)); err != nil {
			t.Fatalf("%s: %v\n%s", argv, err, out)
		}
	}
}

// owners returns the owner's rules of each table, without ours and without counts.
func (s *slowNetwork) owners(t *testing.T) map[string]string {
	t.Helper()
	all, table := make(map[string]string), ""
	counts := regexp.MustCompile(`\[\d+:\d+\]`)
	for _, program := range []string{"iptables", "ip6tables"} {
		for line := range strings.Lines(testrig.On(t, s.Gateway, program+"-"+s.flavour+"-save")) {
			switch {
			case strings.HasPrefix(line, "#"), strings.Contains(line, "portcullis"):
			case strings.HasPrefix(line, "*"):
				table = program + " " + line
			default:
				all[table] += counts.ReplaceAllString(line, "")
			}
		}
	}
	return all
}

// result is what became of the owner's command.
type result struct {
	Failed string
	Rules  map[string]string
}

func (s *slowNetwork) again(t *testing.T, o slowOwner) result {
	t.Helper()
	var r result
	if out, err := output(s.Rig, s.command(t, o.stdin, o.again...)); err != nil {
		r.Failed = err.Error() + ": " + out
	}
	r.Rules = s.owners(t)
	return r
}

// TestSlowReload: L9. A firewall of iptables that is written anew in steps, each of which
// finds our rule back, comes to the same as without us: the same exit status, the same
// rules; a mapping and a pinhole pass then, and nothing else.
func TestSlowReload(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, flavour, section string }{
		{"nft", "nft", `backend = "iptables"`},
		{"legacy", "legacy", `backend = "auto"`},
		{"accept chain", "nft", "accept_chain = \"ip filter FORWARD\"\naccept_chain6 = \"ip6 filter FORWARD\""},
	} {
		for name := range slowOwners(t) {
			if row.name == "accept chain" && name != "a script" {
				continue // the rule is the same
			}
			t.Run(row.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				without := newSlowNetwork(t, row.flavour)
				if row.flavour == "legacy" && !legacyTables(t, without.Network) {
					return
				}
				o := slowOwners(t)[name]
				o.begin(t, without.run(t))
				want := without.again(t, o)
				if want.Failed != "" {
					t.Fatalf("without us: %s", want.Failed)
				}
				with := newSlowNetwork(t, row.flavour)
				o = slowOwners(t)[name]
				o.begin(t, with.run(t))
				r := testrig.StartWith(t, with.Network, strings.Replace(lab.Settings, `accept_chain = "`+lab.FirewallChain+`"`, row.section, 1))
				with.Rig = r
				a, b := r.Host("a"), r.Host("b")
				opened(t, r, 6000)
				pinhole(t, a)
				both(t, r, a)
				if err := os.WriteFile(filepath.Join(with.here, "wait"), nil, 0o600); err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				if diff := cmp.Diff(want, with.again(t, o)); diff != "" {
					t.Errorf("the owner's command without us and with us (-without +with):\n%s", diff)
				}
				t.Logf("took %v", time.Since(start))
				both(t, r, a)
				closed(t, r, b, b)
				if !r.Blocked(t, "UDP", 6001, a, 6001) {
					t.Error("what is not mapped is reached")
				}
				if name != "iptables-restore --noflush" { // which takes nothing of ours
					r.Logged(t, "the rule that lets mappings pass was missing")
				}
				if log := r.Daemon.Log(); strings.Contains(log, "level=ERROR") {
					t.Errorf("the log speaks of errors:\n%s", log)
				}
			})
		}
	}
}
