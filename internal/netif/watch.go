package netif

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/internal/slog"
)

const (
	// debounce is how long after the first hint the network is read. The wait
	// is not prolonged by further hints, so a flapping link delays nothing.
	debounce = 200 * time.Millisecond

	// Reading may take at most a fifth of the time, however often a gateway
	// with a large routing table gets hints.
	readShare = 4

	minRetry = 100 * time.Millisecond
	maxRetry = 5 * time.Second
)

// hints is a source of "something changed". Wait returns nil for a hint;
// ENOBUFS means that some were lost, which is a hint as well.
type hints interface {
	Wait() error
	Close() error
}

// hintGroups are the multicast groups of rtnetlink that concern a State.
const hintGroups = 1<<(unix.RTNLGRP_LINK-1) |
	1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_IFADDR-1) |
	1<<(unix.RTNLGRP_IPV4_ROUTE-1) | 1<<(unix.RTNLGRP_IPV6_ROUTE-1) |
	1<<(unix.RTNLGRP_IPV4_RULE-1) | 1<<(unix.RTNLGRP_IPV6_RULE-1) |
	1<<(unix.RTNLGRP_NEXTHOP-1) // no route says so when the object that it names changes

// hintSocket reads one byte of each notification: what happened is read from the
// kernel's tables, never from the message. The library's subscriptions decode every
// message, and end at the first that is odd or late.
type hintSocket struct {
	file *os.File
	conn syscall.RawConn
}

func (k *Kernel) openHints() (hints, error) {
	var h *hintSocket
	err := k.inNamespace(func() error {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		file := os.NewFile(uintptr(fd), "rtnetlink hints")
		conn, err := file.SyscallConn()
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: hintGroups})
		}
		if err != nil {
			return errors.Join(err, file.Close())
		}
		h = &hintSocket{file: file, conn: conn}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("subscribe to network changes: %w", err)
	}
	return h, nil
}

// Wait blocks until a notification arrives or the socket is closed.
func (h *hintSocket) Wait() error {
	var one [1]byte
	var readErr error
	err := h.conn.Read(func(fd uintptr) bool {
		_, readErr = unix.Read(int(fd), one[:])
		return !errors.Is(readErr, unix.EAGAIN)
	})
	if err != nil {
		return err
	}
	return readErr
}

func (h *hintSocket) Close() error { return h.file.Close() }

// Watch publishes the State at once, and then whenever it differs from the last
// one published, until ctx ends; then it returns the context's error, and
// nothing of it runs any more. publish is called from one goroutine, one call
// at a time. It may take its time: changes meanwhile are noticed and become one
// State, the newest.
//
// It fails only when the first subscription or the first reading does; later
// failures are logged and tried again.
func (k *Kernel) Watch(ctx context.Context, publish func(State)) error {
	w := watcher{subscribe: k.openHints, read: k.Read, log: k.log}
	return w.run(ctx, publish)
}

// watcher is the loop of Watch, apart from the kernel.
type watcher struct {
	subscribe func() (hints, error)
	read      func(context.Context) (State, error)
	log       *slog.Logger
}

func (w *watcher) run(ctx context.Context, publish func(State)) error {
	// Subscribe, then read: the other way round a change between is lost.
	source, err := w.subscribe()
	if err != nil {
		return err
	}
	state, err := w.read(ctx)
	if err != nil {
		return errors.Join(err, source.Close())
	}
	changed := make(chan struct{}, 1)
	var receiver sync.WaitGroup
	receiver.Go(func() { w.receive(ctx, source, changed) })
	defer receiver.Wait()

	publish(state)
	for wait := debounce; ; {
		if !pause(ctx, changed, wait) {
			return ctx.Err()
		}
		begin := time.Now()
		next, err := w.readAgain(ctx)
		if err != nil {
			return err // only the end of ctx
		}
		wait = max(debounce, readShare*time.Since(begin))
		if !next.Equal(state) {
			state = next
			publish(state)
		}
	}
}

// pause waits for a hint and then for more of them. False when ctx is over.
func pause(ctx context.Context, changed <-chan struct{}, wait time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-changed:
	}
	if !delay(ctx, wait) {
		return false
	}
	// What came during the wait is covered by the reading that begins now.
	select {
	case <-changed:
	default:
	}
	return true
}

func delay(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// readAgain reads until it succeeds. It fails only when ctx ends.
func (w *watcher) readAgain(ctx context.Context) (State, error) {
	for wait := minRetry; ; wait = min(2*wait, maxRetry) {
		s, err := w.read(ctx)
		if err == nil {
			return s, nil
		}
		if ctx.Err() != nil {
			return State{}, ctx.Err()
		}
		if wait == minRetry {
			w.log.Warn("cannot read the network; retrying", "err", err)
		}
		if !delay(ctx, wait) {
			return State{}, ctx.Err()
		}
	}
}

// receive turns notifications into hints until ctx ends. It owns the source.
func (w *watcher) receive(ctx context.Context, source hints, changed chan<- struct{}) {
	for {
		err := drain(ctx, source, changed)
		if ctx.Err() != nil {
			return
		}
		w.log.Warn("network watch ended; restarting it", "err", err)
		if source = w.resubscribe(ctx); source == nil {
			return
		}
		hint(changed) // what happened without a subscription is found by reading
	}
}

// drain reads the source until it fails, and closes it.
func drain(ctx context.Context, source hints, changed chan<- struct{}) error {
	// A blocked Wait ends by closing, which may happen twice.
	stop := context.AfterFunc(ctx, func() { _ = source.Close() })
	defer func() {
		stop()
		_ = source.Close()
	}()
	for {
		err := source.Wait()
		switch {
		case err == nil, errors.Is(err, unix.ENOBUFS):
			hint(changed)
		case errors.Is(err, unix.EINTR):
		default:
			return err
		}
	}
}

func hint(changed chan<- struct{}) {
	select {
	case changed <- struct{}{}:
	default:
	}
}

// resubscribe tries until it succeeds; nil when ctx ended before. It waits
// before it tries, so that a source that always fails at once costs little.
func (w *watcher) resubscribe(ctx context.Context) hints {
	for wait := minRetry; delay(ctx, wait); wait = min(2*wait, maxRetry) {
		source, err := w.subscribe()
		if err == nil {
			return source
		}
		if wait == minRetry {
			w.log.Warn("network watch failed; retrying", "err", err)
		}
	}
	return nil
}
