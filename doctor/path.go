package doctor

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"portcullis/firewall"
	"portcullis/firewall/nft"
	"portcullis/portmap"
)

// Setup is the machine as far as a packet on its way sees it.
type Setup struct {
	Ruleset  string           // as `nft list ruleset` prints it
	Links    []string         // names of all interfaces
	Gateway  firewall.Gateway // with the names of WAN and LAN
	External netip.Addr       // of the WAN
	LAN      netip.Prefix     // the gateway's address on the LAN, with the length of the network
	LAN6     netip.Prefix     // the same of IPv6; invalid: none
}

// Trial is what became of packets in the copy.
type Trial struct {
	Skipped          string // why there was none; "" when there was
	Mapping, Pinhole Verdict
}

// Verdict is on one packet.
type Verdict struct {
	Tried, Passed bool
	Blame         string // "inet owner forward": the base chain without which it passes; "" where none is found
	OfIPTables    bool   // that belongs to iptables
}

const (
	trialPort = 40321
	patience  = 700 * time.Millisecond
	mostLinks = 256
)

var (
	outside  = netip.MustParseAddr("20.20.20.20") // a host of the Internet, in a namespace of ours
	outside6 = netip.MustParseAddr("2a00:1450::77")
	near     = netip.MustParsePrefix("fe80::1/64")
	far      = netip.MustParsePrefix("fe80::2/64")
)

// Try builds three namespaces: the gateway with a copy of its rules and interfaces
// of the same names, a host on its LAN and one of the Internet. It opens a mapping
// there and sends a packet to it. Where it does not arrive, the base chains of others
// are taken away one after the other, until it does. Then the same with a pinhole.
func Try(ctx context.Context, s Setup) (Trial, error) {
	var t Trial
	var err error
	if t.Mapping, err = try(ctx, s, false); err != nil {
		return t, err
	}
	if s.LAN6.IsValid() && len(s.Gateway.WAN6) > 0 && s.Gateway.WAN6[0] == s.Gateway.WAN[0].Interface {
		t.Pinhole, err = try(ctx, s, true)
	}
	return t, err
}

func try(ctx context.Context, s Setup, six bool) (Verdict, error) {
	c, err := build(ctx, s)
	defer c.close()
	if err != nil {
		return Verdict{}, err
	}
	b, err := nft.Open(ctx, nft.Config{Log: slog.New(slog.NewTextHandler(io.Discard, nil)), NetNS: int(c.gateway.ns)})
	if err != nil {
		return Verdict{}, err
	}
	defer func() { _ = b.Close(context.WithoutCancel(ctx), true) }() // it ends with the namespace
	if err := b.Prepare(s.Gateway); err != nil {
		return Verdict{}, err
	}
	var chain *firewall.ChainError
	if err := b.Replace(ctx, c.mappings(s)); err != nil && !errors.As(err, &chain) {
		return Verdict{}, err // a chain that is wrong shows by the packet
	}
	to := netip.AddrPortFrom(s.External, trialPort)
	if six {
		to = netip.AddrPortFrom(c.host6, trialPort)
	}
	return c.judge(ctx, to)
}

// copied is the copy.
type copied struct {
	gateway, inside, internet *space
	host, host6               netip.Addr
}

// space is one namespace.
type space struct {
	ns netns.NsHandle
	h  *netlink.Handle
}

func newSpace() (*space, error) {
	type result struct {
		ns  netns.NsHandle
		err error
	}
	made := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		ns, err := netns.New()
		made <- result{ns, err}
	}()
	r := <-made
	if r.err != nil {
		return nil, fmt.Errorf("a network namespace: %w", r.err)
	}
	h, err := netlink.NewHandleAt(r.ns)
	if err != nil {
		return nil, errors.Join(err, r.ns.Close())
	}
	return &space{r.ns, h}, nil
}

func (s *space) close() {
	if s != nil {
		s.h.Close()
		_ = s.ns.Close()
	}
}

// in runs f on a thread of the namespace.
func (s *space) in(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := netns.Set(s.ns); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

func (c *copied) close() {
	c.gateway.close()
	c.inside.close()
	c.internet.close()
}

func build(ctx context.Context, s Setup) (c *copied, err error) {
	c = &copied{}
	for _, x := range []**space{&c.gateway, &c.inside, &c.internet} {
		if *x, err = newSpace(); err != nil {
			return c, err
		}
	}
	c.host = other(s.LAN)
	wan, lan := s.Gateway.WAN[0].Interface, s.Gateway.LAN[0]
	err = errors.Join(
		c.gateway.in(func() error {
			return errors.Join(
				os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0),
				ignoreMissing(os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0)),
			)
		}),
		wire(c.gateway, wan, c.internet), wire(c.gateway, lan, c.inside),
		c.gateway.address(wan, netip.PrefixFrom(s.External, 32)), c.gateway.route(wan, netip.PrefixFrom(outside, 32), netip.Addr{}),
		c.gateway.address(lan, s.LAN),
		c.internet.address("port", netip.PrefixFrom(outside, 32)), c.internet.route("port", netip.PrefixFrom(s.External, 32), netip.Addr{}),
		c.inside.address("port", netip.PrefixFrom(c.host, s.LAN.Bits())),
		c.inside.route("port", netip.MustParsePrefix("0.0.0.0/0"), s.LAN.Addr()),
	)
	if err == nil && s.LAN6.IsValid() {
		err = c.build6(wan, lan, s.LAN6)
	}
	if err == nil {
		err = c.load(ctx, s)
	}
	return c, err
}

func (c *copied) build6(wan, lan string, p netip.Prefix) error {
	c.host6 = other(p)
	return errors.Join(
		c.gateway.address(wan, near), c.gateway.address(lan, near), c.gateway.address(lan, p),
		c.gateway.route(wan, netip.PrefixFrom(outside6, 128), far.Addr()),
		c.internet.address("port", far), c.internet.address("port", netip.PrefixFrom(outside6, 128)),
		c.internet.route("port", p.Masked(), near.Addr()),
		c.inside.address("port", far), c.inside.address("port", netip.PrefixFrom(c.host6, p.Bits())),
		c.inside.route("port", netip.MustParsePrefix("::/0"), near.Addr()),
	)
}

// load puts the rules into the gateway. Rules may name any interface, so all of them
// are there; what is not ours to try is a bridge without ports.
func (c *copied) load(ctx context.Context, s Setup) error {
	for _, name := range s.Links[:min(len(s.Links), mostLinks)] {
		if _, err := c.gateway.h.LinkByName(name); err == nil {
			continue
		}
		if err := c.gateway.h.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}); err != nil {
			return fmt.Errorf("an interface %s: %w", name, err)
		}
	}
	cmd := exec.CommandContext(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(s.Ruleset)
	var out strings.Builder
	cmd.Stderr = &out
	if err := c.gateway.in(cmd.Start); err != nil {
		return fmt.Errorf("run nft: %w", err)
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("nft does not load the rules that it listed: %.200s", out.String())
	}
	q, err := nftables.New(nftables.WithNetNSFd(int(c.gateway.ns)))
	if err != nil {
		return err
	}
	ours := &nftables.Table{Name: nft.Table, Family: nftables.TableFamilyINet}
	q.AddTable(ours) // so that there is one to delete
	q.DelTable(ours)
	return q.Flush()
}

func (c *copied) mappings(s Setup) []portmap.Mapping {
	end := time.Now().Add(time.Hour)
	inner := netip.AddrPortFrom(c.host, trialPort)
	all := []portmap.Mapping{{
		ID: 1, Transport: portmap.UDP, Internal: inner, External: netip.AddrPortFrom(s.External, trialPort), Expires: end,
	}}
	if c.host6.IsValid() {
		inner6 := netip.AddrPortFrom(c.host6, trialPort)
		all = append(all, portmap.Mapping{
			ID: 2, Kind: portmap.Pinhole6, Transport: portmap.UDP, Internal: inner6, External: inner6, Expires: end,
		})
	}
	return all
}

// judge sends a packet, and finds what is in its way.
func (c *copied) judge(ctx context.Context, to netip.AddrPort) (Verdict, error) {
	passed, err := c.knock(ctx, to)
	if passed || err != nil {
		return Verdict{Tried: err == nil, Passed: passed}, err
	}
	q, err := nftables.New(nftables.WithNetNSFd(int(c.gateway.ns)))
	if err != nil {
		return Verdict{}, err
	}
	chains, err := q.ListChains()
	if err != nil {
		return Verdict{}, err
	}
	for _, chain := range chains {
		if !inTheWay(chain, to.Addr()) {
			continue
		}
		accept := nftables.ChainPolicyAccept
		chain.Policy = &accept
		q.FlushChain(chain)
		q.AddChain(chain)
		if err := q.Flush(); err != nil {
			return Verdict{}, fmt.Errorf("try without %s: %w", nameOf(chain), err)
		}
		if passed, err = c.knock(ctx, to); err != nil || passed {
			return Verdict{Tried: true, Blame: nameOf(chain), OfIPTables: ofIPTables(chain)}, err
		}
	}
	return Verdict{Tried: true}, nil
}

// inTheWay says whether a chain of somebody else's filters what is forwarded.
func inTheWay(c *nftables.Chain, to netip.Addr) bool {
	if c.Table.Name == nft.Table || c.Type != nftables.ChainTypeFilter || c.Hooknum == nil {
		return false
	}
	if *c.Hooknum != *nftables.ChainHookForward && *c.Hooknum != *nftables.ChainHookPrerouting {
		return false
	}
	switch c.Table.Family {
	case nftables.TableFamilyINet:
		return true
	case nftables.TableFamilyIPv4:
		return to.Is4()
	case nftables.TableFamilyIPv6:
		return to.Is6()
	}
	return false
}

// ofIPTables says whether a chain is one that the programs of iptables made: they
// alone write the built-in names in capitals.
func ofIPTables(c *nftables.Chain) bool {
	return c.Table.Family != nftables.TableFamilyINet && (c.Name == "FORWARD" || c.Name == "PREROUTING")
}

func nameOf(c *nftables.Chain) string {
	family := map[nftables.TableFamily]string{
		nftables.TableFamilyINet: "inet", nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6",
	}[c.Table.Family]
	return family + " " + c.Table.Name + " " + c.Name
}

// knock sends a datagram from the Internet, and says whether the host gets it.
func (c *copied) knock(ctx context.Context, to netip.AddrPort) (bool, error) {
	host, sender := c.host, outside
	if to.Addr().Is6() {
		host, sender = c.host6, outside6
	}
	in, err := c.inside.listen(netip.AddrPortFrom(host, trialPort))
	if err != nil {
		return false, err
	}
	defer in.Close()
	out, err := c.internet.listen(netip.AddrPortFrom(sender, 0))
	if err != nil {
		return false, err
	}
	defer out.Close()
	word := []byte(rand.Text())
	for end := time.Now().Add(patience); time.Now().Before(end) && ctx.Err() == nil; {
		if _, err := out.WriteToUDPAddrPort(word, to); err != nil {
			return false, nil // refused, or no way
		}
		if err := in.SetReadDeadline(time.Now().Add(patience / 7)); err != nil {
			return false, err
		}
		buf := make([]byte, 64)
		if n, _, err := in.ReadFromUDPAddrPort(buf); err == nil && string(buf[:n]) == string(word) {
			return true, nil
		}
	}
	return false, ctx.Err()
}

func (s *space) listen(at netip.AddrPort) (conn *net.UDPConn, err error) {
	err = s.in(func() error {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		return err
	})
	return conn, err
}

// wire joins the gateway's interface to the one port of another namespace.
func wire(g *space, name string, other *space) error {
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "port", PeerNamespace: netlink.NsFd(other.ns)}
	if err := g.h.LinkAdd(veth); err != nil {
		return fmt.Errorf("veth %s: %w", name, err)
	}
	return errors.Join(g.up(name), other.up("port"))
}

func (s *space) up(name string) error {
	l, err := s.h.LinkByName(name)
	if err != nil {
		return err
	}
	return s.h.LinkSetUp(l)
}

func (s *space) address(name string, p netip.Prefix) error {
	l, err := s.h.LinkByName(name)
	if err != nil {
		return err
	}
	a := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	if err := s.h.AddrAdd(l, a); err != nil {
		return fmt.Errorf("address %s on %s: %w", p, name, err)
	}
	return nil
}

// route leads to a network, by way of an address or straight on to the link.
func (s *space) route(name string, to netip.Prefix, via netip.Addr) error {
	l, err := s.h.LinkByName(name)
	if err != nil {
		return err
	}
	r := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: &net.IPNet{IP: to.Addr().AsSlice(), Mask: net.CIDRMask(to.Bits(), to.Addr().BitLen())}}
	if via.IsValid() {
		r.Gw = via.AsSlice()
	} else {
		r.Scope = netlink.SCOPE_LINK
	}
	if err := s.h.RouteAdd(r); err != nil {
		return fmt.Errorf("route to %s on %s: %w", to, name, err)
	}
	return nil
}

// other gives another host's address in the network of an address.
func other(p netip.Prefix) netip.Addr {
	if n := p.Addr().Next(); p.Contains(n) && p.Contains(n.Next()) { // not the broadcast address
		return n
	}
	return p.Addr().Prev()
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
