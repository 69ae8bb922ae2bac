package nft

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"portcullis/firewall"
	"portcullis/portmap"
)

// entries reads back what the kernel holds, in no order. Expires is the end of
// the lease that the kernel's remaining time stands for, within a second, or
// zero. A mapping that is in its map and not in the set of its flows, or the
// other way round, is an error: it does not work, and no Entry can say that.
func (r *reader) entries(ctx context.Context) ([]firewall.Entry, error) {
	var all []firewall.Entry
	for _, row := range []struct {
		mapped string
		flows  []string
	}{
		{"mapped", []string{ownFlowNames.anyone}},
		{"mapped_from", []string{ownFlowNames.host}},
		{"mapped_filtered", []string{ownFlowNames.tcp, ownFlowNames.udp}},
	} {
		holes, err := r.readHoles(ctx, row.mapped, row.flows)
		if err != nil {
			return nil, err
		}
		all = append(all, holes...)
	}
	for _, set := range ownPinNames.list() {
		pins, err := r.readPins(ctx, set)
		if err != nil {
			return nil, err
		}
		all = append(all, pins...)
	}
	for _, read := range []func(context.Context) ([]firewall.Entry, error){r.readKept, r.readMapped} {
		more, err := read(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
	}
	return all, nil
}

func (r *reader) readKept(ctx context.Context) ([]firewall.Entry, error) {
	kept, err := r.dumpSettled(ctx, "kept_ports")
	if err != nil {
		return nil, err
	}
	var all []firewall.Entry
	for _, el := range kept {
		if len(el.key) != 12 || len(el.val) < 2 {
			return nil, fmt.Errorf("%w: kept_ports holds %x", firewall.ErrInconsistent, el.key)
		}
		all = append(all, firewall.Entry{
			Kind: firewall.Kept, Transport: portmap.Transport(el.key[4]),
			Internal: netip.AddrPortFrom(netip.AddrFrom4([4]byte(el.key)), binary.BigEndian.Uint16(el.key[8:])),
			External: binary.BigEndian.Uint16(el.val), Expires: el.lease(),
		})
	}
	return all, nil
}

func (r *reader) readMapped(ctx context.Context) ([]firewall.Entry, error) {
	elements, err := r.dumpSettled(ctx, "mapped_ports")
	if err != nil {
		return nil, err
	}
	var all []firewall.Entry
	for _, el := range elements {
		if len(el.key) != 8 {
			return nil, fmt.Errorf("%w: mapped_ports holds %x", firewall.ErrInconsistent, el.key)
		}
		all = append(all, firewall.Entry{
			Kind: firewall.Mapped, Transport: portmap.Transport(el.key[0]),
			External: binary.BigEndian.Uint16(el.key[4:]), Expires: el.lease(),
		})
	}
	return all, nil
}

func (r *reader) readPins(ctx context.Context, set string) ([]firewall.Entry, error) {
	elements, err := r.dumpSettled(ctx, set)
	if err != nil {
		return nil, err
	}
	var all []firewall.Entry
	for _, el := range elements {
		e, ok := pinIn(set, el)
		if !ok {
			return nil, fmt.Errorf("%w: %s holds %x", firewall.ErrInconsistent, set, el.key)
		}
		e.Expires = el.lease()
		all = append(all, e)
	}
	return all, nil
}

func (r *reader) readHoles(ctx context.Context, mapped string, flows []string) ([]firewall.Entry, error) {
	maps, err := r.dumpSettled(ctx, mapped)
	if err != nil {
		return nil, err
	}
	passes := make(map[firewall.Entry]bool, len(maps))
	for _, set := range flows {
		open, err := r.dumpSettled(ctx, set)
		if err != nil {
			return nil, err
		}
		for _, el := range open {
			e, ok := flowIn(set, el)
			if !ok {
				return nil, fmt.Errorf("%w: %s holds %x", firewall.ErrInconsistent, set, el.key)
			}
			passes[e] = true
		}
	}
	var all []firewall.Entry
	for _, el := range maps {
		e, ok := holeIn(el)
		if !ok {
			return nil, fmt.Errorf("%w: %s holds %x", firewall.ErrInconsistent, mapped, el.key)
		}
		if !passes[e] {
			return nil, fmt.Errorf("%w: %s is in %s and its flows are not let through", firewall.ErrInconsistent, e, mapped)
		}
		delete(passes, e)
		e.Expires = el.lease()
		all = append(all, e)
	}
	for e := range passes {
		return nil, fmt.Errorf("%w: the flows of %s are let through, and it is not in %s", firewall.ErrInconsistent, e, mapped)
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
