package clients

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	stnat "github.com/syncthing/syncthing/lib/nat"
	stupnp "github.com/syncthing/syncthing/lib/upnp"

	"portcullis/internal/control"
	"portcullis/internal/lab"
)

// sameDevice lets a client whose connection comes from its link-local address
// speak for its global one: it has no say in which the kernel takes.
const sameDevice = "\n[policy]\nsame_device = true\n"

// pinholes waits until the owner sees n pinholes of the laptop's global address.
func (r *rig) pinholes(n int, via string) []control.Mapping {
	r.t.Helper()
	var list []control.Mapping
	r.eventually(20*time.Second, fmt.Sprintf("%d pinholes", n), func() bool {
		list = slices.DeleteFunc(r.list(), func(m control.Mapping) bool { return m.Family != 6 })
		return len(list) >= n
	})
	for _, m := range list {
		if m.InternalIP != r.host.Addr6.String() || m.Via != via || m.ClientMAC != r.host.MAC.String() {
			r.t.Errorf("%s: listed %+v", r.client, m)
		}
	}
	matrix.saw(r.client, "opens pinholes by "+via)
	matrix.saw(r.client, "is listed")
	return list
}

// reached shows whether a packet from the Internet reaches the laptop itself.
func (r *rig) reached(protocol string, port uint16, want bool) {
	r.t.Helper()
	wait := 5 * time.Second
	if !want {
		wait = 300 * time.Millisecond
	}
	got, _, err := lab.Probe(r.t.Context(), protocol, r.Internet, netip.AddrPortFrom(r.host.Addr6, port), r.host, port, wait)
	if err != nil || got != want {
		r.t.Errorf("%s: %s %d is reached: %v, want %v; %v", r.client, protocol, port, got, want, err)
		return
	}
	if want {
		matrix.saw(r.client, "receives by "+strings.ToLower(protocol)+" over IPv6")
	}
}

// TestUpnpcPinholes: miniupnpc's own actions for pinholes, by link-local discovery.
func TestUpnpcPinholes(t *testing.T) {
	need(t, "upnpc")
	r := startSpeaking(t, "upnpc (miniupnpc), IPv6", believable, sameDevice)
	status := r.output("upnpc", "-6", "-S")
	if !strings.Contains(status, "Firewall Enabled: 1") && !strings.Contains(status, "FirewallEnabled: 1") {
		t.Errorf("-S:\n%s", status)
	}
	added := r.output("upnpc", "-6", "-A", "", "0", r.host.Addr6.String(), "9000", "UDP", "3600")
	found := regexp.MustCompile(`(?i)pinhole id ?[:=] ?(\d+)`).FindStringSubmatch(added)
	if found == nil {
		t.Fatalf("-A tells no number:\n%s", added)
	}
	id := found[1]
	m := r.pinholes(1, upnp)[0]
	r.reached("UDP", 9000, true)
	r.output("upnpc", "-6", "-U", id, "7200")
	if now := r.pinholes(1, upnp)[0]; now.ID != m.ID || now.ExpiresIn < 7000 {
		t.Errorf("-U: %+v", now)
	}
	if out := r.output("upnpc", "-6", "-C", id); !strings.Contains(out, "IsWorking = Yes") {
		t.Errorf("-C:\n%s", out)
	}
	r.output("upnpc", "-6", "-D", id)
	r.eventually(5*time.Second, "the pinhole is gone", func() bool { return len(r.list()) == 0 })
	r.reached("UDP", 9000, false)
	matrix.saw(r.client, "closes pinholes")
}

// TestSyncthingPinholes: the library that Syncthing opens pinholes with. It takes
// the address that the pinhole is for as its own.
func TestSyncthingPinholes(t *testing.T) {
	r := start(t, "syncthing lib/upnp, pinholes")
	c := r.spawn(r.process("syncthing pinholes"))
	m := r.pinholes(1, upnp)[0]
	if m.Protocol != "tcp" || m.InternalPort != 22000 {
		t.Errorf("opened %+v", m)
	}
	c.says("opened " + r.host.Addr6.String())
	r.reached("TCP", 22000, true)
	c.finish()
	r.closeAll() // the library cannot
	r.reached("TCP", 22000, false)
}

// TestBitcoinLike: PCP in the manner of Bitcoin Core: the gateways are those of
// the default routes, a link-local one for IPv6, one nonce serves both families,
// and each of the host's global addresses asks for itself.
func TestBitcoinLike(t *testing.T) {
	for name, settings := range map[string]string{"like Bitcoin Core": "", "like Bitcoin Core, strict nonces": strict} {
		t.Run(name, func(t *testing.T) {
			r := startSpeaking(t, name, "", settings)
			c := r.spawn(r.process("bitcoin"))
			r.eventually(20*time.Second, "a mapping and a pinhole", func() bool { return len(r.list()) == 2 })
			m := r.pinholes(1, pcp)[0]
			if m.InternalPort != 8333 || m.Protocol != "tcp" {
				t.Errorf("opened %+v", m)
			}
			c.says("renewed")
			r.reached("TCP", 8333, true)
			c.finish()
			r.eventually(5*time.Second, "both are gone", func() bool { return len(r.list()) == 0 })
			r.reached("TCP", 8333, false)
			matrix.saw(r.client, "closes pinholes")
		})
	}
}

// process is a client of this file in a process of its own.
func (r *rig) process(name string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "CLIENT="+name, "ADDRESS="+r.host.Addr6.String())
	return cmd
}

// pinholeClients run in processes of their own, as libraries do.
var pinholeClients = map[string]func(ctx context.Context, address string, wait func()) error{
	"syncthing pinholes": syncthingPinholes,
	"bitcoin":            bitcoin,
}

func syncthingPinholes(ctx context.Context, _ string, wait func()) error {
	devices := stupnp.Discover(ctx, 0, 3*time.Second)
	for _, d := range devices {
		if !d.SupportsIPVersion(stnat.IPv6Only) {
			continue
		}
		ips, err := d.AddPinhole(ctx, stnat.TCP, stnat.Address{IP: net.IPv6unspecified, Port: 22000}, 10*time.Minute)
		if err != nil {
			return err
		}
		for _, ip := range ips {
			fmt.Println("opened", ip)
		}
		wait()
		return nil
	}
	return errors.New("found " + strconv.Itoa(len(devices)) + " devices, none for IPv6")
}

// bitcoin asks by IPv4 and for a global IPv6 address, renews, and closes.
func bitcoin(_ context.Context, address string, wait func()) error {
	gateway6, zone, err := defaultGateway6()
	if err != nil {
		return err
	}
	nonce := []byte("twelve bytes")
	own := netip.MustParseAddr(address)
	ask := func(lifetime uint32) error {
		if err := pcpMap(netip.AddrPortFrom(lab.GatewayLAN, 5351), netip.IPv4Unspecified(), nonce, lifetime); err != nil {
			return fmt.Errorf("IPv4: %w", err)
		}
		if err := pcpMap(netip.AddrPortFrom(gateway6.WithZone(zone), 5351), own, nonce, lifetime); err != nil {
			return fmt.Errorf("IPv6: %w", err)
		}
		return nil
	}
	for range 2 {
		if err := ask(2400); err != nil {
			return err
		}
	}
	fmt.Println("renewed")
	wait()
	return ask(0)
}

// defaultGateway6 reads the kernel's table of routes.
func defaultGateway6() (netip.Addr, string, error) {
	table, err := os.ReadFile("/proc/thread-self/net/ipv6_route")
	if err != nil {
		return netip.Addr{}, "", err
	}
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) != 10 || f[1] != "00" || strings.Trim(f[0], "0") != "" || strings.Trim(f[4], "0") == "" {
			continue
		}
		raw, err := hex.DecodeString(f[4])
		if err != nil {
			return netip.Addr{}, "", err
		}
		return netip.AddrFrom16([16]byte(raw)), f[9], nil
	}
	return netip.Addr{}, "", errors.New("no IPv6 default route")
}

// pcpMap sends a MAP request for TCP port 8333 from a connected socket, three times
// at most, and believes only a reply with its nonce.
func pcpMap(gateway netip.AddrPort, own netip.Addr, nonce []byte, lifetime uint32) error {
	local := net.UDPAddrFromAddrPort(netip.AddrPortFrom(own, 0))
	conn, err := net.DialUDP("udp", local, net.UDPAddrFromAddrPort(gateway))
	if err != nil {
		return err
	}
	defer conn.Close()
	self := conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap().WithZone("")
	external := netip.IPv6Unspecified()
	if self.Is4() {
		external = netip.IPv4Unspecified()
	}
	client, suggested := self.As16(), external.As16()
	request := binary.BigEndian.AppendUint32([]byte{2, 1, 0, 0}, lifetime)
	request = append(append(request, client[:]...), nonce...)
	request = append(request, 6, 0, 0, 0)
	request = binary.BigEndian.AppendUint16(request, 8333)
	request = binary.BigEndian.AppendUint16(request, 8333)
	request = append(request, suggested[:]...)
	reply := make([]byte, 1100)
	for range 3 {
		if _, err := conn.Write(request); err != nil {
			return err
		}
		if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			return err
		}
		n, err := conn.Read(reply)
		if err != nil {
			continue
		}
		switch {
		case n < 60 || reply[0] != 2 || reply[1] != 0x81 || string(reply[24:36]) != string(nonce):
			return fmt.Errorf("not a reply: % x", reply[:n])
		case reply[3] != 0:
			return fmt.Errorf("result %d", reply[3])
		}
		got := netip.AddrPortFrom(netip.AddrFrom16([16]byte(reply[44:60])).Unmap(), binary.BigEndian.Uint16(reply[42:]))
		if want := netip.AddrPortFrom(self, 8333); self.Is6() && lifetime > 0 && got != want {
			return fmt.Errorf("external %v, want %v", got, want)
		}
		fmt.Println("external", got)
		return nil
	}
	return errors.New("no reply")
}
