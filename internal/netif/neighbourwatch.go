package netif

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// WatchNeighbours reports whenever the kernel learns, or hears again, which MAC
// address has an address on a link, or that nobody answers for it, which is a Sighting
// of zeros, until ctx ends. Both functions are called from
// one goroutine and must be quick: what finds no room meanwhile is lost, and lost
// is called so that everything can be looked at; so it is once at the start. It
// fails when the subscription does.
func (k *Kernel) WatchNeighbours(ctx context.Context, tell func(ifindex int, addr netip.Addr, s Sighting), lost func()) error {
	file, err := k.openNeighbours()
	if err != nil {
		return fmt.Errorf("subscribe to neighbours: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = file.Close() })
	defer func() {
		stop()
		_ = file.Close()
	}()
	lost()
	buf := make([]byte, 64<<10)
	for {
		n, err := file.Read(buf)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, unix.ENOBUFS):
			lost()
			continue
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("read of neighbours: %w", err)
		}
		messages, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			lost()
			continue
		}
		for _, m := range messages {
			if m.Header.Type != unix.RTM_NEWNEIGH {
				continue
			}
			n, ok := decodeNeighbour(m.Data)
			switch {
			case !ok:
			case n.state&unix.NUD_FAILED != 0:
				tell(n.index, n.addr, Sighting{})
			case n.state&aliveStates != 0 && n.mac != [6]byte{}:
				tell(n.index, n.addr, n.sighting())
			}
		}
	}
}

func (k *Kernel) openNeighbours() (file *os.File, err error) {
	err = k.inNamespace(func() error {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		file = os.NewFile(uintptr(fd), "rtnetlink neighbours")
		if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.RTNLGRP_NEIGH - 1)}); err != nil {
			return errors.Join(err, file.Close())
		}
		return nil
	})
	return file, err
}
