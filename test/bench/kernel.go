package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"golang.org/x/sys/unix"
)

// playKernel measures the kernel alone: one element, one transaction, nothing
// around it but the library that the backend uses too.
func playKernel(ctx context.Context, p plan, tell func(Row)) error {
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
	all := ports()
	var sides []side
	for _, level := range p.levels {
		set, err := bareSet(conn, level)
		if err != nil {
			return err
		}
		if err := bareAll(conn, set, all[:level], false); err != nil {
			return err
		}
		sides = append(sides, side{kernelName, level, level, []task{single(measureBare, 1, func() (sample, error) {
			return bareLevel(ctx, conn, set, p, all[level:])
		})}})
	}
	return inTurns(tell, sides...)
}

// bareSet makes a map like the one that translates, in a table of its own.
func bareSet(conn *nftables.Conn, level int) (*nftables.Set, error) {
	set := &nftables.Set{
		Table: conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: fmt.Sprintf("bench_%d", level)}),
		Name:  "mapped", IsMap: true, Concatenation: true, HasTimeout: true, KeyByteOrder: binaryutil.BigEndian, Size: 1 << 17,
		KeyType:  nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService),
		DataType: nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService),
	}
	if err := conn.AddSet(set, nil); err != nil {
		return nil, err
	}
	if err := conn.Flush(); err != nil {
		return nil, fmt.Errorf("%s: %w", measureBare, err)
	}
	return set, nil
}

func bareLevel(ctx context.Context, conn *nftables.Conn, set *nftables.Set, p plan, spare []uint16) (total sample, err error) {
	for total.Elapsed < p.slice {
		s, err := together(ctx, 1, p.batch, time.Hour, func(i int) error { return bare(conn, set, spare[i:i+1], false) })
		if err != nil {
			return total, err
		}
		total = total.plus(s)
		if err := bareAll(conn, set, spare[:p.batch], true); err != nil {
			return total, err
		}
	}
	return total, nil
}

// bareAll adds or removes any number of elements.
func bareAll(conn *nftables.Conn, set *nftables.Set, of []uint16, remove bool) error {
	for part := range slices.Chunk(of, 100) {
		if err := bare(conn, set, part, remove); err != nil {
			return err
		}
	}
	return nil
}

// bareElement is what a mapping would be.
func bareElement(proto byte, port uint16) nftables.SetElement {
	hi, lo := byte(port>>8), byte(port)
	return nftables.SetElement{
		Key: []byte{proto, 0, 0, 0, hi, lo, 0, 0}, Val: []byte{192, 168, 77, 10, hi, lo, 0, 0}, Timeout: time.Hour,
	}
}

// bare adds or removes elements in one transaction.
func bare(conn *nftables.Conn, set *nftables.Set, of []uint16, remove bool) error {
	elements := make([]nftables.SetElement, len(of))
	for i, p := range of {
		if elements[i] = bareElement(unix.IPPROTO_TCP, p); remove {
			elements[i].Val, elements[i].Timeout = nil, 0
		}
	}
	change := conn.SetAddElements
	if remove {
		change = conn.SetDeleteElements
	}
	if err := change(set, elements); err != nil {
		return err
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("%s: %w", measureBare, err)
	}
	return nil
}
