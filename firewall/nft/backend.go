package nft

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/google/nftables"

	"portcullis/firewall"
	"portcullis/firewall/flows"
	"portcullis/internal/slog"
	"portcullis/portmap"
)

// DefaultSize is how many elements each set of mappings may hold. Empty room
// costs nothing: the sets grow with what is in them.
const DefaultSize = 2 * 65536

// Config is what a Backend needs.
type Config struct {
	Log    *slog.Logger // must not be nil
	NetNS  int          // file descriptor of a network namespace, open until Close; 0: the current one
	Size   int          // elements a set may hold; 0: DefaultSize
	Buffer int          // bytes of send buffer to ask for, which bounds a transaction; 0: what suits a large change
	Mark   uint32       // bits that packets of mappings carry while they are forwarded, for a filter of iptables; 0: none
}

// Backend keeps the kernel's nf_tables and conntrack as the mappings want them: a
// firewall.Driver with the kernel's calls below it, and what only nf_tables can tell.
// Its methods are safe for concurrent use.
//
// Writing the whole table is one transaction up to some thousand mappings; beyond, new
// flows find no mapping while it is written (a second for sixty thousand), and
// established ones go on.
type Backend struct {
	*firewall.Driver
	kernel *kernel
	keeper *flows.Keeper
}

// Open returns a backend, or the reason why this kernel or this process cannot
// have one: errors that wrap firewall.ErrPermission or firewall.ErrUnsupported
// are sentences for the owner. Nothing is written to the kernel before the first
// Configure, Apply or Replace, so that the mappings of an earlier run that was
// told to keep them stay open until then.
func Open(ctx context.Context, cfg Config) (*Backend, error) {
	if cfg.Log == nil {
		return nil, errors.New("nft: Config.Log must be set")
	}
	if cfg.Size == 0 {
		cfg.Size = DefaultSize
	}
	k := &kernel{
		cfg:    cfg,
		reader: reader{netns: cfg.NetNS},
		quick:  reader{netns: cfg.NetNS},
		writer: writer{netns: cfg.NetNS, buffer: cfg.Buffer},
		thread: ownThread,
	}
	k.writer.own = &k.unheard
	// A table that is made and removed within one transaction tells whether we
	// may, and leaves no trace.
	probe := &nftables.Table{Name: Table + "_probe", Family: nftables.TableFamilyINet}
	err := k.writer.commit(ctx, func(q *nftables.Conn) error {
		q.AddTable(probe)
		q.DelTable(probe)
		return nil
	})
	if err != nil {
		k.writer.drop()
		return nil, fmt.Errorf("nft: %w", explain(err))
	}
	k.inPlace = k.retimes(ctx)
	b := &Backend{kernel: k}
	b.Driver = firewall.NewDriver(cfg.Log, k, func(d *firewall.Driver) firewall.Flows {
		b.keeper = flows.New(flows.Config{Log: cfg.Log, NetNS: cfg.NetNS, Look: d.Look, Refuse: func(list []flows.Flow) error {
			return d.Refuse(refusals(list))
		}})
		return last{b.keeper, k}
	})
	return b, nil
}

// refusals are the hosts that flows lead to, for when they go on sending to the other end.
func refusals(list []flows.Flow) []firewall.Refusal {
	hosts := make([]firewall.Refusal, len(list))
	for i, f := range list {
		hosts[i] = firewall.Refusal{Transport: f.Transport, From: f.AnswersFrom, To: f.Src}
	}
	return hosts
}

// last closes the kernel's sockets behind the flows, which use them to the end.
type last struct {
	*flows.Keeper
	kernel *kernel
}

// Close implements firewall.Flows.
func (l last) Close(ctx context.Context, held []portmap.Mapping) error {
	err := l.Keeper.Close(ctx, held)
	l.kernel.close()
	return err
}

// Held reports whether another host's flow, or one of the gateway itself, leaves from an
// external port, as far as that can be told at once.
func (b *Backend) Held(t portmap.Transport, external uint16, host netip.Addr) bool {
	return b.keeper.Held(t, external, host)
}

// OutboundTimeout returns how long the kernel lets answers in, at least, after the
// last packet of what a host began itself.
func (b *Backend) OutboundTimeout(t portmap.Transport) (time.Duration, error) {
	return flows.OutboundTimeout(b.kernel.cfg.NetNS, t)
}
