package iptables

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"portcullis/internal/enter"
)

// The kernel shows a table of iptables-legacy to whoever asks a socket for it, as the
// programs do (linux/netfilter_ipv4/ip_tables.h and linux/netfilter_ipv6/ip6_tables.h).
// What its rules say is the programs' business. That they are the same as before can be
// told without: by a sum of all octets but the counters.

// seen is what a program has told of FORWARD, and the sum of its table before and after.
type seen struct {
	sum     uint64
	forward []line
}

// shown returns the sum of a table, where the kernel shows it: not those of iptables-nft. What
// keeps it from doing so is the business of the program that is run instead.
func (p *programs) shown(table string) (sum uint64, shows bool) {
	if p.flavour != legacy {
		return 0, false
	}
	sum, err := p.sum(table)
	return sum, err == nil
}

// still reports whether a table has the sum that it had before a program listed it. Who flushes
// a table and fills it again may have had it listed in between. (Both within that program's
// few milliseconds are not seen.)
func (p *programs) still(table string, was uint64) bool {
	sum, shows := p.shown(table)
	return shows && sum == was
}

// forward returns the rules of FORWARD. It runs no program where the table shows that it is as
// it was.
func (p *programs) forward(ctx context.Context) ([]line, error) {
	sum, shows := p.shown("filter")
	p.mu.Lock()
	last := p.seen
	p.mu.Unlock()
	if shows && last != nil && last.sum == sum {
		return last.forward, nil
	}
	there, err := p.save(ctx, "filter")
	if err != nil {
		return nil, err
	}
	lines := there.chains[chainKey{"filter", "FORWARD"}]
	if shows && p.still("filter", sum) {
		p.mu.Lock()
		p.seen = &seen{sum, lines}
		p.mu.Unlock()
	}
	return lines, nil
}

// The options of a socket that show a table, IPT_SO_GET_INFO and IPT_SO_GET_ENTRIES, which
// IPv6 has under the same numbers.
const (
	getInfo    = 64
	getEntries = 65
)

// struct ipt_getinfo: the table's name, hooks and how they end, the number of entries and
// their size in octets. It is the same for each family and processor.
const (
	tableName = 32
	infoSize  = 84
	sizeAt    = 80
)

// entry says where in struct ipt_entry or ip6t_entry the length of it is, 16 bits, and where
// its two counters are, of 64 bits each.
type entry struct{ next, counters int }

const counters = 16

var entries = [2]entry{four: {next: 90, counters: 96}, six: {next: 142, counters: aligned(148)}}

// aligned returns where C puts 64 bits that come after so many octets. i386 alone has them
// at any fourth octet (as has a program of it under a kernel of 64 bits).
func aligned(n int) int {
	if runtime.GOARCH == "386" {
		return n
	}
	return (n + 7) &^ 7
}

var seed = maphash.MakeSeed()

// sum returns the sum of a table. Whoever asks for a table that the kernel has not loaded
// has it loaded, as the programs do.
func (p *programs) sum(table string) (sum uint64, err error) {
	domain, level := unix.AF_INET, unix.IPPROTO_IP
	if p.family == six {
		domain, level = unix.AF_INET6, unix.IPPROTO_IPV6
	}
	fd := -1
	err = enter.In(p.netns, func() (err error) {
		fd, err = unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return 0, err
	}
	defer func() { _ = unix.Close(fd) }()
	var h maphash.Hash
	h.SetSeed(seed)
	for range tries {
		var info, all []byte
		if info, all, err = entriesOf(fd, level, table); errors.Is(err, unix.EAGAIN) {
			continue // it was changed between the two questions
		}
		if err == nil {
			err = forget(all, entries[p.family])
		}
		_, _ = h.Write(info) // never fails
		_, _ = h.Write(all)
		return h.Sum64(), err
	}
	return 0, err
}

// entriesOf returns what the kernel says of a table, and its entries.
func entriesOf(fd, level int, table string) (info, all []byte, err error) {
	info = make([]byte, infoSize)
	copy(info[:tableName-1], table)
	if err := ask(fd, level, getInfo, info); err != nil {
		return nil, nil, err
	}
	size, head := binary.NativeEndian.Uint32(info[sizeAt:]), aligned(tableName+4)
	if size > maxTable {
		return nil, nil, fmt.Errorf("a table of %d octets", size)
	}
	all = make([]byte, head+int(size))
	copy(all[:tableName-1], table)
	binary.NativeEndian.PutUint32(all[tableName:], size)
	if err := ask(fd, level, getEntries, all); err != nil {
		return nil, nil, err
	}
	return info, all[head:], nil
}

// ask asks an option of a socket for as much as fits, which must be what there is.
func ask(fd, level, option int, b []byte) error {
	size := uint32(len(b))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	if int(size) != len(b) {
		return fmt.Errorf("%d octets of a table, not %d", size, len(b))
	}
	return nil
}

// forget sets the counters of all entries to 0.
func forget(all []byte, e entry) error {
	for len(all) > 0 {
		if len(all) < e.counters+counters {
			return fmt.Errorf("an entry of %d octets", len(all))
		}
		next := int(binary.NativeEndian.Uint16(all[e.next:]))
		if next < e.counters+counters || next > len(all) {
			return fmt.Errorf("an entry of %d octets in %d", next, len(all))
		}
		clear(all[e.counters : e.counters+counters])
		all = all[next:]
	}
	return nil
}
