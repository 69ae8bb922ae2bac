package netif

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/internal/sockets"
)

// Bounds of what is remembered of neighbours.
const (
	maxSights = 256         // control points that ask at the same time are a few
	sightLife = time.Second // what a Sighting says of time is older by no more
	maxNews   = 32          // changes that are read before a question; behind more of them it is asked
	newsRoom  = 4 << 10     // octets of the socket's buffer: one change that found no room says enough
)

// sights remembers what the kernel has said of neighbours while none of them changes: it
// says so to a socket that nobody waits at, and which is looked at before each use. A
// question is two system calls that look for an entry, this is one that finds nothing.
type sights struct {
	mu   sync.Mutex // guards what follows
	news int        // the socket; -1: nothing is remembered
	age  uint64     // counts the changes
	all  map[sight]seenAt
	buf  [1]byte // nobody reads what has changed
}

type sight struct {
	ifindex int
	addr    netip.Addr
}

type seenAt struct {
	Sighting
	at time.Time
}

// open subscribes to changes, in the network namespace of the thread. Without it everything
// is asked.
func (s *sights) open() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open rtnetlink: %w", err)
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, newsRoom),
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.RTNLGRP_NEIGH - 1)}),
	)
	if err != nil {
		return errors.Join(fmt.Errorf("subscribe to neighbours: %w", err), unix.Close(fd))
	}
	s.news = fd
	return nil
}

func (s *sights) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.news >= 0 {
		_ = unix.Close(s.news) // nothing can be lost
	}
	s.news = -1
}

// recall returns what is remembered of a neighbour, and else the age to remember the answer
// of the kernel with.
func (s *sights) recall(of sight, now time.Time) (found Sighting, age uint64, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	quiet := s.listen()
	r, known := s.all[of]
	return r.Sighting, s.age, known && quiet && now.Sub(r.at) < sightLife
}

// note remembers an answer, unless there was a change since its question.
func (s *sights) note(of sight, seen Sighting, age uint64, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if age != s.age || s.news < 0 {
		return
	}
	if s.all == nil || len(s.all) >= maxSights {
		s.all = make(map[sight]seenAt)
	}
	s.all[of] = seenAt{seen, now}
}

// listen forgets everything where something has changed, and reports whether it has heard
// of all changes; mu is held.
func (s *sights) listen() bool {
	if s.news < 0 {
		return false
	}
	for range maxNews {
		if _, err := sockets.ReadNow(s.news, s.buf[:]); err == unix.EAGAIN {
			return true
		}
		s.age++ // also after ENOBUFS: something has changed that found no room
		clear(s.all)
	}
	return false
}
