package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

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
	wan, lan := s.Firewall.WAN[0].Interface, s.Firewall.LAN[0]
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
	for _, r := range s.Rules {
		if err := c.run(ctx, r.Text, r.Load...); err != nil {
			return fmt.Errorf("the rules that were listed are not taken again: %w", err)
		}
	}
	return nil
}

// run runs a program in the gateway's copy.
func (c *copied) run(ctx context.Context, stdin string, argv ...string) error {
	_, err := c.program(ctx, stdin, argv...)
	return err
}

// output runs a program there and gives what it prints.
func (c *copied) output(ctx context.Context, argv ...string) (string, error) {
	return c.program(ctx, "", argv...)
}

func (c *copied) program(ctx context.Context, stdin string, argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, complaint strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := c.gateway.in(cmd.Start); err != nil {
		return "", fmt.Errorf("run %s: %w", argv[0], err)
	}
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("%s: %w: %.200s", argv[0], err, strings.TrimSpace(complaint.String()))
	}
	return out.String(), nil
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
