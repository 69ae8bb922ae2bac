package identify_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/internal/datagram"
	"portcullis/internal/identify"
	"portcullis/internal/netif"
	"portcullis/internal/slog"
	"portcullis/portmap"
)

const (
	lanIndex = 3
	wanIndex = 2
)

var (
	addr    = netip.MustParseAddr
	router  = addr("192.168.1.1") // the gateway itself
	host    = addr("192.168.1.10")
	other   = addr("192.168.1.20")
	absent  = addr("192.168.1.30")
	inner   = addr("192.168.1.40") // a router of the owner's
	routed  = addr("10.9.0.7")     // a host behind it
	host6   = addr("2001:db8::10") // of the same device as host
	other6  = addr("2001:db8::20")
	late6   = addr("2001:db8::30") // the device of host answers for it after a while
	hostMAC = portmap.MAC{2, 0, 0, 0, 0, 0x10}
	someMAC = portmap.MAC{2, 0, 0, 0, 0, 0x20}
	wayMAC  = portmap.MAC{2, 0, 0, 0, 0, 0x40}
	// zeroMAC ends as no address does that is not known.
	zeroMAC = portmap.MAC{2, 1, 0, 0, 0, 0}
)

// kernel is a neighbour table of one link, and its routes.
type kernel struct {
	mu       sync.Mutex                    // guards what follows
	entries  map[netip.Addr]netif.Sighting // whose MAC address is known
	lateness int                           // questions for late6 until it is answered
	asked    []netip.Addr
	broken   error
}

func (k *kernel) Sight(_ int, a netip.Addr) (netif.Sighting, bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s, known := k.entries[a]
	return s, known, k.broken
}

func (k *kernel) Neighbour(ifindex int, a netip.Addr) ([6]byte, bool, error) {
	s, known, err := k.Sight(ifindex, a)
	return s.MAC, known, err
}

func (k *kernel) resolve(_ string, a netip.Addr) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked = append(k.asked, a)
	if k.lateness--; a == late6 && k.lateness == 0 {
		k.entries[a] = netif.Sighting{MAC: hostMAC, Answered: true}
	}
	return nil
}

func (k *kernel) NextHop(_, to netip.Addr) (int, netip.Addr, error) {
	if netip.MustParsePrefix("10.9.0.0/24").Contains(to) {
		return lanIndex, inner, nil
	}
	return wanIndex, to, nil
}

func (k *kernel) MACEnding(_ int, ending []byte) (mac [6]byte, found bool, err error) {
	for _, s := range k.entries {
		if bytes.HasSuffix(s.MAC[:], ending) {
			return s.MAC, true, nil
		}
	}
	return mac, false, nil
}

// wasAsked compares whom the kernel was told to ask for.
func (k *kernel) wasAsked(t *testing.T, want ...netip.Addr) {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.asked) != len(want) || len(want) > 0 && k.asked[0] != want[0] {
		t.Errorf("the kernel was asked for %v, want %v", k.asked, want)
	}
	k.asked = nil
}

// rig is an Identifier of a machine with two LANs, one of them a link without MAC
// addresses.
type rig struct {
	*identify.Identifier
	kernel *kernel
	log    bytes.Buffer
	looks  int
}

func newRig(change ...func(*identify.Config)) *rig {
	r := &rig{kernel: &kernel{entries: map[netip.Addr]netif.Sighting{
		host:   {MAC: hostMAC, Answered: true},
		host6:  {MAC: hostMAC, Answered: true},
		other:  {MAC: someMAC},
		other6: {MAC: someMAC},
		inner:  {MAC: wayMAC, Answered: true},
	}}}
	direct := []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24"), netip.MustParsePrefix("2001:db8::/64")}
	cfg := identify.Config{
		Log: slog.New(slog.NewTextHandler(&r.log, nil)), Kernel: r.kernel,
		LANs: func() map[string]netif.LAN {
			return map[string]netif.LAN{
				"br-lan": {
					Name: "br-lan", Index: lanIndex, MAC: [6]byte{2}, Addr: router, Addrs: []netip.Addr{router}, Direct: direct,
					Prefixes: append([]netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")}, direct...),
				},
				"wg0": {Name: "wg0", Index: 9, Prefixes: []netip.Prefix{netip.MustParsePrefix("10.8.0.0/24")}},
			}
		},
		Heard:      func(mac portmap.MAC) bool { return false },
		SameDevice: true,
		Resolve:    r.kernel.resolve,
		Suspect:    func() { r.looks++ },
	}
	for _, f := range change {
		f(&cfg)
	}
	r.Identifier = identify.New(cfg)
	return r
}

// TestClient: a connection's client is who the neighbour table says; one that is not known yet is asked for, one of another network is refused.
func TestClient(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		iface string
		addr  netip.Addr
		want  portmap.Client
		err   string
		asked []netip.Addr
	}{
		"known":              {"br-lan", host, portmap.Client{Addr: host, MAC: hostMAC, Interface: "br-lan"}, "", nil},
		"without an answer":  {"br-lan", other, portmap.Client{Addr: other, MAC: someMAC, Interface: "br-lan", Unheard: true}, "", nil},
		"behind a router":    {"br-lan", routed, portmap.Client{Addr: routed, Interface: "br-lan"}, "", nil},
		"no MAC addresses":   {"wg0", addr("10.8.0.2"), portmap.Client{Addr: addr("10.8.0.2"), Interface: "wg0"}, "", nil},
		"not known yet":      {"br-lan", absent, portmap.Client{Addr: absent, Interface: "br-lan"}, "not known yet", []netip.Addr{absent}},
		"not of the LAN":     {"br-lan", addr("203.0.113.9"), portmap.Client{}, "203.0.113.9 is not on br-lan", nil},
		"of another LAN":     {"wg0", host, portmap.Client{}, "192.168.1.10 is not on wg0", nil},
		"of no LAN":          {"eth9", host, portmap.Client{}, "eth9 is not served", nil},
		"the gateway itself": {"br-lan", router, portmap.Client{Addr: router, Interface: "br-lan"}, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig()
			got, err := r.Client(c.iface, c.addr)
			if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("%+v, error %v; want %+v, error %q", got, err, c.want, c.err)
			}
			r.kernel.wasAsked(t, c.asked...)
		})
	}
	r := newRig(func(c *identify.Config) { c.Heard = func(mac portmap.MAC) bool { return mac == someMAC } })
	if c, err := r.Client("br-lan", other); err != nil || c.Unheard {
		t.Errorf("a device that answered earlier is %+v, error %v", c, err)
	}
	r.kernel.broken = errors.New("broken")
	if _, err := r.Client("br-lan", host); !errors.Is(err, r.kernel.broken) || errors.Is(err, portmap.ErrUnknownHost) {
		t.Errorf("with a broken kernel: %v", err)
	}
}

// TestDevice: K2. One machine has one key, whatever addresses it has; where it has no MAC
// address the key is its address.
func TestDevice(t *testing.T) {
	t.Parallel()
	r := newRig()
	for _, c := range []struct {
		iface string
		addr  netip.Addr
		want  string
		known bool
	}{
		{"br-lan", host, "br-lan 02:00:00:00:00:10", true},
		{"br-lan", host6, "br-lan 02:00:00:00:00:10", true},
		{"br-lan", netip.AddrFrom16(host.As16()), "br-lan 02:00:00:00:00:10", true},
		{"br-lan", host6.WithZone("br-lan"), "br-lan 02:00:00:00:00:10", true},
		{"br-lan", absent, "br-lan 192.168.1.30", false},
		{"br-lan", routed, "br-lan 10.9.0.7", false},
		{"eth9", host, "eth9 192.168.1.10", false},
	} {
		if got, known := r.Device(c.iface, c.addr); got != c.want || known != c.known {
			t.Errorf("%s on %s: %q, %v; want %q, %v", c.addr, c.iface, got, known, c.want, c.known)
		}
	}
	r.kernel.broken = errors.New("broken")
	if got, known := r.Device("br-lan", host); got != "br-lan 192.168.1.10" || known {
		t.Errorf("with a broken kernel: %q, %v", got, known)
	}
}

// TestAs: a client speaks for its own device's addresses only (policy.same_device), and
// waits 310 ms at most for the device to answer for one.
func TestAs(t *testing.T) {
	t.Parallel()
	client := portmap.Client{Addr: host6, MAC: hostMAC, Interface: "br-lan", Via: portmap.ViaUPnP}
	for name, c := range map[string]struct {
		client   portmap.Client
		target   netip.Addr
		lateness int
		same     bool // policy.same_device
		ok       bool
		after    time.Duration
	}{
		"itself":                       {client, host6, 0, false, true, 0},
		"another address of its own":   {client, host, 0, true, true, 0},
		"of another device":            {client, other6, 0, true, false, 0},
		"not allowed":                  {client, host, 0, false, false, 0},
		"of a host without a MAC":      {portmap.Client{Addr: routed, Interface: "br-lan"}, host, 0, true, false, 0},
		"of another network":           {client, addr("2001:db8:ffff::1"), 0, true, false, 0},
		"nobody's":                     {client, absent, 0, true, false, 310 * time.Millisecond},
		"its own, that answers late":   {client, late6, 3, true, true, 70 * time.Millisecond},
		"its own, that comes too late": {client, late6, 7, true, false, 310 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := newRig(func(cfg *identify.Config) { cfg.SameDevice = c.same })
				r.kernel.lateness = c.lateness
				began := time.Now()
				got, err := r.As(c.client, c.target)
				if (err == nil) != c.ok || c.ok && (got.Addr != c.target || got.MAC != hostMAC || got.Via != portmap.ViaUPnP) {
					t.Errorf("%+v, error %v", got, err)
				}
				if d := time.Since(began); d != c.after {
					t.Errorf("after %v, want %v", d, c.after)
				}
			})
		})
	}
}

// from is a datagram with a source address, of a frame of which some of the source
// address is known.
func from(source netip.Addr, mac portmap.MAC, known int) datagram.Packet {
	s := datagram.Sender{MAC: mac, Known: known}
	clear(s.MAC[:len(mac)-known])
	return datagram.Packet{Source: netip.AddrPortFrom(source, 40000), Destination: router, Sender: s}
}

// TestSender: C11, H9. Nobody asks in another machine's name: the frame comes from the
// machine that has the source address, or from the router behind which it is.
func TestSender(t *testing.T) {
	t.Parallel()
	link := func(mac portmap.MAC, known int) datagram.Device {
		return datagram.Device{Interface: "br-lan", Sender: from(host, mac, known).Sender}
	}
	for name, c := range map[string]struct {
		iface   string
		packet  datagram.Packet
		client  portmap.MAC
		account datagram.Account
		err     string
		asked   []netip.Addr
	}{
		"its own address":     {"br-lan", from(host, hostMAC, 6), hostMAC, datagram.Account{Device: link(hostMAC, 6)}, "", nil},
		"by the mark":         {"br-lan", from(host, hostMAC, 4), hostMAC, datagram.Account{Device: link(hostMAC, 4)}, "", nil},
		"another's address":   {"br-lan", from(host, someMAC, 6), hostMAC, datagram.Account{Device: link(someMAC, 6)}, "another machine sent it", []netip.Addr{host}},
		"another's, by mark":  {"br-lan", from(host, someMAC, 4), hostMAC, datagram.Account{Device: link(someMAC, 4)}, "another machine sent it", []netip.Addr{host}},
		"nobody's address":    {"br-lan", from(absent, someMAC, 6), portmap.MAC{}, datagram.Account{Device: link(someMAC, 6), Class: datagram.Stranger}, "not known yet", nil},
		"of no frame":         {"br-lan", from(host, hostMAC, 0), hostMAC, datagram.Account{}, "not seen which machine", nil},
		"nobody's, all zeros": {"br-lan", from(absent, zeroMAC, 4), portmap.MAC{}, datagram.Account{Device: link(zeroMAC, 4), Class: datagram.Stranger}, "not known yet", nil},
		"by its router": {"br-lan", from(routed, wayMAC, 6), portmap.MAC{}, datagram.Account{
			Device: datagram.Device{Interface: "br-lan", Sender: from(host, wayMAC, 6).Sender, Addr: routed}, Class: datagram.Routed,
		}, "", nil},
		"routed, by a neighbour": {"br-lan", from(routed, someMAC, 6), portmap.MAC{}, datagram.Account{
			Device: datagram.Device{Interface: "br-lan", Sender: from(host, someMAC, 6).Sender, Addr: routed}, Class: datagram.Routed,
		}, "another machine sent it", []netip.Addr{inner}},
		"routed elsewhere": {"br-lan", from(addr("10.9.99.1"), someMAC, 6), portmap.MAC{}, datagram.Account{
			Device: datagram.Device{Interface: "br-lan", Sender: from(host, someMAC, 6).Sender, Addr: addr("10.9.99.1")}, Class: datagram.Routed,
		}, "not behind this interface", nil},
		"of another network": {"br-lan", from(addr("203.0.113.9"), someMAC, 6), portmap.MAC{}, datagram.Account{}, "is not on br-lan", nil},
		"no MAC addresses": {"wg0", from(addr("10.8.0.2"), portmap.MAC{}, 0), portmap.MAC{}, datagram.Account{
			Device: datagram.Device{Interface: "wg0", Addr: addr("10.8.0.2")},
		}, "", nil},
		"of no LAN": {"eth9", from(host, hostMAC, 6), portmap.MAC{}, datagram.Account{}, "eth9 is not served", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig()
			client, account, err := r.Sender(c.iface, c.packet)
			if client.MAC != c.client || account != c.account || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("%+v, %+v, error %v; want %v, %+v, error %q", client, account, err, c.client, c.account, c.err)
			}
			r.kernel.wasAsked(t, c.asked...)
		})
	}
}

// TestForgedReport: the owner reads whose frame it was, in full where the neighbour table
// knows it, and whose address.
func TestForgedReport(t *testing.T) {
	t.Parallel()
	for sender, want := range map[datagram.Sender]string{
		from(host, someMAC, 4).Sender: "sender=02:00:00:00:00:20",
		from(host, zeroMAC, 4).Sender: "sender=..:..:00:00:00:00",
	} {
		r := newRig()
		p := from(host, hostMAC, 6)
		p.Sender = sender
		if _, _, err := r.Sender("br-lan", p); err == nil {
			t.Error("a forged datagram was taken")
		}
		if text := r.log.String(); !strings.Contains(text, want) || !strings.Contains(text, "mac=02:00:00:00:00:10") || !strings.Contains(text, "address=192.168.1.10") {
			t.Errorf("the owner reads %s, want %s", text, want)
		}
	}
}

// TestSeek: the kernel is told to ask for the machine to which an answer would go: on the
// link the host, else its router; and for nobody elsewhere.
func TestSeek(t *testing.T) {
	t.Parallel()
	r := newRig()
	for _, c := range []struct {
		iface  string
		source netip.Addr
		want   []netip.Addr
	}{
		{"br-lan", absent, []netip.Addr{absent}},
		{"br-lan", routed, []netip.Addr{inner}},
		{"br-lan", addr("10.9.99.1"), nil},
		{"eth9", host, nil},
	} {
		r.Seek(c.iface, from(c.source, someMAC, 6))
		r.kernel.wasAsked(t, c.want...)
	}
}

// TestAccount: K1, K2. A search is charged to the machine that sent it; a host on the link
// with its own address, and nobody else, spends what is kept for such.
func TestAccount(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		iface  string
		packet datagram.Packet
		want   datagram.Account
	}{
		"its own address":   {"br-lan", from(host, hostMAC, 4), datagram.Account{Device: datagram.Device{Interface: "br-lan", Sender: from(host, hostMAC, 4).Sender}}},
		"another's address": {"br-lan", from(host, someMAC, 4), datagram.Account{Device: datagram.Device{Interface: "br-lan", Sender: from(host, someMAC, 4).Sender}, Class: datagram.Stranger}},
		"nobody's address":  {"br-lan", from(absent, someMAC, 4), datagram.Account{Device: datagram.Device{Interface: "br-lan", Sender: from(host, someMAC, 4).Sender}, Class: datagram.Stranger}},
		// What is not known has the MAC address of zeros.
		"nobody's, all zeros": {"br-lan", from(absent, zeroMAC, 4), datagram.Account{Device: datagram.Device{Interface: "br-lan", Sender: from(host, zeroMAC, 4).Sender}, Class: datagram.Stranger}},
		"of no frame":         {"br-lan", from(host, hostMAC, 0), datagram.Account{Device: datagram.Device{Interface: "br-lan", Sender: datagram.Sender{MAC: hostMAC, Known: 6}}}},
		"nobody's, no frame":  {"br-lan", from(absent, hostMAC, 0), datagram.Account{Device: datagram.Device{Interface: "br-lan", Addr: absent}, Class: datagram.Stranger}},
		"no MAC addresses":    {"wg0", from(addr("10.8.0.2"), portmap.MAC{}, 0), datagram.Account{Device: datagram.Device{Interface: "wg0", Addr: addr("10.8.0.2")}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := newRig().Account(c.iface, c.packet); got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

// TestRateOfOneLAN: K2. Whoever takes the MAC address, or the address, of another LAN's machine
// spends nothing that is that machine's.
func TestRateOfOneLAN(t *testing.T) {
	t.Parallel()
	r := newRig(func(c *identify.Config) {
		lans := c.LANs()
		iot := lans["br-lan"]
		iot.Name, iot.Index = "br-iot", lanIndex+1
		lans["br-iot"] = iot
		wg1 := lans["wg0"]
		wg1.Name, wg1.Index = "wg1", lanIndex+2
		lans["wg1"] = wg1
		c.LANs = func() map[string]netif.LAN { return lans }
	})
	now, served := time.Now(), map[string]int{}
	limits := datagram.NewLimits(10, 10, 1000, 100)
	for _, iface := range []string{"br-iot", "br-lan", "wg1", "wg0"} {
		packet := from(host, hostMAC, 6)
		if strings.HasPrefix(iface, "wg") {
			packet = from(addr("10.8.0.2"), portmap.MAC{}, 0)
		}
		for range 100 {
			_, asked, err := r.Sender(iface, packet)
			if err != nil {
				t.Fatal(err)
			}
			for i, account := range []datagram.Account{asked, r.Account(iface, packet)} {
				if limits.Allow(now, account, 1) {
					served[fmt.Sprint(iface, i)]++
				}
			}
		}
	}
	for _, iface := range []string{"br-iot", "br-lan", "wg1", "wg0"} {
		if n := served[iface+"0"] + served[iface+"1"]; n != 10 {
			t.Errorf("on %s %d were served", iface, n)
		}
	}
}

// TestUnseenLooks: a host whose frames are never seen, by its choice of MAC address, does
// not have the kernel's rules looked at without end.
func TestUnseenLooks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const burst, minutes = 3, 10
		r := newRig()
		for range minutes * 60 * 2 {
			if _, _, err := r.Sender("br-lan", from(host, hostMAC, 0)); err == nil {
				t.Fatal("a datagram of no frame was taken")
			}
			time.Sleep(time.Second / 2) // each could have a look of its own
		}
		if r.looks < burst || r.looks > burst+minutes {
			t.Errorf("looked %d times in %d minutes", r.looks, minutes)
		}
	})
}
