package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"portcullis/firewall"
	"portcullis/firewall/nft"
	"portcullis/internal/lab"
	"portcullis/internal/netif"
	"portcullis/internal/slog"
	"portcullis/policy"
	"portcullis/portmap"
)

// The measurements without HTTP: our engine with the real policy and the real
// firewall backend; what it reads of the machine, for all grants of a second or
// two together; and, as the floor under it, transactions of a single element
// that do nothing else.
const (
	measureGrant     = "Engine.Map, new"
	measureAgain     = "Engine.Map, renewal"
	measureEnd       = "Engine.Unmap"
	measureInside    = "Engine.Map and Unmap by internal port"
	measureShared    = "Engine.Map, all to one internal port"
	measureRemotes   = "Engine.Map, all on one external port"
	measureForwards  = "reading the owner's forwards"
	measureListening = "reading the gateway's listeners"
	measureBare      = "one element added, one transaction"
	manyAtOnce       = 64 // what the engine puts into one transaction
	engineTimeout    = 30 * time.Second
)

// still is a gateway that does not change and has no services of its own.
type still struct{ view *portmap.View }

func (s still) View() *portmap.View { return s.view }

func (s still) Look(context.Context) {}

// engineBench is an engine with its firewall on a network of its own.
type engineBench struct {
	*lab.Network
	kernel  *netif.Kernel
	backend *nft.Backend
	engine  *portmap.Engine
	stop    context.CancelFunc
	ended   chan struct{}

	client portmap.Client
	ports  []uint16
	shape  shape
}

// shape is what the mappings of an engine have in common, because each could
// make something slow of its own.
type shape int

const (
	apart   shape = iota // nothing
	shared               // they lead to one port: one of them gives its number to what leaves from there
	limited              // they are on one external port, each for another remote host
)

// playEngine measures an engine with few mappings and one with many, in turns:
// for each shape of mappings.
func playEngine(ctx context.Context, p plan, tell func(Row)) error {
	for _, kind := range []shape{apart, shared, limited} {
		if err := playShape(ctx, p, kind, tell); err != nil {
			return err
		}
	}
	return nil
}

func playShape(ctx context.Context, p plan, kind shape, tell func(Row)) (err error) {
	var engines []*engineBench
	defer func() {
		for _, e := range engines {
			err = errors.Join(err, e.close(ctx))
		}
	}()
	var sides []side
	for _, level := range p.levels {
		e, err := startEngine(ctx, kind)
		if err != nil {
			return err
		}
		engines = append(engines, e)
		if _, err := together(ctx, manyAtOnce, level, time.Hour, func(i int) error { return e.add(ctx, i) }); err != nil {
			return err
		}
		sides = append(sides, e.side(ctx, p, level))
	}
	if err := inTurns(tell, sides...); err != nil {
		return err
	}
	for i, e := range engines {
		if n := e.engine.Snapshot().Len(); n != p.levels[i] {
			return fmt.Errorf("%d mappings, want %d", n, p.levels[i])
		}
	}
	return nil
}

func startEngine(ctx context.Context, kind shape) (_ *engineBench, err error) {
	n, err := networkOf()
	if err != nil {
		return nil, err
	}
	host := n.Host(hostName(0))
	e := &engineBench{Network: n, ended: make(chan struct{}), ports: ports(), shape: kind, client: portmap.Client{
		Addr: host.Addr, MAC: portmap.MAC(host.MAC), Interface: lab.Bridge, Via: portmap.ViaUPnP,
	}}
	defer func() {
		if err != nil {
			n.Close()
		}
	}()
	quiet := slog.New(slog.DiscardHandler)
	if e.kernel, err = netif.OpenAt(quiet, int(n.Gateway.Namespace())); err != nil {
		return nil, err
	}
	if e.backend, err = nft.Open(ctx, nft.Config{Log: quiet, NetNS: int(n.Gateway.Namespace())}); err != nil {
		e.kernel.Close()
		return nil, err
	}
	if e.engine, err = newEngine(ctx, e.backend); err != nil {
		e.kernel.Close()
		return nil, errors.Join(err, e.backend.Close(ctx, false))
	}
	ctx, e.stop = context.WithCancel(ctx)
	go func() {
		defer close(e.ended)
		_ = e.engine.Run(ctx) // the context's end
	}()
	return e, nil
}

func (e *engineBench) close(ctx context.Context) error {
	e.stop()
	<-e.ended
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), engineTimeout)
	defer cancel()
	err := e.backend.Close(closing, false)
	e.kernel.Close()
	e.Close()
	return err
}

func newEngine(ctx context.Context, backend *nft.Backend) (*portmap.Engine, error) {
	var forward firewall.Chain
	if err := forward.UnmarshalText([]byte(lab.FirewallChain)); err != nil {
		return nil, err
	}
	err := backend.Configure(ctx, firewall.Facts{
		WAN: []firewall.Uplink{{Interface: lab.WANInterface, Addrs: []netip.Addr{lab.GatewayWAN}}},
		LAN: []string{lab.Bridge}, LANPrefixes: []netip.Prefix{lab.LANPrefix},
		AcceptChain: forward,
	})
	if err != nil {
		return nil, err
	}
	decide, err := policy.New(policy.Config{Default: portmap.Allow})
	if err != nil {
		return nil, err
	}
	view := &portmap.View{
		WANs: []portmap.WAN{{Name: lab.WANInterface, Up: true, External: lab.GatewayWAN}}, WANAddrs: []netip.Addr{lab.GatewayWAN},
		LAN:   map[string]portmap.LAN{lab.Bridge: {Prefixes: []netip.Prefix{lab.LANPrefix}, Addrs: []netip.Addr{lab.GatewayLAN}}},
		Local: map[netip.Addr]struct{}{lab.GatewayLAN: {}, lab.GatewayWAN: {}},
	}
	return portmap.NewEngine(portmap.EngineConfig{
		Policy: decide, Firewall: backend, Gateway: still{view}, LeaseMax: 168 * time.Hour, LeaseMin: 2 * time.Minute,
	})
}

// request returns the i-th mapping.
func (e *engineBench) request(i int) portmap.Request {
	internal, external := e.ports[i], e.ports[i]
	var remotes []portmap.Remote
	switch e.shape {
	case shared:
		internal = e.ports[0]
	case limited:
		external = e.ports[0]
		remote := netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)})
		remotes = []portmap.Remote{{Prefix: netip.PrefixFrom(remote, remote.BitLen())}}
	}
	return portmap.Request{
		Client: e.client, Transport: portmap.TCP, Internal: netip.AddrPortFrom(e.client.Addr, internal), Remotes: remotes,
		ExternalPort: external, Lifetime: time.Hour, Exact: true, Description: "bench",
	}
}

func (e *engineBench) add(ctx context.Context, i int) error {
	_, err := e.engine.Map(ctx, e.request(i))
	return err
}

// remove names a mapping as UPnP does.
func (e *engineBench) remove(ctx context.Context, i int) error {
	r := e.request(i)
	_, err := e.engine.Unmap(ctx, portmap.Selector{
		Client: e.client, Transport: r.Transport, FirstPort: r.ExternalPort, LastPort: r.ExternalPort,
		Remotes: r.Remotes, ExactRemotes: true,
	})
	return err
}

// removeInside names a mapping as NAT-PMP and PCP do.
func (e *engineBench) removeInside(ctx context.Context, i int) error {
	_, err := e.engine.Unmap(ctx, portmap.Selector{Client: e.client, Transport: portmap.TCP, Internal: e.ports[i]})
	return err
}

func (e *engineBench) side(ctx context.Context, p plan, n int) side {
	d := side{gate: engineName, level: n, present: n}
	if name := map[shape]string{shared: measureShared, limited: measureRemotes}[e.shape]; name != "" {
		d.tasks = []task{single(name, 1, func() (sample, error) {
			s, err := e.addAndRemove(ctx, p, n, 1)
			return s[0], err
		})}
		return d
	}
	for _, workers := range []int{1, manyAtOnce} {
		d.tasks = append(d.tasks,
			task{[]string{measureGrant, measureEnd}, workers, func() ([]sample, error) {
				return e.addAndRemove(ctx, p, n, workers)
			}},
			single(measureAgain, workers, func() (sample, error) {
				return together(ctx, workers, endless, p.slice, func(i int) error { return e.add(ctx, i*7%n) })
			}))
	}
	d.tasks = append(d.tasks, single(measureInside, 1, func() (sample, error) {
		return together(ctx, 1, endless, p.slice, func(int) error {
			return errors.Join(e.add(ctx, n), e.removeInside(ctx, n))
		})
	}))
	// What a grant must know of the machine; the daemon remembers it for a
	// second or two.
	read := func(name string, what func() error) {
		d.tasks = append(d.tasks, single(name, 1, func() (sample, error) {
			return together(ctx, 1, endless, p.slice, func(int) error { return what() })
		}))
	}
	read(measureForwards, func() error { _, err := e.backend.Forwarded(ctx); return err })
	read(measureListening, func() error { _, err := e.kernel.Listening(ctx); return err })
	return d
}

// endless is for as many turns as the time allows.
const endless = 1 << 30

// addAndRemove adds batches on top of n mappings and removes them again, until
// the time is up.
func (e *engineBench) addAndRemove(ctx context.Context, p plan, n, workers int) ([]sample, error) {
	var added, removed sample
	for added.Elapsed < p.slice {
		a, err := together(ctx, workers, p.batch, time.Hour, func(i int) error { return e.add(ctx, n+i) })
		if err != nil {
			return []sample{added, removed}, err
		}
		r, err := together(ctx, workers, p.batch, time.Hour, func(i int) error { return e.remove(ctx, n+i) })
		if err != nil {
			return []sample{added, removed}, err
		}
		added, removed = added.plus(a), removed.plus(r)
	}
	return []sample{added, removed}, nil
}
