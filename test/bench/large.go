package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"golang.org/x/sys/unix"

	"portcullis/internal/journal"
	"portcullis/internal/lab"
	"portcullis/internal/slog"
	"portcullis/policy"
	"portcullis/portmap"
)

// What takes time with more mappings than any home has, beside what the bare kernel takes
// for being given as many elements.
const (
	largeName       = "large"
	measureGiven    = "as many elements, given to the bare kernel"
	measureSame     = "the same elements, of the same five sets"
	measureRestored = "a start with an empty kernel, until packets pass"
	measureRepaired = "the ruleset is flushed, until packets pass"
	measureListed   = "portcullis list"
	largeFirst      = 30_000 // the first port
	largeEach       = 4      // of one host
)

var largeLines = []line{{"", measureGiven, 1}, {"", measureSame, 1}, {"", measureRestored, 1}, {"", measureRepaired, 1}, {"", measureListed, 1}}

// behindRouter has hosts served that are not on the LAN itself.
var behindRouter = strings.Replace(lab.Settings, "[wan]", "extra_prefixes = [\"10.0.0.0/16\"]\n[wan]", 1)

// large measures with the mappings that a journal holds.
func (r *report) large(ctx context.Context, exe string, p plan) error {
	for _, level := range p.levels {
		err := givenTo(ctx, measureGiven, oneSet, level, r.tell)
		if err == nil {
			err = givenTo(ctx, measureSame, allSets, level, r.tell)
		}
		if err != nil {
			return err
		}
		g, err := startConfigured(ctx, exe, behindRouter+limits)
		if err != nil {
			return err
		}
		g.name = largeName
		all := g.many(level)
		if err = g.plant(ctx, all); err == nil {
			err = g.again(ctx, exe)
		}
		if err == nil {
			err = g.endure(ctx, exe, all, r.tell)
		}
		if err = r.end(g, err); err != nil {
			return err
		}
	}
	return nil
}

// many returns so many mappings of hosts behind a router of the LAN, each of a few because
// limits.mappings has a reserve against those with many. The last few are the first host's,
// among them one of UDP.
func (g *gate) many(level int) []portmap.Mapping {
	var all []portmap.Mapping
	for n := 2 * largeFirst; len(all) < level; n++ {
		port, tr := uint16(n/2), []portmap.Transport{portmap.TCP, portmap.UDP}[n%2]
		if tier, _ := policy.TierOf(policy.Internal, tr, port); tier != policy.Ordinary {
			continue
		}
		number := len(all)/largeEach + 1
		c := portmap.Client{Addr: netip.AddrFrom4([4]byte{10, 0, byte(number >> 8), byte(number)}), Interface: lab.Bridge, Via: portmap.ViaPCP}
		if h := g.Host(hostName(0)); level-len(all) <= largeEach {
			c.Addr, c.MAC = h.Addr, portmap.MAC(h.MAC)
		}
		now := time.Now()
		all = append(all, portmap.Mapping{
			ID: uint64(len(all) + 1), Client: c, Transport: tr, Internal: netip.AddrPortFrom(c.Addr, port),
			WAN: lab.WANInterface, ExternalPort: port, Claims: portmap.Vias(0).With(c.Via),
			Created: now, Expires: now.Add(time.Hour), Description: "bench",
		})
	}
	return all
}

// plant ends the daemon and writes the journal of another run.
func (g *gate) plant(ctx context.Context, all []portmap.Mapping) error {
	if err := g.daemon.Kill(); err != nil {
		return err
	}
	j, _, err := journal.Open(journal.Config{Dir: g.daemon.State(), Log: slog.New(slog.DiscardHandler), MaxMappings: 1<<16 - 1})
	if err != nil {
		return err
	}
	added := make([]portmap.Change, len(all))
	for i := range all {
		added[i] = portmap.Change{New: &all[i]}
	}
	return errors.Join(j.Record(ctx, added), j.Close())
}

// endure measures a daemon that has restored these mappings.
func (g *gate) endure(ctx context.Context, exe string, all []portmap.Mapping, tell func(Row)) error {
	level := len(all)
	i := level - 1
	for all[i].Transport != portmap.UDP || all[i].Client.Addr != g.Host(hostName(0)).Addr {
		i--
	}
	port := all[i].ExternalPort
	for _, e := range []struct {
		name string
		run  func() (time.Duration, error)
	}{
		{measureRestored, func() (time.Duration, error) {
			if err := errors.Join(g.daemon.Kill(), g.flushed()); err != nil {
				return 0, err
			}
			start := time.Now()
			if err := g.again(ctx, exe); err != nil {
				return 0, err
			}
			_, err := g.untilPasses(ctx, lab.GatewayWAN, port)
			return time.Since(start), err
		}},
		{measureRepaired, func() (time.Duration, error) {
			if err := g.flushed(); err != nil {
				return 0, err
			}
			return g.untilPasses(ctx, lab.GatewayWAN, port)
		}},
		{measureListed, func() (time.Duration, error) {
			start := time.Now()
			err := exec.CommandContext(ctx, exe, "list", "--config", g.daemon.Config).Run()
			return time.Since(start), err
		}},
	} {
		var times []sample
		for range timesAlone {
			took, err := e.run()
			if err != nil {
				return fmt.Errorf("%s: %w", e.name, err)
			}
			times = append(times, sample{Count: 1, Elapsed: took})
			if n, err := g.kernel(); err != nil || n != level {
				return fmt.Errorf("%s: the kernel holds %d mappings afterwards, want %d (%v)", e.name, n, level, err)
			}
		}
		tell(row(side{gate: largeName, level: level, present: level}, e.name, 1, middle(times)))
	}
	if n, err := g.listed(ctx); err != nil || n != level {
		return fmt.Errorf("%d mappings are listed, want %d (%v)", n, level, err)
	}
	return nil
}

// The largest messages and transactions that the library makes without loss.
const (
	givenMessage     = 128 // elements
	givenTransaction = 10  // messages
)

// bareFilling is a set of the bare kernel's, and what its elements are.
type bareFilling struct {
	set     *nftables.Set
	element func(proto byte, port uint16) nftables.SetElement
}

func oneSet(conn *nftables.Conn, turn int) ([]bareFilling, error) {
	set, err := bareSet(conn, turn)
	return []bareFilling{{set, bareElement}}, err
}

// allSets are those that mappings for anyone have an element in, each with a key, a value and
// what counts as in our table and beside the accept chain of the owner's (firewall/nft).
func allSets(conn *nftables.Conn, turn int) ([]bareFilling, error) {
	proto, port, addr := nftables.TypeInetProto, nftables.TypeInetService, nftables.TypeIPAddr
	flow := func(p byte, n uint16) nftables.SetElement {
		el := bareElement(p, n)
		el.Key, el.Val = append(el.Key, el.Val...), nil
		return el
	}
	table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: fmt.Sprintf("bench_same_%d", turn)})
	var all []bareFilling
	for i, f := range []struct {
		key, value []nftables.SetDatatype
		counts     bool
		element    func(byte, uint16) nftables.SetElement
	}{
		{[]nftables.SetDatatype{proto, port}, []nftables.SetDatatype{addr, port}, false, bareElement},
		{[]nftables.SetDatatype{proto, port, addr, port}, nil, true, flow},
		{[]nftables.SetDatatype{addr, proto, port}, []nftables.SetDatatype{port}, false, func(p byte, n uint16) nftables.SetElement {
			el := bareElement(p, n)
			el.Key, el.Val = slices.Concat(el.Val[:4], el.Key), el.Key[4:6]
			return el
		}},
		{[]nftables.SetDatatype{proto, port}, nil, false, func(p byte, n uint16) nftables.SetElement {
			el := bareElement(p, n)
			el.Val = nil
			return el
		}},
		{[]nftables.SetDatatype{proto, port, addr, port}, nil, false, flow},
	} {
		set := &nftables.Set{
			Table: table, Name: fmt.Sprintf("set_%d", i), Concatenation: true, HasTimeout: true, KeyByteOrder: binaryutil.BigEndian, Size: 1 << 17,
			KeyType: nftables.MustConcatSetType(f.key...), Counter: f.counts,
		}
		switch len(f.value) {
		case 0:
		case 1:
			set.IsMap, set.DataType = true, f.value[0]
		default:
			set.IsMap, set.DataType = true, nftables.MustConcatSetType(f.value...)
		}
		if err := conn.AddSet(set, nil); err != nil {
			return nil, err
		}
		all = append(all, bareFilling{set, f.element})
	}
	return all, conn.Flush()
}

// givenTo measures how long the bare kernel takes for an element of each mapping in each set.
func givenTo(ctx context.Context, measure string, sets func(*nftables.Conn, int) ([]bareFilling, error), level int, tell func(Row)) error {
	n, err := networkOf()
	if err != nil {
		return err
	}
	defer n.Close()
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(int(n.Gateway.Namespace())))
	if err != nil {
		return err
	}
	defer func() { _ = conn.CloseLasting() }()
	var times []sample
	for turn := range timesAlone {
		fillings, err := sets(conn, turn)
		if err != nil {
			return fmt.Errorf("%s: %w", measure, err)
		}
		elements := make([][]nftables.SetElement, len(fillings))
		for i, f := range fillings {
			elements[i] = make([]nftables.SetElement, level)
			for j := range elements[i] {
				elements[i][j] = f.element([]byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP}[j%2], uint16(largeFirst+j/2))
			}
		}
		s, err := together(ctx, 1, 1, time.Hour, func(int) error {
			for i, f := range fillings {
				if err := give(conn, f.set, elements[i]); err != nil {
					return fmt.Errorf("%s: %w", measure, err)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		times = append(times, s)
	}
	tell(row(side{gate: largeName, level: level, present: level}, measure, 1, middle(times)))
	return nil
}

func give(conn *nftables.Conn, set *nftables.Set, elements []nftables.SetElement) error {
	for len(elements) > 0 {
		for range givenTransaction {
			some := elements[:min(givenMessage, len(elements))]
			if elements = elements[len(some):]; len(some) == 0 {
				break
			}
			if err := conn.SetAddElements(set, some); err != nil {
				return err
			}
		}
		if err := conn.Flush(); err != nil {
			return err
		}
	}
	return nil
}
