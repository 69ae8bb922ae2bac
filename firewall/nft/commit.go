package nft

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"portcullis/firewall"
)

// Limits of one transaction. The kernel copies the whole batch at once, so it must fit
// the send buffer, and may refuse every message before the first answer is read, so
// the answers must fit the receive buffer.
const (
	maxMessages  = 64       // of elements; the skeleton's own come on top
	bufferSize   = 2 << 20  // what we ask for; needs CAP_NET_ADMIN beyond the system's limit
	leastBudget  = 64 << 10 // bytes of a batch where the buffer's size cannot be known
	skeletonSize = 32 << 10 // bytes kept free for the skeleton
	marksSize    = 16 << 10 // and so many more for one that marks
	patience     = 5 * time.Second
)

// writer owns the socket that changes the kernel. It alone calls Flush. The
// socket is kept: closing one after a removal waits for the kernel's RCU, 7 to
// 15 ms. It is not safe for concurrent use.
type writer struct {
	netns  int
	buffer int      // bytes of send buffer to ask for; 0: bufferSize
	own    *unheard // nil: nobody watches for what others do
	conn   *nftables.Conn
	socket *exchange
	budget int // bytes that fit one batch
}

// commit makes one transaction of what build queues. The error is the kernel's
// refusal, after which nothing has changed, or wraps firewall.ErrUnknown.
func (w *writer) commit(ctx context.Context, build func(q *nftables.Conn) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := w.open(); err != nil {
		return err
	}
	if err := build(w.conn); err != nil {
		w.drop() // the half-built batch is queued in it
		return fmt.Errorf("building a transaction: %w", err)
	}
	return w.outcome(w.conn.Flush())
}

// outcome tells what became of a transaction, of the error that it ended with.
func (w *writer) outcome(err error) error {
	switch {
	case err == nil:
		return nil
	case !refusal(err):
		w.drop()
		return fmt.Errorf("%w: %w", firewall.ErrUnknown, err)
	}
	return &refused{errnos(err)}
}

// refused is what the kernel said to a transaction. The library asks for the answer to
// every message of it, so its error says the same thing many times over.
type refused struct{ reasons []error }

func (e *refused) Error() string {
	texts := make([]string, len(e.reasons))
	for i, r := range e.reasons {
		texts[i] = r.Error()
	}
	return "the kernel refused the transaction: " + strings.Join(texts, ", ")
}

func (e *refused) Unwrap() []error { return e.reasons }

// errnos returns the distinct error numbers inside an error.
func errnos(err error) []error {
	switch e := err.(type) {
	case syscall.Errno:
		return []error{e}
	case interface{ Unwrap() error }:
		return errnos(e.Unwrap())
	case interface{ Unwrap() []error }:
		var all []error
		for _, part := range e.Unwrap() {
			for _, n := range errnos(part) {
				if !slices.Contains(all, n) {
					all = append(all, n)
				}
			}
		}
		return all
	}
	return nil
}

// refusal reports whether the kernel itself said no.
func refusal(err error) bool {
	var errno syscall.Errno
	return errors.As(err, &errno) && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, os.ErrDeadlineExceeded)
}

func (w *writer) open() error {
	if w.conn != nil {
		return nil
	}
	size := w.buffer
	if size == 0 {
		size = bufferSize
	}
	socket, err := openExchange(w.netns, size)
	if err != nil {
		return explain(fmt.Errorf("opening a netlink socket: %w", err))
	}
	// What the library calls a test's is the only way to lend it a socket.
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithTestDial(socket.run))
	if err != nil {
		socket.close()
		return err
	}
	w.conn, w.socket = conn, socket
	w.budget = socket.sendBuffer() * 3 / 4
	if w.own != nil {
		w.own.writes(socket.port)
	}
	return nil
}

// drop closes the socket; the next commit opens another.
func (w *writer) drop() {
	if w.conn == nil {
		return
	}
	if w.own != nil {
		w.own.writes(0)
	}
	w.socket.close()
	w.conn, w.socket = nil, nil
}

// fits reports whether the operations are one transaction, with extra bytes beside
// them.
func (w *writer) fits(ops []elementOp, extra int) bool {
	return len(ops) <= maxMessages && opsSize(ops)+extra <= w.budget
}

// batches splits operations into transactions.
func (w *writer) batches(ops []elementOp) [][]elementOp {
	var all [][]elementOp
	for start := 0; start < len(ops); {
		end, bytes := start, 0
		for end < len(ops) && end-start < maxMessages && (end == start || bytes+ops[end].size() <= w.budget) {
			bytes += ops[end].size()
			end++
		}
		all = append(all, ops[start:end])
		start = end
	}
	return all
}

func opsSize(ops []elementOp) int {
	n := 0
	for _, op := range ops {
		n += op.size()
	}
	return n
}

func queueAll(q *nftables.Conn, ops []elementOp) error {
	for _, op := range ops {
		if err := op.queue(q); err != nil {
			return err
		}
	}
	return nil
}

// explain puts what a person must act on in front of the kernel's word.
func explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w: %w", firewall.ErrPermission, err)
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("%w: %w", firewall.ErrUnsupported, err)
	case errors.Is(err, unix.ENFILE):
		return fmt.Errorf("%w: %w", firewall.ErrFull, err)
	}
	return err
}
