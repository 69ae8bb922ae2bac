package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"portcullis/internal/netns"
)

// copied is the copy.
type copied struct {
	gateway, inside, internet *netns.Space
	host, host6               netip.Addr
	patience                  patience
}

func (c *copied) close() {
	c.gateway.Close()
	c.inside.Close()
	c.internet.Close()
}

var names = []string{"gateway", "host", "internet"} // for messages

func build(ctx context.Context, s Setup) (c *copied, err error) {
	c = &copied{}
	for i, x := range []**netns.Space{&c.gateway, &c.inside, &c.internet} {
		if *x, err = netns.New(names[i]); err != nil {
			return c, err
		}
	}
	c.host = other(s.LAN)
	wan, lan := s.Firewall.WAN[0].Interface, s.Firewall.LAN[0]
	err = errors.Join(
		c.gateway.Sysctl("net/ipv4/ip_forward", "1"),
		ignoreMissing(c.gateway.Sysctl("net/ipv6/conf/all/forwarding", "1")),
		wire(c.gateway, wan, c.internet), wire(c.gateway, lan, c.inside),
		c.gateway.Address(wan, netip.PrefixFrom(s.External, 32)), c.gateway.Route(wan, netip.PrefixFrom(outside, 32), netip.Addr{}),
		c.gateway.Address(lan, s.LAN),
		c.internet.Address("port", netip.PrefixFrom(outside, 32)), c.internet.Route("port", netip.PrefixFrom(s.External, 32), netip.Addr{}),
		c.inside.Address("port", netip.PrefixFrom(c.host, s.LAN.Bits())),
		c.inside.Route("port", netip.MustParsePrefix("0.0.0.0/0"), s.LAN.Addr()),
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
		c.gateway.Address(wan, near), c.gateway.Address(lan, near), c.gateway.Address(lan, p),
		c.gateway.Route(wan, netip.PrefixFrom(outside6, 128), far.Addr()),
		c.internet.Address("port", far), c.internet.Address("port", netip.PrefixFrom(outside6, 128)),
		c.internet.Route("port", p.Masked(), near.Addr()),
		c.inside.Address("port", far), c.inside.Address("port", netip.PrefixFrom(c.host6, p.Bits())),
		c.inside.Route("port", netip.MustParsePrefix("::/0"), near.Addr()),
	)
}

// load puts the rules into the gateway. Rules may name any interface, so all of them
// are there; what is not ours to try is a bridge without ports.
func (c *copied) load(ctx context.Context, s Setup) error {
	for _, name := range s.Links[:min(len(s.Links), mostLinks)] {
		if _, err := c.gateway.Index(name); err == nil {
			continue
		}
		if err := c.gateway.Bridge(name, nil); err != nil {
			return err
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
	_, err := c.gateway.Output(ctx, stdin, argv...)
	return err
}

// wire joins the gateway's interface to the one port of another namespace.
func wire(gateway *netns.Space, name string, other *netns.Space) error {
	return netns.Cable(netns.End{Space: gateway, Name: name}, netns.End{Space: other, Name: "port"})
}

// other returns another host's address in the network of an address.
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
