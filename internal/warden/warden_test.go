package warden

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/firewall"
	"portcullis/firewall/fwtest"
	"portcullis/internal/approvals"
	"portcullis/internal/dhcp"
	"portcullis/internal/gateway"
	"portcullis/internal/netif"
	"portcullis/internal/slog"
	"portcullis/internal/wiring"
	"portcullis/portmap"
)

// backend is a firewall in memory, of which the rest is not asked.
type backend struct {
	wiring.Backend
	*fwtest.Fake
	replaced error
	counters map[uint64]firewall.Counter
}

func (b *backend) Apply(ctx context.Context, add, del []portmap.Mapping) error {
	return b.Fake.Apply(ctx, add, del)
}

func (b *backend) Replace(ctx context.Context, want []portmap.Mapping) error {
	return errors.Join(b.Fake.Replace(ctx, want), b.replaced)
}

func (b *backend) Counter(_ context.Context, id uint64) (firewall.Counter, error) {
	c, known := b.counters[id]
	if !known {
		return c, errors.New("there is no such counter")
	}
	return c, nil
}

func (b *backend) CountersOf(ctx context.Context, ids []uint64) (map[uint64]firewall.Counter, error) {
	all := make(map[uint64]firewall.Counter)
	for _, id := range ids {
		c, err := b.Counter(ctx, id)
		if err != nil {
			return nil, err
		}
		all[id] = c
	}
	return all, nil
}

func (b *backend) Counters(context.Context) (map[uint64]firewall.Counter, error) {
	if b.counters == nil {
		return nil, errors.New("there are no counters")
	}
	return b.counters, nil
}

func (b *backend) Repaired() uint64 { return 7 }

type everything struct{}

func (everything) Decide(portmap.Request, portmap.Facts) portmap.Decision {
	return portmap.Decision{Action: portmap.Allow}
}

// neighbours is a kernel that has these, all of which have answered, and is asked for nothing
// else.
type neighbours struct {
	Kernel
	macs map[netip.Addr]portmap.MAC
}

func (n neighbours) Sight(_ int, addr netip.Addr) (netif.Sighting, bool, error) {
	mac, known := n.macs[addr]
	return netif.Sighting{MAC: mac, Answered: known, Seen: known}, known, nil
}

// lan is the one that there is, with these prefixes.
func lan(prefixes ...string) netif.Roles {
	l := netif.LAN{Name: "lan0", Index: 2, MAC: [6]byte{2, 0, 0, 0, 0, 1}}
	for _, p := range prefixes {
		l.Prefixes = append(l.Prefixes, netip.MustParsePrefix(p))
	}
	l.Direct = l.Prefixes
	return netif.Roles{LAN: []netif.LAN{l}, WAN: netif.WAN{Uplink: netif.Uplink{Name: "wan0", Up: true}, External: netip.MustParseAddr("203.0.113.1")}}
}

// newWarden returns one whose engine runs, with a mapping and pinholes in two networks.
func newWarden(t *testing.T, log *bytes.Buffer) (*Warden, *backend) {
	t.Helper()
	b := &backend{Fake: new(fwtest.Fake)}
	w := &Warden{log: slog.New(slog.NewTextHandler(log, nil)), firewall: b, backend: "fake", version: "1", started: time.Now()}
	macs := map[netip.Addr]portmap.MAC{}
	for _, host := range []string{"192.168.1.10", "192.168.1.11", "2001:db8:1::10", "2001:db8:2::10"} {
		macs[netip.MustParseAddr(host)] = portmap.MAC{2, 1}
	}
	w.kernel = neighbours{macs: macs}
	w.network = gateway.New(gateway.Config{
		Listening: func(context.Context) (netif.Ports, error) { return netif.NewPorts(nil), nil },
		Forwarded: func(context.Context) (*firewall.Forwards, error) { return &firewall.Forwards{}, nil },
	})
	w.Learn(netif.State{}, lan("192.168.1.0/24", "2001:db8:1::/64", "2001:db8:2::/64"))
	var err error
	w.engine, err = portmap.NewEngine(portmap.EngineConfig{Policy: everything{}, Firewall: patient{b}, Gateway: w.network, LeaseMax: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	w.approvals = approvals.Open(w.log, nil, nil)
	w.approvals.Start(w.engine)
	w.Reader, w.names = w.engine.Reader, dhcp.New(dhcp.Config{})
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = w.engine.Run(ctx) })
	t.Cleanup(func() {
		stop()
		running.Wait()
	})
	for _, host := range []string{"192.168.1.10:42000", "[2001:db8:1::10]:42000", "[2001:db8:2::10]:42000"} {
		at := netip.MustParseAddrPort(host)
		r := portmap.Request{
			Client: portmap.Client{Addr: at.Addr(), MAC: portmap.MAC{2, 1}, Interface: "lan0", Via: portmap.ViaUPnP},
			Kind:   portmap.Pinhole6, Transport: portmap.TCP, Internal: at, Lifetime: time.Hour,
		}
		if at.Addr().Is4() {
			r.Kind = portmap.NAT4
		}
		if _, err := w.Map(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	return w, b
}

// hosts returns what mappings lead to.
func hosts(w *Warden) string {
	var all []string
	for m := range w.engine.Snapshot().All() {
		all = append(all, m.Internal.Addr().String())
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// TestDropForeign: the pinholes of a prefix that has left the LAN end, and no other
// mapping does; the owner reads why.
func TestDropForeign(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		w, _ := newWarden(t, &log)
		w.dropForeign(t.Context())
		if got := hosts(w); got != "192.168.1.10 2001:db8:1::10 2001:db8:2::10" {
			t.Errorf("mapped are %s", got)
		}
		w.Learn(netif.State{}, lan("2001:db8:2::/64"))
		w.dropForeign(t.Context())
		if got := hosts(w); got != "192.168.1.10 2001:db8:2::10" {
			t.Errorf("mapped are %s", got)
		}
		w.Learn(netif.State{}, netif.Roles{})
		w.dropForeign(t.Context())
		if got := hosts(w); got != "192.168.1.10" {
			t.Errorf("mapped are %s", got)
		}
		if text := log.String(); strings.Count(text, `why="its network is not on the LAN any more"`) != 2 {
			t.Errorf("the owner reads\n%s", text)
		}
	})
}

// TestRevoke: a mapping that ended meanwhile is no error, one that cannot be ended is
// told.
func TestRevoke(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		w, b := newWarden(t, &log)
		for m := range w.engine.Snapshot().All() {
			b.Fail(&portmap.Error{Reason: portmap.FirewallFailed})
			w.revoke(t.Context(), m, portmap.Revoked, "a test")
			w.revoke(t.Context(), m, portmap.Revoked, "a test")
			w.revoke(t.Context(), m, portmap.Revoked, "a test")
			break
		}
		text := log.String()
		if strings.Count(text, "cannot revoke a mapping") != 1 || strings.Count(text, "mapping revoked") != 1 || strings.Count(text, "\n") != 2 {
			t.Errorf("the owner reads\n%s", text)
		}
	})
}

// TestPatient: an accept chain that is not there yet does not keep the gateway from
// starting; any other error of the firewall does.
func TestPatient(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for _, c := range []struct{ err, want error }{{nil, nil}, {&firewall.ChainError{}, nil}, {broken, broken}} {
		b := &backend{Fake: new(fwtest.Fake), replaced: c.err}
		if err := (patient{b}).Replace(t.Context(), nil); !errors.Is(err, c.want) {
			t.Errorf("%v becomes %v, want %v", c.err, err, c.want)
		}
	}
}

// TestStatus: what `portcullis status` shows is of the table, the network and the
// firewall as they are now.
func TestStatus(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWarden(t, new(bytes.Buffer))
		time.Sleep(90 * time.Second)
		s := w.status()
		if s.Mappings != 1 || s.Pinholes != 2 || s.Uptime != 90 || s.Firewall.Backend != "fake" || s.Firewall.DriftRepaired != 7 ||
			s.Firewall.Senders != "" || s.WAN.ExternalIP != "203.0.113.1" || !s.WAN.Up || len(s.LAN) != 1 || len(s.LAN[0].Prefixes) != 3 {
			t.Errorf("the status is %+v", s)
		}
		m := portmap.Mapping{ID: 3}
		if _, err := w.traffic(t.Context(), []uint64{3}); err == nil {
			t.Error("there is traffic without counters")
		}
		b.counters = map[uint64]firewall.Counter{3: {Packets: 5, Bytes: 500}}
		traffic, err := w.traffic(t.Context(), []uint64{3})
		if err != nil || traffic[m.ID].Bytes != 500 || len(traffic) != 1 {
			t.Errorf("error %v", err)
		}
		if n, err := w.Packets(t.Context(), m); n != 5 || err != nil {
			t.Errorf("%d packets, error %v", n, err)
		}
		if _, err := w.Packets(t.Context(), portmap.Mapping{ID: 4}); err == nil {
			t.Error("a mapping without a counter has one")
		}
		w.Learn(netif.State{}, netif.Roles{})
		if s := w.status(); s.WAN.ExternalIP != "" || s.LAN == nil {
			t.Errorf("without a network the status is %+v", s)
		}
	})
}

// TestNoWitness: where nobody sees who sends datagrams, there are no rules to suspect.
func TestNoWitness(t *testing.T) {
	t.Parallel()
	w := new(Warden)
	w.Suspect()
	if w.SeesSenders() || w.seeSenders(t.Context(), lan()) != nil {
		t.Error("somebody sees senders")
	}
}

// TestNames: a client is called what its DHCP server says, and not what the front says.
func TestNames(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, _ := newWarden(t, new(bytes.Buffer))
		leases := filepath.Join(t.TempDir(), "leases")
		text := fmt.Sprintf("%d 02:01:00:00:00:00 192.168.1.10 console *\n", time.Now().Add(time.Hour).Unix())
		if err := os.WriteFile(leases, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		w.names = dhcp.New(dhcp.Config{Files: []string{"dnsmasq:" + leases}, Log: w.log})
		w.names.Look(time.Now())
		for host, want := range map[string]string{"192.168.1.10": "console", "192.168.1.11": ""} {
			at := netip.AddrPortFrom(netip.MustParseAddr(host), 43000)
			r := portmap.Request{
				Client:    portmap.Client{Addr: at.Addr(), MAC: portmap.MAC{2, 1}, Interface: "lan0", Via: portmap.ViaPCP, Name: "forged"},
				Transport: portmap.UDP, Internal: at,
			}
			one, err := w.Map(t.Context(), r)
			if err != nil || one.Client.Name != want {
				t.Errorf("%s is called %q, want %q; error %v", host, one.Client.Name, want, err)
			}
			r.Internal = netip.AddrPortFrom(at.Addr(), 44000)
			set, err := w.MapSet(t.Context(), r, 2)
			if err != nil || len(set) != 2 || set[1].Client.Name != want {
				t.Errorf("%s: a set of %v, error %v", host, set, err)
			}
		}
	})
}

// TestNoMACs: on a link without MAC addresses no host has one, nor a name that DHCP gave to
// one, whatever the front says; nor a quota for each that it says.
func TestNoMACs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, _ := newWarden(t, new(bytes.Buffer))
		leases := filepath.Join(t.TempDir(), "leases")
		text := fmt.Sprintf("%[1]d 02:01:00:00:00:00 10.30.0.2 console *\n%[1]d 02:01:00:00:00:00 192.168.1.10 console *\n", time.Now().Add(time.Hour).Unix())
		if err := os.WriteFile(leases, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		w.names = dhcp.New(dhcp.Config{Files: []string{"dnsmasq:" + leases}, Log: w.log})
		w.names.Look(time.Now())
		r := lan("192.168.1.0/24")
		r.LAN = append(r.LAN, netif.LAN{Name: "tun0", Index: 3, Prefixes: prefixes("10.30.0.0/24", "2001:db8:3::/64"), Direct: prefixes("10.30.0.0/24", "2001:db8:3::/64")})
		w.Learn(netif.State{}, r)
		devices := map[portmap.Device]bool{}
		for _, host := range []string{"10.30.0.2", "2001:db8:3::2"} {
			for last := range byte(3) {
				at := netip.AddrPortFrom(netip.MustParseAddr(host), 43000+10*uint16(last))
				q := portmap.Request{
					Client:    portmap.Client{Addr: at.Addr(), MAC: portmap.MAC{2, 1, 5: last}, Interface: "tun0", Via: portmap.ViaPCP, Unheard: true},
					Transport: portmap.UDP, Internal: at,
				}
				if at.Addr().Is6() {
					q.Kind = portmap.Pinhole6
				}
				one, err := w.Map(t.Context(), q)
				set := []portmap.Mapping{one}
				if err == nil && at.Addr().Is4() {
					q.Internal = netip.AddrPortFrom(at.Addr(), at.Port()+2)
					set, err = w.MapSet(t.Context(), q, 2)
				}
				if err != nil {
					t.Fatal(host, err)
				}
				for _, m := range append(set, one) {
					devices[m.Client.ID().Device()] = true
					if c := m.Client; c.MAC != (portmap.MAC{}) || c.Name != "" || c.Unheard {
						t.Errorf("a mapping of %+v", c)
					}
				}
			}
		}
		if len(devices) != 2 {
			t.Errorf("the two addresses have the quotas of %v", devices)
		}
	})
}
