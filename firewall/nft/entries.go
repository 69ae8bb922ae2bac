package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"portcullis/firewall"
	"portcullis/portmap"
)

// errInconsistent is given when the sets of mappings contradict one another.
var errInconsistent = errors.New("the sets of mappings do not agree")

// Entries reads back what the kernel holds, in no order. Expires is the end of
// the lease that the kernel's remaining time stands for, within a second, or
// zero. A mapping that is in its map and not in the set of its flows, or the
// other way round, is an error: it does not work, and no Entry can say that.
func (b *Backend) Entries(ctx context.Context) ([]firewall.Entry, error) {
	var all []firewall.Entry
	for _, pair := range [][2]string{{"mapped", "mapped_flows"}, {"mapped_from", "mapped_flows_from"}} {
		holes, err := b.readHoles(ctx, pair[0], pair[1])
		if err != nil {
			return nil, err
		}
		all = append(all, holes...)
	}
	kept, err := b.reader.dumpSettled(ctx, "kept_ports")
	if err != nil {
		return nil, err
	}
	for _, el := range kept {
		if len(el.key) != 12 || len(el.val) < 2 {
			return nil, fmt.Errorf("%w: kept_ports holds %x", errInconsistent, el.key)
		}
		addr := netip.AddrFrom4([4]byte(el.key))
		all = append(all, firewall.Entry{
			Kind: firewall.Kept, Transport: portmap.Transport(el.key[4]),
			Internal: netip.AddrPortFrom(addr, binary.BigEndian.Uint16(el.key[8:])),
			External: binary.BigEndian.Uint16(el.val), Expires: el.lease(),
		})
	}
	return all, nil
}

func (b *Backend) readHoles(ctx context.Context, mapped, flows string) ([]firewall.Entry, error) {
	maps, err := b.reader.dumpSettled(ctx, mapped)
	if err != nil {
		return nil, err
	}
	open, err := b.reader.dumpSettled(ctx, flows)
	if err != nil {
		return nil, err
	}
	passes := make(map[string]bool, len(open))
	for _, el := range open {
		passes[string(el.key)] = true
	}
	var all []firewall.Entry
	for _, el := range maps {
		e := firewall.Entry{Kind: firewall.Hole, Expires: el.lease()}
		key := el.key
		if len(key) == 12 {
			e.Remote = netip.AddrFrom4([4]byte(key))
			key = key[4:]
		}
		if len(key) != 8 || len(el.val) < 6 {
			return nil, fmt.Errorf("%w: %s holds %x", errInconsistent, mapped, el.key)
		}
		e.Transport, e.External = portmap.Transport(key[0]), binary.BigEndian.Uint16(key[4:])
		e.Internal = netip.AddrPortFrom(netip.AddrFrom4([4]byte(el.val)), binary.BigEndian.Uint16(el.val[4:]))
		flow := string(flowKeyOf(e))
		if !passes[flow] {
			return nil, fmt.Errorf("%w: %s is in %s and not in %s", errInconsistent, e, mapped, flows)
		}
		delete(passes, flow)
		all = append(all, e)
	}
	for flow := range passes {
		return nil, fmt.Errorf("%w: %s holds %x, which is not in %s", errInconsistent, flows, flow, mapped)
	}
	return all, nil
}

// lease turns the kernel's remaining time back into the end of the lease.
func (e *element) lease() time.Time {
	if e.timeout == 0 {
		return time.Time{}
	}
	return time.Now().Add(e.left - grace)
}
