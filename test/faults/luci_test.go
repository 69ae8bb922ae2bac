package faults

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"portcullis/internal/control"
	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// page is what luci-app-upnp makes of a gateway, by what its releases look for.
type page struct {
	lease string
	rule  *regexp.Regexp
	most  int // fields of a line of the lease file, for the last has the rest of it
}

// pages are those of OpenWrt 24.10 and of the newest: the older one takes nothing between
// the port and the translation, the newer one a line of seven fields for another form.
func pages(lease string) map[string]page {
	return map[string]page{
		"24.10":  {lease, regexp.MustCompile(`^\t\tiif ".+" @nh,72,8 (0x6|0x11) th dport ([0-9]+) dnat ip to ([0-9.]+):([0-9]+)`), 6},
		"newest": {lease, regexp.MustCompile(`^\t\tiif ".+" @nh,72,8 (0x6|0x11) th dport ([0-9]+).* dnat ip to ([0-9.]+):([0-9]+)`), 7},
	}
}

// shownRow is a row of its table.
type shownRow struct {
	num, proto, ext, addr, port, descr string
	expires                            int64 // seconds from now
}

func (s shownRow) String() string {
	return fmt.Sprintf("%s %s %s %s:%s %q", s.num, s.proto, s.ext, s.addr, s.port, s.descr)
}

// rows reads the chain and the lease file as the page does: a row for each rule, which has
// its description and its end from the line that agrees with it.
func (p page) rows(t *testing.T, r *testrig.Rig) (all []shownRow) {
	t.Helper()
	leases, err := os.ReadFile(p.lease)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(testrig.On(t, r.Gateway, "nft", "--handle", "list", "chain", "inet", "fw4", "upnp_prerouting"), "\n") {
		m := p.rule.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		s := shownRow{num: strconv.Itoa(len(all) + 1), proto: "UDP", ext: m[2], addr: m[3], port: m[4]}
		if m[1] == "0x6" {
			s.proto = "TCP"
		}
		for lease := range strings.SplitSeq(string(leases), "\n") {
			f := strings.SplitN(lease, ":", p.most)
			if len(f) == 7 {
				f = slices.Delete(f, 2, 3) // a remote host is there
			}
			if len(f) == 6 && f[0] == s.proto && f[1] == s.ext && f[2] == s.addr && f[3] == s.port {
				end, _ := strconv.ParseInt(f[4], 10, 64)
				s.descr, s.expires = f[5], end-time.Now().Unix()
				break
			}
		}
		all = append(all, s)
	}
	return all
}

// shows waits until every page shows these rows.
func shows(t *testing.T, r *testrig.Rig, lease, when string, want ...string) {
	t.Helper()
	for name, p := range pages(lease) {
		var got []string
		defer func() {
			if t.Failed() {
				t.Logf("%s: page of %s: %q", when, name, got)
			}
		}()
		testrig.Eventually(t, soon, when+", on the page of "+name, func() bool {
			got = nil
			for _, s := range p.rows(t, r) {
				if s.expires < 1 || s.expires > 7*24*3600 {
					s.descr += " ends in " + strconv.FormatInt(s.expires, 10)
				}
				got = append(got, s.String())
			}
			return slices.Equal(got, want)
		})
	}
}

// deleteRow is what the page does before it restarts the daemon.
func deleteRow(t *testing.T, lease string, num int) {
	t.Helper()
	if out, err := exec.Command("sed", "-i", "-e", strconv.Itoa(num)+"d", lease).CombinedOutput(); err != nil {
		t.Fatalf("sed: %v\n%s", err, out)
	}
}

// ubus calls a method of our object as rpcd does: with the arguments on standard input, and
// nothing else. That is not on this machine.
func ubus(t *testing.T, r *testrig.Rig, method, arguments string, answer any) {
	t.Helper()
	cmd := exec.Command(testrig.Exe, "rpcd", "--config", r.Daemon.Config, "call", method)
	cmd.Stdin = strings.NewReader(arguments)
	out, err := output(r, cmd)
	if err == nil {
		err = json.Unmarshal([]byte(out), answer)
	}
	if err != nil {
		t.Fatalf("%s: %v\n%s", method, err, out)
	}
}

// TestLuCI: the page of OpenWrt shows the mappings and deletes them, with its own sequence of
// calls; a reload of fw4 costs nothing but the list, and that for a moment. What is listed
// opens nothing, although a rule leads there.
func TestLuCI(t *testing.T) {
	t.Parallel()
	n, err := lab.New("a")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	const jump = `
table inet fw4 {
	chain upnp_prerouting { }
	chain dstnat {
		type nat hook prerouting priority dstnat; policy accept;
		jump upnp_prerouting
	}
}
`
	nft(t, &testrig.Rig{Network: n}, fw4(t)+jump)
	lease := filepath.Join(t.TempDir(), "miniupnpd.leases") // not where the daemon has its state
	config := strings.Replace(lab.Settings, lab.FirewallChain, "inet fw4 forward", 1) +
		fmt.Sprintf("[miniupnpd]\nlease_file = %q\nlease_file6 = %q\nchain = \"inet fw4 upnp_prerouting\"\n", lease, lease+"6")
	r := testrig.StartWith(t, n, config)
	a := r.Host("a")
	c := opened(t, r, 6000)
	if err := c.Add(t.Context(), lab.Mapping{Protocol: "TCP", External: 6001, Internal: 6001, Lease: time.Hour, Description: "a: <b> \"game\"\n"}); err != nil {
		t.Fatal(err)
	}
	for _, m := range []lab.MapRequest{
		{Gateway: lab.GatewayLAN, Source: a.Addr, Protocol: "TCP", Internal: 6002, Suggested: 6002, Lease: time.Hour},
		{Gateway: lab.GatewayLinkLocal, Source: a.Addr6, Protocol: "UDP", Internal: 9000, Lease: time.Hour},
	} {
		if _, err := mapPCP(t, a, m); err != nil {
			t.Fatal(err)
		}
	}
	host := a.Addr.String()
	first := fmt.Sprintf(`1 UDP 6000 %s:6000 ""`, host)
	second := fmt.Sprintf(`2 TCP 6001 %s:6001 "a_ _b_ _game__"`, host)
	third := fmt.Sprintf(`3 TCP 6002 %s:6002 "PCP MAP 000000000000000000000000"`, host)
	shows(t, r, lease, "three mappings", first, second, third)
	pin := regexp.MustCompile(`^UDP;` + regexp.QuoteMeta(a.Addr6.String()) + `;9000;;0;[0-9]+;[0-9]+;PCP MAP 0{24}\n$`)
	if text, err := os.ReadFile(lease + "6"); err != nil || !pin.Match(text) {
		t.Errorf("the file of IPv6 has %q, %v", text, err)
	}
	nft(t, r, fw4(t)+jump)
	shows(t, r, lease, "after a reload of fw4", first, second, third)
	if s, err := r.Owner.Status(t.Context()); err != nil || s.Firewall.DriftRepaired != 0 {
		t.Errorf("%d repairs, %v", s.Firewall.DriftRepaired, err)
	}
	if err := c.Add(t.Context(), udp(6000)); err != nil {
		t.Errorf("what is listed keeps a client from renewing: %v", err)
	}

	deleted := begin(t, r, netip.AddrPortFrom(lab.GatewayWAN, 6001), 6001)
	other := begin(t, r, netip.AddrPortFrom(lab.GatewayWAN, 6002), 6002)
	deleteRow(t, lease, 2)
	if err := r.Daemon.HandOver(); err != nil {
		t.Fatal(err)
	}
	r.Restart(t)
	if !r.Blocked(t, "TCP", 6001, a, 6001) {
		t.Error("what was deleted on the page is open when the daemon is ready")
	}
	shows(t, r, lease, "after the second is deleted", first, strings.Replace(third, "3", "2", 1))
	deleted.dead(t, "it was deleted on the page")
	other.alive("after another one was deleted on the page")
	r.Logged(t, "its line was deleted in the lease file")

	// Nobody restarts it.
	deleteRow(t, lease, 1)
	shows(t, r, lease, "after the first is deleted", strings.Replace(third, "3", "1", 1))
	if list := r.List(t); len(list) != 2 || !r.Blocked(t, "UDP", 6000, a, 6000) {
		t.Errorf("open are %+v", list)
	}

	// Our own object has the pinhole too.
	var open struct {
		Mappings []control.Mapping `json:"mappings"`
	}
	ubus(t, r, "list", `{"ubus_rpc_session":"00000000000000000000000000000000"}`, &open)
	i := slices.IndexFunc(open.Mappings, func(m control.Mapping) bool { return m.Family == 6 })
	if i < 0 || len(open.Mappings) != 2 {
		t.Fatalf("ubus lists %+v", open)
	}
	var closed struct {
		Closed []control.Mapping `json:"closed"`
		control.Failure
	}
	id := fmt.Sprintf(`{"id":%d}`, open.Mappings[i].ID)
	if ubus(t, r, "delete", id, &closed); len(closed.Closed) != 1 || closed.Closed[0].InternalPort != 9000 || len(r.List(t)) != 1 {
		t.Errorf("%s closes %+v", id, closed)
	}
	if ubus(t, r, "delete", id, &closed); closed.Reason != "no-such-mapping" {
		t.Errorf("closing it again is %+v", closed)
	}

	// What is listed opens nothing, whatever accepts what was translated, and without the rule
	// that is before it.
	if err := r.Daemon.Kill(); err != nil {
		t.Fatal(err)
	}
	guard := regexp.MustCompile(`return comment .* # handle ([0-9]+)`).FindStringSubmatch(
		testrig.On(t, r.Gateway, "nft", "--handle", "list", "chain", "inet", "fw4", "upnp_prerouting"))
	if guard == nil {
		t.Fatal("there is no rule before what is listed")
	}
	nft(t, r, "delete rule inet fw4 upnp_prerouting handle "+guard[1]+"\n")
	nft(t, r, "delete table inet portcullis\ninsert rule inet fw4 forward ct status dnat accept\n")
	if !r.Blocked(t, "TCP", 6002, a, 6002) {
		t.Error("the rule that is listed lets a packet in")
	}
	r.Restart(t)
	shows(t, r, lease, "after a crash", strings.Replace(third, "3", "1", 1))
	if err := r.Daemon.Halt(); err != nil {
		t.Fatal(err)
	}
	if left := testrig.On(t, r.Gateway, "nft", "list", "chain", "inet", "fw4", "upnp_prerouting"); strings.Contains(left, "dnat") || strings.Contains(left, "portcullis") {
		t.Errorf("a stop leaves\n%s", left)
	}
}
