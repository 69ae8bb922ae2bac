package faults

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// TestLuCIOnIPTables: on routers with fw3 the page finds the mappings in miniupnpd's chains of
// iptables, by its older and by its newest form, and what is listed there opens nothing, although
// rules lead to it.
func TestLuCIOnIPTables(t *testing.T) {
	t.Parallel()
	n, err := lab.New("a")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	for _, rule := range []string{
		"-A POSTROUTING -o wan0 -j MASQUERADE", "-N MINIUPNPD", "-A PREROUTING -i wan0 -j MINIUPNPD",
		"-N MINIUPNPD-POSTROUTING", "-A POSTROUTING -o wan0 -j MINIUPNPD-POSTROUTING",
	} {
		testrig.On(t, n.Gateway, "iptables", append([]string{"-w", "5", "-t", "nat"}, strings.Fields(rule)...)...)
	}
	lease := filepath.Join(t.TempDir(), "miniupnpd.leases")
	r := testrig.StartWith(t, n, strings.Replace(lab.Settings, `accept_chain = "`+lab.FirewallChain+`"`, `backend = "iptables"`, 1)+
		fmt.Sprintf("[miniupnpd]\nlease_file = %q\nchain = \"ip nat MINIUPNPD\"\n", lease))
	a := r.Host("a")
	c := opened(t, r, 6000)
	if err := c.Add(t.Context(), udp(6001)); err != nil {
		t.Fatal(err)
	}
	forms := map[string]*regexp.Regexp{
		"MINIUPNPD":             regexp.MustCompile(`(?m)^(?P<num>\d+).*?[a-z]+.*?dpt:(?P<ext>\d+) to:(?P<addr>\S*?):(?P<port>\d+)`),
		"MINIUPNPD-POSTROUTING": regexp.MustCompile(`(?m)^(?P<num>[0-9]+) .+ \* +(?P<addr>[0-9.]+) .+ [ut].p spt:(?P<port>[0-9]+) .+ ports: (?P<ext>[0-9]+)`),
	}
	lists := func(when string, want ...string) {
		t.Helper()
		for chain, form := range forms {
			testrig.Eventually(t, soon, when+", in "+chain, func() bool {
				var got []string
				text := testrig.On(t, r.Gateway, "iptables", "-w", "5", "--line-numbers", "-t", "nat", "-xnvL", chain)
				for _, m := range form.FindAllStringSubmatchIndex(text, -1) {
					got = append(got, string(form.ExpandString(nil, "$num $ext $addr:$port", text, m)))
				}
				return slices.Equal(got, want)
			})
		}
	}
	host := a.Addr.String()
	lists("two mappings", "1 6000 "+host+":6000", "2 6001 "+host+":6001")
	if err := c.Add(t.Context(), udp(6001)); err != nil {
		t.Errorf("what is listed keeps a client from renewing: %v", err)
	}
	deleteRow(t, lease, 1)
	lists("after the first is deleted", "1 6001 "+host+":6001")
	if !r.Blocked(t, "UDP", 6000, a, 6000) || !r.Passes(t, "UDP", 6001, a, 6001) {
		t.Error("what was deleted is open, or what was not is closed")
	}

	if err := r.Daemon.Kill(); err != nil {
		t.Fatal(err)
	}
	testrig.On(t, r.Gateway, "nft", "delete", "table", "inet", "portcullis")
	testrig.On(t, r.Gateway, "iptables", "-w", "5", "-I", "FORWARD", "-m", "conntrack", "--ctstate", "DNAT", "-j", "ACCEPT")
	if !r.Blocked(t, "UDP", 6001, a, 6001) {
		t.Error("the rule that is listed lets a packet in")
	}
	r.Restart(t)
	lists("after a crash", "1 6001 "+host+":6001")
	working(t, r, 6001)
	if err := r.Daemon.Halt(); err != nil {
		t.Fatal(err)
	}
	if left := testrig.On(t, r.Gateway, "iptables-save", "-t", "nat"); strings.Contains(left, "SHOWN") || !strings.Contains(left, "-j MINIUPNPD") {
		t.Errorf("a stop leaves\n%s", left)
	}
}
