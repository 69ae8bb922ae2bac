package check_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"portcullis/config"
	"portcullis/internal/check"
	"portcullis/internal/netns/netnstest"
)

func TestMain(m *testing.M) { os.Exit(netnstest.Main(m)) }

const machineFile = `[lan]
interfaces = ["br-lan", "br-iot"]
leases = ["dnsmasq:/nowhere/leases"]
[wan]
interface = "wan0"
[firewall]
backend = "nftables"
accept_chain = "inet filter forward"
[control]
group = "nobody-has-this"
`

// TestMachine: what the file names is looked for on the machine; the roles are those that
// the daemon would choose.
func TestMachine(t *testing.T) {
	t.Parallel()
	netnstest.NeedProgram(t, "nft")
	gateway, internet := netnstest.New(t, "gateway"), netnstest.New(t, "internet")
	netnstest.Cable(gateway, "wan0 203.0.113.5/24", internet, "eth0 203.0.113.1/24")
	gateway.Route("", "203.0.113.1")
	gateway.Bridge("br-lan", []string{"192.168.77.1/24"})
	gateway.Bridge("br-spare", nil)
	c, lines, err := config.ParseLines("F", []byte(machineFile))
	if err != nil {
		t.Fatal(err)
	}
	look := func() (list []string, live check.Live) {
		t.Helper()
		gateway.Must(func() error {
			m, state, err := check.Look(t.Context(), c)
			if err != nil {
				return err
			}
			for _, w := range check.Judge(c, lines, m) {
				list = append(list, w.What)
			}
			live, err = check.Preview(t.Context(), c, lines, state)
			return err
		})
		return list, live
	}

	got, live := look()
	want := []string{
		`lan.interfaces: this machine has no interface "br-iot"`,
		`lan.leases: there is no file "dnsmasq:/nowhere/leases"`,
		`firewall.accept_chain "inet filter forward": there is no table inet filter`,
		`control.group: this machine has no group "nobody-has-this", and the daemon does not start without it`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	wantLive := check.Live{
		LAN: []check.LAN{{Interface: "br-lan", Prefixes: []string{"192.168.77.0/24"}}}, WAN: "wan0", Firewall: "nftables", Warnings: []string{},
		Choices: []check.Choice{
			{Line: 5, What: "wan0 is the WAN: the configuration names it"},
			{Line: 2, What: "br-lan is a LAN: the configuration names it; its address is 192.168.77.1"},
			{Line: 2, What: "br-iot is not served: it does not exist yet"},
			{What: "br-spare is not served: lan.interfaces does not name it"},
			{Line: 7, What: "the firewall is nftables, as the configuration says"},
		},
	}
	live.LAN[0].Prefixes = slices.DeleteFunc(live.LAN[0].Prefixes, func(p string) bool { return strings.HasPrefix(p, "fe80") })
	if diff := cmp.Diff(wantLive, live); diff != "" {
		t.Errorf("live (-want +got):\n%s", diff)
	}

	chain := func(text string) string {
		t.Helper()
		if _, err := gateway.Run(text, "nft", "-f", "-"); err != nil {
			t.Fatal(err)
		}
		got, _ := look()
		for _, what := range got {
			if strings.HasPrefix(what, "firewall.") {
				return what
			}
		}
		return ""
	}
	for text, want := range map[string]string{
		"table inet filter {}": "has no chain forward",
		"table inet filter { chain forward { type filter hook input priority 0; }; }":   "does not filter forwarded packets",
		"table inet filter { chain forward { type filter hook forward priority 0; }; }": "",
	} {
		if got := chain("flush ruleset\n" + text); !strings.Contains(got, want) || (got == "") != (want == "") {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

// TestLeaseFiles: the directory of a lease file is opened as a whole to the daemon, so that
// one which holds other files is told of, and so is one in which others may write.
func TestLeaseFiles(t *testing.T) {
	t.Parallel()
	gateway := netnstest.New(t, "gateway")
	own, shared, open := t.TempDir(), t.TempDir(), t.TempDir()
	for _, file := range []string{own + "/leases", own + "/leases.written", own + "/leases6.new", own + "/control.sock", shared + "/other"} {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		file, file6 string
		want        []string
	}{
		"its own":    {own + "/leases", own + "/leases6", nil},
		"not there":  {own + "/run/leases", own + "/run/leases6", nil},
		"shared":     {own + "/run/leases", shared + "/leases6", []string{`miniupnpd.lease_file6: the sandbox lets the daemon change whatever is in its directory, "` + shared + `/other" among it`}},
		"by anybody": {open + "/leases", own + "/run/leases6", []string{"miniupnpd.lease_file: it is not written there: other users may write in " + open + ", and could replace the file"}},
	} {
		text := fmt.Sprintf("[control]\nsocket = %q\n[miniupnpd]\nlease_file = %q\nlease_file6 = %q\n", own+"/control.sock", c.file, c.file6)
		cfg, lines, err := config.ParseLines("F", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		gateway.Must(func() error {
			m, _, err := check.Look(t.Context(), cfg)
			if err != nil {
				return err
			}
			var got []string
			for _, w := range check.Judge(cfg, lines, m) {
				got = append(got, w.What)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
			return nil
		})
	}
}
