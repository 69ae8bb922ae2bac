package abuse

import (
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"portcullis/internal/control"
	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

func udp(external, internal uint16) lab.Mapping {
	return lab.Mapping{External: external, Internal: internal, Protocol: "UDP", Lease: time.Hour}
}

// TestOwnership: C1, C3, C5, K7. A client has no way to another's mapping.
func TestOwnership(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	a, b, b1 := r.v2(t, "a"), r.v2(t, "b"), r.v1(t, "b")
	if err := a.Add(t.Context(), udp(6000, 6000)); err != nil {
		t.Fatal(err)
	}
	r.refused(t, b, udp(6000, 6000), 718, "C1")
	before := r.World(t)
	call := func(id string, c *lab.ControlPoint, want int, action string, args ...string) {
		t.Helper()
		if _, err := c.Call(t.Context(), action, args...); code(err) != want {
			t.Errorf("%s: %s answered %v, want %d", id, action, err, want)
		}
	}
	key := []string{"NewRemoteHost", "", "NewExternalPort", "6000", "NewProtocol", "UDP"}
	call("C3", b, 606, "DeletePortMapping", key...)
	call("C3", b1, 714, "DeletePortMapping", key...)
	everything := []string{"NewStartPort", "0", "NewEndPort", "65535", "NewProtocol", "UDP", "NewManage", "1"}
	call("C3", b, 730, "DeletePortMappingRange", everything...)
	call("C5", b, 714, "GetSpecificPortMappingEntry", key...)
	call("C5", b, 713, "GetGenericPortMappingEntry", "NewPortMappingIndex", "0")
	call("C5", b, 730, "GetListOfPortMappings", append(everything, "NewNumberOfPorts", "0")...)
	call("SOAP-28", b, 733, "DeletePortMappingRange", "NewStartPort", "7000", "NewEndPort", "6000", "NewProtocol", "UDP", "NewManage", "0")
	r.Unchanged(t, before, "C3", "C5", "K7")
	if !r.Passes(t, "UDP", 6000, r.Host("a"), 6000) {
		t.Error("a's mapping no longer works")
	}
	call("C3", a, 0, "DeletePortMappingRange", everything...)
	if list := r.List(t); len(list) != 0 {
		t.Errorf("left: %+v", list)
	}
}

// TestLiveFlowEnds: C8. A connection through a mapping ends with it, and nobody
// else's does.
func TestLiveFlowEnds(t *testing.T) {
	t.Parallel()
	r := start(t, "")
	a, b := r.v1(t, "a"), r.v1(t, "b")
	flowA, flowB := openFlow(t, r, "a", a, 7001), openFlow(t, r, "b", b, 7002)
	if err := a.Delete(t.Context(), 7001, "TCP"); err != nil {
		t.Fatal(err)
	}
	testrig.Eventually(t, soon, "the flow of the deleted mapping ends", flowA.dead)
	if !flowB.alive() {
		t.Error("another mapping's flow ended too")
	}
}

// TestDaemonDeath: C7. The kernel closes the port at the end of the lease and a
// minute, though the daemon was killed.
func TestDaemonDeath(t *testing.T) {
	t.Parallel()
	r := start(t, "")
	m := udp(6000, 6000)
	m.Lease = time.Second
	if err := r.v1(t, "a").Add(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if err := r.Daemon.Kill(); err != nil {
		t.Fatal(err)
	}
	if !r.Passes(t, "UDP", 6000, r.Host("a"), 6000) {
		t.Error("the mapping died with the daemon")
	}
	testrig.Eventually(t, 90*time.Second, "the kernel forgets the mapping", func() bool {
		return !strings.Contains(r.ruleset(t), "6000")
	})
	if !r.Blocked(t, "UDP", 6000, r.Host("a"), 6000) {
		t.Error("the port is still open")
	}
}

// TestLeaseEnds: SOAP-23. A short lease ends by itself, on time.
func TestLeaseEnds(t *testing.T) {
	t.Parallel()
	r := start(t, "")
	c := r.v1(t, "a")
	m := udp(6000, 6000)
	m.Lease = time.Second
	if err := c.Add(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	testrig.Eventually(t, soon, "the lease ends", func() bool { return len(r.List(t)) == 0 })
	if strings.Contains(r.ruleset(t), "6000") {
		t.Error("the kernel still has it")
	}
	m.Lease = time.Hour
	if err := c.Add(t.Context(), m); err != nil {
		t.Errorf("the same client asks again: %v", err)
	}
	if err := r.v1(t, "b").Add(t.Context(), m); code(err) != 718 {
		t.Errorf("another client meanwhile: %v", err)
	}
}

// TestNoResidue: C9. A thousand mappings made, changed and removed by two hosts
// at once leave the kernel exactly as it was.
func TestNoResidue(t *testing.T) {
	t.Parallel()
	r := start(t, noRates+"mappings_per_client = 1000\n")
	before := r.World(t)
	var wait sync.WaitGroup
	for i, host := range []string{"a", "b"} {
		c := r.v2(t, host)
		wait.Go(func() {
			for n := range 500 {
				port := uint16(20000 + 1000*i + n%50)
				var err error
				switch n % 5 {
				case 0, 1, 2:
					err = c.Add(t.Context(), tcp(port, uint16(30000+n%7), ""))
				case 3:
					m := udp(port, 30000)
					m.Remote = lab.InternetTwo.String()
					err = c.Add(t.Context(), m)
				case 4:
					_, err = c.AddAny(t.Context(), udp(port, 30001))
				}
				if err != nil {
					t.Errorf("%s: %v", host, err)
				}
			}
			for _, protocol := range []string{"TCP", "UDP"} {
				if _, err := c.Call(t.Context(), "DeletePortMappingRange", "NewStartPort", "1", "NewEndPort", "65535",
					"NewProtocol", protocol, "NewManage", "0"); err != nil {
					t.Errorf("%s: %v", host, err)
				}
			}
		})
	}
	wait.Wait()
	r.Unchanged(t, before, "C9")
}

// TestQuota: K1. One host cannot take everything, the other is still served.
func TestQuota(t *testing.T) {
	t.Parallel()
	r := start(t, noRates+"mappings_per_client = 5\nmappings = 7\n")
	a1, a2, b := r.v1(t, "a"), r.v2(t, "a"), r.v2(t, "b")
	for port := uint16(6000); port < 6005; port++ {
		if err := a1.Add(t.Context(), udp(port, port)); err != nil {
			t.Fatal(err)
		}
	}
	r.refused(t, a1, udp(6005, 6005), 501, "K1")
	r.refused(t, a2, udp(6005, 6005), 728, "K1")
	if err := a2.Add(t.Context(), udp(6004, 6104)); err != nil {
		t.Errorf("a renewal needs no quota: %v", err)
	}
	for port := uint16(7000); port < 7002; port++ {
		if err := b.Add(t.Context(), udp(port, port)); err != nil {
			t.Errorf("b: %v", err)
		}
	}
	r.refused(t, b, udp(7002, 7002), 728, "K1")
}

// TestGrantRate: K1. After the burst new grants are refused, and changes of what was
// granted, which are as much work; renewals are not.
func TestGrantRate(t *testing.T) {
	t.Parallel()
	r := start(t, "")
	c := r.v2(t, "a")
	granted, began := 0, time.Now()
	for port := uint16(6000); port < 6030; port++ {
		switch err := c.Add(t.Context(), udp(port, port)); code(err) {
		case 0:
			granted++
		case 728:
		default:
			t.Errorf("port %d: %v", port, err)
		}
	}
	if most := 20 + int(time.Since(began)/time.Second); granted < 16 || granted > most { // one more a second
		t.Errorf("%d of 30 were granted, want the burst of 16 and a few, %d at most", granted, most)
	}
	for port := uint16(6000); port < 6010; port++ {
		if err := c.Add(t.Context(), udp(port, port)); err != nil {
			t.Errorf("renewal of %d: %v", port, err)
		}
	}
	refused := 0
	for n := range 30 {
		again := udp(6000, uint16(30000+n))
		switch err := c.Add(t.Context(), again); code(err) {
		case 0:
		case 728:
			refused++
		default:
			t.Errorf("change %d: %v", n, err)
		}
	}
	if refused == 0 {
		t.Error("none of 30 changes at once was refused")
	}
}

// TestAddressMoves: C6 and C11. What a machine mapped is closed as soon as another
// one has its address, and the newcomer does not get the port.
func TestAddressMoves(t *testing.T) {
	t.Parallel()
	r := start(t, "")
	c := r.v2(t, "a")
	if err := c.Add(t.Context(), udp(6000, 6000)); err != nil {
		t.Fatal(err)
	}
	a := r.Host("a")
	eth, err := a.Netlink().LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	other := []byte{2, 0, 0, 77, 9, 9}
	if err := a.Netlink().LinkSetHardwareAddr(eth, other); err != nil {
		t.Fatal(err)
	}
	testrig.Eventually(t, soon, "the gateway learns the new MAC", func() bool {
		return code(c.Add(t.Context(), udp(6000, 6000))) == 718
	})
	testrig.Eventually(t, soon, "what the predecessor mapped is closed", func() bool { return r.List(t)[0].Suspended && r.elements(t, "udp", 6000) == 0 })
	before := r.World(t)
	if err := c.Add(t.Context(), udp(6000, 6000)); code(err) != 718 {
		t.Errorf("the predecessor's port: %v", err)
	}
	if err := c.Delete(t.Context(), 6000, "UDP"); code(err) != 606 {
		t.Errorf("delete: %v", err)
	}
	if list, err := c.Call(t.Context(), "GetListOfPortMappings", "NewStartPort", "1", "NewEndPort", "65535", "NewProtocol", "UDP", "NewManage", "1", "NewNumberOfPorts", "0"); code(err) != 730 {
		t.Errorf("the newcomer is shown %v, %v", list, err)
	}
	r.Unchanged(t, before, "C6")
}

// TestCleanStop: a clean stop leaves no trace in the kernel, whatever was open.
func TestCleanStop(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "a", "b")
	before := testrig.Ruleset(t, n.Gateway)
	r := startOn(t, n, "")
	through := openFlow(t, r, "a", r.v1(t, "a"), 7001)
	if err := r.v1(t, "b").Add(t.Context(), udp(6000, 6000)); err != nil {
		t.Fatal(err)
	}
	if err := r.Daemon.Stop(); err != nil {
		t.Fatal(err)
	}
	if after := testrig.Ruleset(t, n.Gateway); after != before {
		t.Errorf("left behind:\n%s", after)
	}
	if !through.dead() {
		t.Error("a flow outlived its mapping")
	}
	sockets := testrig.On(t, n.Gateway, "sh", "-c", "cat /proc/self/net/udp /proc/self/net/tcp | grep -c ':076C \\| 0A ' || true")
	if strings.TrimSpace(sockets) != "0" {
		t.Errorf("sockets left: %s", sockets)
	}
}

// TestOwnerDeletes: the owner's delete goes the one way through the engine, and
// closes the port in the kernel.
func TestOwnerDeletes(t *testing.T) {
	t.Parallel()
	r := start(t, "")
	c := r.v1(t, "a")
	if err := c.Add(t.Context(), udp(6000, 6000)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(testrig.Exe, "delete", "--config", r.Daemon.Config, "udp", "6000")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !r.Blocked(t, "UDP", 6000, r.Host("a"), 6000) {
		t.Error("the port is still open")
	}
	if err := c.Delete(t.Context(), 6000, "UDP"); code(err) != 714 {
		t.Errorf("the client sees it still: %v", err)
	}
	if _, err := r.Owner.Delete(t.Context(), control.Deletion{Protocol: "udp", Port: 6000}); err == nil {
		t.Error("a second delete succeeds")
	}
}

// TestCounters: list tells the traffic of each mapping.
func TestCounters(t *testing.T) {
	t.Parallel()
	r := start(t, "")
	through := openFlow(t, r, "a", r.v1(t, "a"), 7001)
	first := r.List(t)[0]
	for range 10 {
		if !through.alive() {
			t.Fatal("the flow ended")
		}
	}
	second := r.List(t)[0]
	if second.Packets < first.Packets+20 || second.Bytes <= first.Bytes || second.ExternalPort != 7001 {
		t.Errorf("ten bytes each way: from %d packets, %d bytes to %d, %d", first.Packets, first.Bytes, second.Packets, second.Bytes)
	}
}

// TestOpenNAT: what leaves from a mapped port keeps the mapped number for every
// remote, which consoles call an open NAT; two hosts with the same internal port
// each keep their own.
func TestOpenNAT(t *testing.T) {
	t.Parallel()
	r := start(t, "")
	remotes := map[netip.Addr]*net.UDPConn{}
	for _, remote := range []netip.Addr{lab.InternetOne, lab.InternetTwo} {
		in, err := r.Internet.ListenPacket(hostPort(remote, 9000))
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		remotes[remote] = in
	}
	for host, external := range map[string]uint16{"a": 3074, "b": 3075} {
		if err := r.v1(t, host).Add(t.Context(), udp(external, 3074)); err != nil {
			t.Fatal(err)
		}
		out, err := r.Host(host).ListenPacket(hostPort(r.Host(host).Addr, 3074))
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		for remote, in := range remotes {
			if _, err := out.WriteToUDPAddrPort([]byte("hello"), netip.AddrPortFrom(remote, 9000)); err != nil {
				t.Fatal(err)
			}
			if err := in.SetReadDeadline(time.Now().Add(soon)); err != nil {
				t.Fatal(err)
			}
			_, from, err := in.ReadFromUDPAddrPort(make([]byte, 64))
			if want := netip.AddrPortFrom(lab.GatewayWAN, external); err != nil || from != want {
				t.Errorf("%s to %s leaves from %v (%v), want %v", host, remote, from, err, want)
			}
		}
	}
}

// TestHairpin: a LAN host reaches another by the external address, and so does
// the mapped host itself.
func TestHairpin(t *testing.T) {
	t.Parallel()
	r := start(t, "")
	if err := r.v1(t, "a").Add(t.Context(), tcp(7001, 7001, "")); err != nil {
		t.Fatal(err)
	}
	if err := r.v1(t, "a").Add(t.Context(), udp(7001, 7001)); err != nil {
		t.Fatal(err)
	}
	for _, protocol := range []string{"TCP", "UDP"} {
		for _, from := range []string{"a", "b"} {
			arrived, _, err := lab.Probe(t.Context(), protocol, r.Host(from), netip.AddrPortFrom(lab.GatewayWAN, 7001), r.Host("a"), 7001, 3*time.Second)
			if err != nil || !arrived {
				t.Errorf("%s from %s: %v, %v", protocol, from, arrived, err)
			}
		}
	}
}

// onlyPorts is a policy that lets these external ports be mapped and no others.
func onlyPorts(ports string) string {
	return fmt.Sprintf("[[rule]]\nname = \"few\"\naction = \"allow\"\nexternal_ports = [%q]\n[policy]\ndefault = \"deny\"\n", ports)
}

// takeAll asks as often as there are ports, and wants another of them each time.
func takeAll(t *testing.T, first, count uint16, ask func(n uint16) (port uint16, err error)) {
	t.Helper()
	got := map[uint16]bool{}
	for n := range count {
		port, err := ask(n)
		if err != nil || port < first || port >= first+count || got[port] {
			t.Fatalf("%d: port %d, %v", n, port, err)
		}
		got[port] = true
	}
}

// TestManyPorts: H10 for UPnP. AddAny still finds a port when almost all are
// taken, and says so when none is left.
func TestManyPorts(t *testing.T) {
	t.Parallel()
	r := start(t, noRates+onlyPorts("40000-40019"))
	c := r.v2(t, "a")
	takeAll(t, 40000, 20, func(n uint16) (uint16, error) {
		return c.AddAny(t.Context(), udp(50000, 30000+n))
	})
	before := r.World(t)
	if port, err := c.AddAny(t.Context(), udp(50000, 31000)); code(err) != 728 {
		t.Errorf("port %d, %v, want 728", port, err)
	}
	r.Unchanged(t, before, "H10")
	r.refused(t, c, udp(50000, 31000), 606)
	if s := fmt.Sprint(len(r.List(t))); s != "20" {
		t.Errorf("%s mappings", s)
	}
}
