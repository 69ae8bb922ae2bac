package abuse

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"portcullis/internal/control"
	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// portcullis runs a command of the owner's, and returns what it prints and its exit code.
func (r *rig) portcullis(t *testing.T, args ...string) (string, int) {
	t.Helper()
	out, err := exec.Command(testrig.Exe, append(args, "--config", r.Daemon.Config)...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	code := 0
	if exit != nil {
		code = exit.ExitCode()
	}
	return string(out), code
}

// says wants a command to succeed and to print that.
func (r *rig) says(t *testing.T, want string, args ...string) {
	t.Helper()
	if out, code := r.portcullis(t, args...); code != 0 || out != want {
		t.Errorf("portcullis %s: exit %d, %q, want %q", strings.Join(args, " "), code, out, want)
	}
}

// TestByHand: what the owner opens for a host that has asked for nothing. Packets arrive
// there, and nobody else; no client can change or close it, whichever protocol it speaks;
// it is there after a crash and after a stop; and it is closed when the owner says so.
func TestByHand(t *testing.T) {
	for _, backend := range []string{"nftables", "iptables"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			n, err := lab.New("a", "b")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(n.Close)
			settings := strings.Replace(lab.Settings, "accept_chain = \""+lab.FirewallChain+"\"", fmt.Sprintf("backend = %q", backend), 1)
			r := &rig{testrig.StartWith(t, n, settings+noRates)}
			a, b := r.Host("a"), r.Host("b")
			to := fmt.Sprintf("%s:27015", a.Addr)
			r.says(t, "opened 27016/tcp to "+to+"\n", "add", "tcp", "27016", to, "--description", "web")
			if !r.Passes(t, "TCP", 27016, a, 27015) {
				t.Error("no packet arrives")
			}
			if list := r.List(t); len(list) != 1 || list[0].Via != "owner" || list[0].ExpiresIn != 0 || list[0].Description != "web" || list[0].Packets == 0 {
				t.Errorf("the list has %+v", list)
			}
			r.notTheirs(t, 27016, 27015)

			if err := r.Daemon.Kill(); err != nil {
				t.Fatal(err)
			}
			r.Restart(t)
			if !r.Passes(t, "TCP", 27016, a, 27015) {
				t.Error("after a crash no packet arrives")
			}
			if err := r.Daemon.Halt(); err != nil {
				t.Fatal(err)
			}
			if !r.Blocked(t, "TCP", 27016, a, 27015) {
				t.Error("it is open while the daemon is stopped")
			}
			r.Restart(t)
			if !r.Passes(t, "TCP", 27016, a, 27015) {
				t.Error("after a restart no packet arrives")
			}
			r.notTheirs(t, 27016, 27015)

			from := lab.InternetTwo.String()
			r.says(t, fmt.Sprintf("opened 9443/tcp to %s:443 from %s for 1d\n", b.Addr, from), "add", "tcp", "9443", b.Addr.String()+":443", "--from", from, "--for", "24h")
			if !r.Blocked(t, "TCP", 9443, b, 443) {
				t.Error("another host of the Internet comes in")
			}
			if out, code := r.portcullis(t, "delete", "tcp", "27016"); code != 0 || !strings.HasPrefix(out, "closed 27016/tcp to "+to+" (") || strings.Contains(out, "(0 ") {
				t.Errorf("delete: exit %d, %q", code, out)
			}
			if !r.Blocked(t, "TCP", 27016, a, 27015) {
				t.Error("it is open still")
			}
		})
	}
}

// notTheirs: host a, to which the mapping leads, and b can neither have nor close it.
func (r *rig) notTheirs(t *testing.T, external, internal uint16) {
	t.Helper()
	before := r.World(t)
	for _, host := range []string{"a", "b"} {
		c := r.v1(t, host)
		if err := c.Add(t.Context(), lab.Mapping{Protocol: "TCP", External: external, Internal: internal, Lease: hour}); code(err) != 718 {
			t.Errorf("%s has it by UPnP: %v", host, err)
		}
		if err := c.Delete(t.Context(), external, "TCP"); code(err) != 606 && code(err) != 714 { // C3
			t.Errorf("%s closes it by UPnP: %v", host, err)
		}
	}
	for _, host := range []string{"a", "b"} { // a lease of 0 closes, and what is not there is closed already
		ctx, cancel := contextFor(t, 10*time.Second)
		_, errNATPMP := r.Host(host).MapNATPMP(ctx, "TCP", internal, 0, 0)
		_, errPCP := r.Host(host).MapPCP(ctx, "TCP", internal, 0, 0)
		cancel()
		if errNATPMP != nil || errPCP != nil {
			t.Errorf("%s is told %v by NAT-PMP, %v by PCP", host, errNATPMP, errPCP)
		}
	}
	r.Unchanged(t, before, "C1", "C3")
}

// TestByHandPinhole: the same by IPv6.
func TestByHandPinhole(t *testing.T) {
	t.Parallel()
	r := start(t, noRates+"[policy]\ndefault = \"deny\"\n")
	if !r.HasIPv6() {
		t.Skip("the kernel has no IPv6")
	}
	to := netip.AddrPortFrom(r.Host("a").Addr6, 9000)
	r.out(t, "TCP", "a", 9000)
	r.says(t, fmt.Sprintf("opened tcp %s\n", to), "add", "tcp", to.String())
	r.in(t, "TCP", "a", 9000)
	r.out(t, "UDP", "a", 9000)
	r.out(t, "TCP", "b", 9000)
	before := r.World(t)
	if _, err := r.pinholes(t, "a").AddPinhole(t.Context(), lab.Pinhole{Protocol: "TCP", Port: 9000, Lease: hour}); code(err) <= 0 {
		t.Errorf("the host has it: %v", err)
	}
	r.Unchanged(t, before, "J4")
	if err := r.Daemon.Kill(); err != nil {
		t.Fatal(err)
	}
	r.Restart(t)
	r.in(t, "TCP", "a", 9000)
	list := r.List(t)
	if len(list) != 1 || list[0].Via != "owner" || list[0].ExpiresIn != 0 || list[0].Family != 6 {
		t.Errorf("the list has %+v", list)
	}
	if _, err := r.Owner.Delete(t.Context(), control.Deletion{ID: list[0].ID}); err != nil {
		t.Fatal(err)
	}
	r.out(t, "TCP", "a", 9000)
}

// TestByHandWalls: what is never opened to anybody the owner's hand does not open either.
func TestByHandWalls(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	r.inhabit(t)
	for _, c := range []struct {
		id, says string
		args     []string
	}{
		{"B2", "is Windows file sharing (SMB), which is never opened", []string{"tcp", "8445", r.Host("a").Addr.String() + ":445"}},
		{"B2", "is Windows file sharing (SMB), which is never opened", []string{"tcp", "445", r.Host("a").Addr.String() + ":8445"}},
		{"B3", "is the gateway's own address", []string{"tcp", "27016", lab.GatewayLAN.String() + ":443"}},
		{"B3", "does not belong to the network of a LAN", []string{"tcp", "27016", lab.GatewayWAN.String() + ":443"}},
		{"B1", "does not belong to the network of a LAN", []string{"tcp", "27016", lab.InternetTwo.String() + ":443"}},
		{"C1", "is mapped by another host; `portcullis list` shows it", []string{"tcp", "46001", r.Host("a").Addr.String() + ":443"}},
	} {
		before := r.World(t)
		if out, code := r.portcullis(t, append([]string{"add"}, c.args...)...); code != 1 || !strings.Contains(out, c.says) {
			t.Errorf("add %s: exit %d, %s", c.args, code, out)
		}
		r.Unchanged(t, before, c.id)
	}
}
