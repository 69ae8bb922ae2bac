package nft

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"sync"
	"syscall"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"portcullis/firewall"
)

// reader owns the socket for what only looks. It is safe for concurrent use; it
// never waits for the writer, nor the writer for it.
type reader struct {
	netns    int
	patience time.Duration // for each message of a list; 0: patience

	mu     sync.Mutex // guards what follows; held while a request is under way
	conn   *nftables.Conn
	socket *netlink.Conn
	short  *exchange // for what is answered at once
	closed bool
}

// do lends the socket to one request. After any error the socket is replaced,
// because half an answer may still be in it.
func (r *reader) do(ctx context.Context, request func(*nftables.Conn, *netlink.Conn) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return firewall.ErrClosed
	}
	if r.conn == nil {
		conn, socket, err := dial(r.netns)
		if err != nil {
			return err
		}
		r.conn, r.socket = conn, socket
	}
	release, err := bound(ctx, r.socket)
	if err == nil {
		err = request(r.conn, r.socket)
		release()
	}
	if err != nil {
		r.drop()
	}
	return err
}

// close ends the reader; it waits for a request under way.
func (r *reader) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.drop()
}

func (r *reader) drop() {
	if r.conn != nil {
		_ = r.conn.CloseLasting()
		r.conn, r.socket = nil, nil
	}
	if r.short != nil {
		r.short.close()
		r.short = nil
	}
}

// dial opens a lasting socket in a network namespace (0: the current one) and
// gives the library's handle and the socket below it, for deadlines.
func dial(netns int) (*nftables.Conn, *netlink.Conn, error) {
	var socket *netlink.Conn
	options := []nftables.ConnOption{
		nftables.AsLasting(),
		nftables.WithSockOptions(func(c *netlink.Conn) error {
			socket = c
			_ = c.SetReadBuffer(bufferSize) // a wish
			_ = c.SetWriteBuffer(bufferSize)
			return nil
		}),
	}
	if netns != 0 {
		options = append(options, nftables.WithNetNSFd(netns))
	}
	conn, err := nftables.New(options...)
	if err != nil {
		return nil, nil, explain(fmt.Errorf("opening a netlink socket: %w", err))
	}
	return conn, socket, nil
}

// bound makes reads from a socket end when ctx ends, until release is called.
// The library's calls take no context.
func bound(ctx context.Context, socket *netlink.Conn) (release func(), err error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(patience)
	}
	if err := socket.SetReadDeadline(deadline); err != nil {
		return nil, fmt.Errorf("setting a deadline: %w", err)
	}
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = socket.SetReadDeadline(time.Unix(1, 0))
		close(done)
	})
	return func() {
		if !stop() {
			<-done // or it would hit whoever uses the socket next
		}
		_ = socket.SetReadDeadline(time.Time{}) // which would wake the process for nothing
	}, nil
}

// dumpTries is how often a listing that changed meanwhile is taken again.
const dumpTries = 5

// dump lists a set.
func (r *reader) dump(ctx context.Context, family nftables.TableFamily, table, set string) ([]element, error) {
	var all []element
	_, err := r.scan(ctx, family, table, set, func() { all = nil }, func(el element) { all = append(all, el.kept()) })
	return all, err
}

// scan hands on each element of a set, which is not to be kept, and returns the digest of their keys; it begins
// again, and says so, where the set changed meanwhile. The library's own listing does not
// notice that, which can lose elements or show them twice, and has all answers in memory.
func (r *reader) scan(ctx context.Context, family nftables.TableFamily, table, set string, begin func(), use func(element)) (keys digest, err error) {
	restart := func() {
		keys = digest{}
		begin()
	}
	err = r.listing(ctx, getElements(family, table, set, nil, netlink.Dump), restart, func(m netlink.Message) error {
		return eachElement(m, func(el element) {
			if keys.add(el.key, nil, el.intervalEnd) { // a listing may show one twice
				use(el)
			}
		})
	})
	if err != nil {
		return keys, fmt.Errorf("listing set %s: %w", set, err)
	}
	return keys, nil
}

// dumpSettled lists a set until two listings agree. While the kernel enlarges
// its hash table, which it does in the background and without telling, a listing
// may show elements twice and leave others out (measured, with 129).
func (r *reader) dumpSettled(ctx context.Context, set string) ([]element, error) {
	var last digest
	for try := range dumpTries {
		var all []element
		now, err := r.scan(ctx, nftables.TableFamilyINet, Table, set, func() { all = nil }, func(el element) {
			if try > 0 {
				all = append(all, el.kept())
			}
		})
		if err != nil {
			return nil, err
		}
		if try > 0 && now.equal(last) {
			return all, nil
		}
		last = now
	}
	return nil, fmt.Errorf("listing set %s: %w", set, firewall.ErrChanging)
}

// digest stands for a set of elements where they themselves would take much memory: by
// their hashes, under a seed that nobody knows.
type digest struct {
	seen map[uint64]struct{}
	sum  uint64
}

var digestSeed = maphash.MakeSeed()

// add reports whether the element is new.
func (d *digest) add(key, val []byte, end bool) bool {
	mark := byte(len(key))
	if end {
		mark |= 0x80 // no key has so many octets
	}
	return d.addParts(mark, key, val, nil)
}

// addElement is add for one whose key may be a range.
func (d *digest) addElement(key, keyEnd, val []byte) { d.addParts(byte(len(key)), key, val, keyEnd) }

func (d *digest) addParts(mark byte, parts ...[]byte) bool {
	var h maphash.Hash
	h.SetSeed(digestSeed)
	_ = h.WriteByte(mark) // these never fail
	for _, p := range parts {
		_, _ = h.Write(p)
	}
	n := h.Sum64()
	if _, there := d.seen[n]; there {
		return false
	}
	if d.seen == nil {
		d.seen = make(map[uint64]struct{})
	}
	d.seen[n] = struct{}{}
	d.sum += n
	return true
}

func (d *digest) equal(o digest) bool { return len(d.seen) == len(o.seen) && d.sum == o.sum }

// listing makes a request that lists something, again where that changed meanwhile, and
// hands the answers on as they come; begin says that those before were for nothing. What
// use is handed it must not keep.
func (r *reader) listing(ctx context.Context, request netlink.Message, begin func(), use func(netlink.Message) error) error {
	return r.do(ctx, func(_ *nftables.Conn, c *netlink.Conn) error {
		for range dumpTries {
			begin()
			changed := false
			err := execute(ctx, c, request, cmp.Or(r.patience, patience), func(m netlink.Message) error {
				changed = changed || m.Header.Flags&netlink.DumpInterrupted != 0
				return use(m)
			})
			if err != nil || !changed {
				return err
			}
		}
		return firewall.ErrChanging
	})
}

// execute sends a request for a list and hands on each message of the answer, in memory
// that the next one takes. Each may take its time, for a long list has many; the library
// has one deadline for all.
func execute(ctx context.Context, c *netlink.Conn, request netlink.Message, patience time.Duration, use func(netlink.Message) error) error {
	sent, err := c.Send(request)
	if err != nil {
		return err
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	defer c.SetReadDeadline(time.Time{}) // or it would wake the process for nothing
	buf := make([]byte, 64<<10)
	for {
		deadline := time.Now().Add(patience)
		if last, ok := ctx.Deadline(); ok && last.Before(deadline) {
			deadline = last
		}
		if err := errors.Join(c.SetReadDeadline(deadline), ctx.Err()); err != nil { // in this order, see bound
			return err
		}
		datagram, err := receive(raw, buf)
		if err != nil {
			return err
		}
		for len(datagram) > 0 {
			m, rest, err := firstMessage(datagram)
			if err != nil {
				return err
			}
			datagram = rest
			if m.Header.Sequence != sent.Header.Sequence {
				continue
			}
			if t := m.Header.Type; t != netlink.Done && t != netlink.Error {
				if err := use(m); err != nil {
					return err
				}
				continue
			}
			if len(m.Data) >= 4 {
				if errno := -int32(binary.NativeEndian.Uint32(m.Data)); errno > 0 {
					return unix.Errno(errno)
				}
			}
			return nil
		}
	}
}

// receive waits for one datagram. The buffer is for any; the kernel's are half as large
// at most.
func receive(raw syscall.RawConn, buf []byte) ([]byte, error) {
	n, err := 0, error(nil)
	waited := raw.Read(func(fd uintptr) bool {
		for n, _, err = unix.Recvfrom(int(fd), buf, 0); errors.Is(err, unix.EINTR); {
			n, _, err = unix.Recvfrom(int(fd), buf, 0)
		}
		return !errors.Is(err, unix.EAGAIN)
	})
	if err = errors.Join(waited, err); err != nil {
		return nil, fmt.Errorf("netlink receive: %w", err)
	}
	return buf[:n], nil
}

// setNames lists the sets and maps of a table by name. The library's own
// listing fails on all when it does not know the type of one.
func (r *reader) setNames(ctx context.Context, table *nftables.Table) ([]string, error) {
	ae := netlink.NewAttributeEncoder()
	ae.String(unix.NFTA_SET_TABLE, table.Name)
	attrs, err := ae.Encode()
	if err != nil {
		return nil, err
	}
	var names []string
	err = r.listing(ctx, message(unix.NFT_MSG_GETSET, netlink.Dump, table.Family, attrs), func() { names = nil }, func(a netlink.Message) error {
		ad, err := answer(a)
		if err != nil {
			return err
		}
		for ad.Next() {
			if ad.Type() == unix.NFTA_SET_NAME {
				names = append(names, ad.String())
			}
		}
		return ad.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("listing the sets of table %s: %w", table.Name, err)
	}
	return names, nil
}

// message is a request to nf_tables.
func message(kind int, flags netlink.HeaderFlags, family nftables.TableFamily, attrs []byte) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind),
			Flags: netlink.Request | flags,
		},
		Data: append([]byte{byte(family), unix.NFNETLINK_V0, 0, 0}, attrs...),
	}
}

// answer returns the attributes of an answer from nf_tables.
func answer(a netlink.Message) (*netlink.AttributeDecoder, error) {
	if len(a.Data) < 4 {
		return nil, errors.New("an answer without a header")
	}
	return decoder(a.Data[4:])
}

// get asks for some elements by their keys. One that is not there makes it
// fail with ENOENT, as does a set or table that is not there.
func (r *reader) get(ctx context.Context, set *nftables.Set, keys [][]byte) (all []element, err error) {
	err = r.eachOf(ctx, set, keys, func(el element) { all = append(all, el.kept()) })
	return all, err
}

// eachOf is get that hands the elements on, which are not to be kept. Where it fails, it has
// handed on those before.
func (r *reader) eachOf(ctx context.Context, set *nftables.Set, keys [][]byte, use func(element)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return firewall.ErrClosed
	}
	if r.short == nil {
		x, err := openExchange(r.netns, bufferSize)
		if err != nil {
			return explain(fmt.Errorf("opening a netlink socket: %w", err))
		}
		r.short = x
	}
	request := getElements(set.Table.Family, set.Table.Name, set.Name, keys, netlink.Acknowledge)
	err := r.short.ask(request, func(m netlink.Message) error { return eachElement(m, use) })
	if err != nil && !errors.Is(err, unix.ENOENT) {
		r.drop() // half an answer may still be in it
	}
	if err != nil {
		return fmt.Errorf("asking set %s: %w", set.Name, err)
	}
	return nil
}
