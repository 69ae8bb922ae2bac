package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"portcullis/internal/lab"
)

// How long it takes until packets pass again, after what happens to a gateway.
const (
	recoveryName     = "recovery"
	measureFlushed   = "the ruleset is flushed, and the owner's loaded"
	measureAddress   = "the WAN has another address"
	measureStarted   = "kill -9, and a start until it is ready"
	recoveryPatience = 30 * time.Second
	recoveryPort     = firstPort - 1 // UDP; the others are TCP
)

var recoveryLines = []line{{"", measureFlushed, 1}, {"", measureAddress, 1}, {"", measureStarted, 1}}

// recovery measures with few mappings and with many.
func (r *report) recovery(ctx context.Context, exe string, p plan) error {
	for _, level := range p.levels {
		g, err := startOurs(ctx, exe)
		if err != nil {
			return err
		}
		g.name = recoveryName
		err = g.fillTo(ctx, p, level, func(Row) {})
		if err == nil {
			err = g.recover(ctx, exe, level, r.tell)
		}
		if err = r.end(g, err); err != nil {
			return err
		}
	}
	return nil
}

func (g *gate) recover(ctx context.Context, exe string, level int, tell func(Row)) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cp := lab.NewControlPoint(g.Host(hostName(0)))
	if err := cp.Find(ctx, lab.IGD1, lab.WANIP1); err != nil {
		return err
	}
	m := lab.Mapping{Protocol: "UDP", External: recoveryPort, Internal: recoveryPort, Lease: time.Hour}
	if err := cp.Add(ctx, m); err != nil {
		return err
	}
	wan := lab.GatewayWAN
	for _, e := range []struct {
		name string
		run  func() (time.Duration, error)
	}{
		{measureFlushed, func() (time.Duration, error) {
			if err := g.flushed(); err != nil {
				return 0, err
			}
			return g.untilPasses(ctx, wan, recoveryPort)
		}},
		{measureAddress, func() (_ time.Duration, err error) {
			if wan, err = g.readdressed(wan); err != nil {
				return 0, err
			}
			return g.untilPasses(ctx, wan, recoveryPort)
		}},
		{measureStarted, func() (time.Duration, error) { return g.restarted(ctx, exe) }},
	} {
		var all []sample
		for range timesAlone {
			took, err := e.run()
			if err != nil {
				return fmt.Errorf("%s: %w", e.name, err)
			}
			all = append(all, sample{Count: 1, Elapsed: took})
		}
		if listed, err := g.listed(ctx); err != nil || listed != level+1 {
			return fmt.Errorf("%s: %d mappings are listed afterwards, want %d (%v)", e.name, listed, level+1, err)
		}
		if n, err := g.kernel(); err != nil || n != level+1 {
			return fmt.Errorf("%s: the kernel holds %d mappings afterwards, want %d (%v)", e.name, n, level+1, err)
		}
		tell(row(side{gate: recoveryName, level: level, present: level}, e.name, 1, middle(all)))
	}
	return nil
}

// flushed is what a restart of nftables.service does.
func (g *gate) flushed() error {
	conn, err := nftables.New(nftables.WithNetNSFd(int(g.Gateway.Namespace())))
	if err != nil {
		return err
	}
	conn.FlushRuleset()
	if err := conn.Flush(); err != nil {
		return err
	}
	return g.HostFirewall()
}

// readdressed sets the next address of the WAN.
func (g *gate) readdressed(old netip.Addr) (netip.Addr, error) {
	h := g.Gateway.Netlink()
	link, err := h.LinkByName(lab.WANInterface)
	if err != nil {
		return old, err
	}
	address := func(a netip.Addr) *netlink.Addr {
		return &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(lab.WANPrefix.Bits(), 32)}}
	}
	next := old.Next()
	return next, errors.Join(
		h.AddrDel(link, address(old)), h.AddrAdd(link, address(next)),
		h.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: lab.InternetOne.AsSlice()}),
	)
}

func (g *gate) restarted(ctx context.Context, exe string) (time.Duration, error) {
	if err := g.daemon.Kill(); err != nil {
		return 0, err
	}
	start := time.Now()
	err := g.again(ctx, exe)
	return time.Since(start), err
}

// again starts the daemon that has been killed, and waits until it is ready.
func (g *gate) again(ctx context.Context, exe string) error {
	d, err := g.Network.Restart(ctx, exe, g.daemon)
	if err != nil {
		return err
	}
	g.daemon, g.pid, g.stop, g.log = d, d.Pid(), d.Stop, d.Log
	return nil
}

// untilPasses sends datagrams to a port, each from one of its own, until one has come
// through to the same port of the first host.
func (g *gate) untilPasses(ctx context.Context, wan netip.Addr, port uint16) (took time.Duration, err error) {
	start := time.Now()
	in, err := g.Host(hostName(0)).ListenPacket(netip.AddrPortFrom(netip.IPv4Unspecified(), port).String())
	if err != nil {
		return 0, err
	}
	defer in.Close()
	arrived := make(chan error, 1)
	go func() {
		_, _, err := in.ReadFromUDPAddrPort(make([]byte, 16))
		arrived <- err
	}()
	to := &unix.SockaddrInet4{Addr: wan.As4(), Port: int(port)}
	for time.Since(start) < recoveryPatience && ctx.Err() == nil {
		if err := <-g.wan[0].Go(func() error { return knock(to) }); err != nil {
			return 0, err
		}
		select {
		case err := <-arrived:
			return time.Since(start), err
		case <-time.After(time.Millisecond):
		}
	}
	return 0, errors.New("nothing arrives")
}

func knock(to unix.Sockaddr) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, []byte("knock"), 0, to); err != nil && !errors.Is(err, unix.ENETUNREACH) {
		return err
	}
	return nil
}
