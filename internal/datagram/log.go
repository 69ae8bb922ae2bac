package datagram

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	"golang.org/x/time/rate"

	"portcullis/internal/slog"
)

const (
	logRate   = 10 // lines a second about single datagrams (abuse case K4)
	maxPanics = 3
)

// Log writes lines about single datagrams: so many a second, and nothing of their text.
// It is not safe for concurrent use.
type Log struct {
	*slog.Logger
	budget *rate.Limiter
	panics int
}

// NewLog returns one that writes to l.
func NewLog(l *slog.Logger) *Log {
	return &Log{Logger: l, budget: rate.NewLimiter(logRate, logRate)}
}

// Room reports whether there may be a line about a datagram, and takes it.
func (l *Log) Room(now time.Time) bool { return l.budget.AllowN(now, 1) }

// Ignored accounts for a datagram that gets no answer.
func (l *Log) Ignored(now time.Time, p Packet, reason string) {
	if l.Room(now) {
		l.Debug("datagram ignored", "client", p.Source, "destination", p.Destination,
			"ifindex", p.Ifindex, "octets", p.Size, "reason", reason)
	}
}

// NotSent accounts for an announcement that could not be sent. That its interface or
// address has gone is no news: the LAN is about to be given up. The network is unreachable
// by a socket that is bound to a device without an address.
func (l *Log) NotSent(now time.Time, from netip.Addr, err error) {
	gone := func(e syscall.Errno) bool { return errors.Is(err, e) }
	switch {
	case slices.ContainsFunc([]syscall.Errno{syscall.ENODEV, syscall.ENXIO, syscall.EADDRNOTAVAIL, syscall.ENETDOWN, syscall.ENETUNREACH}, gone):
		l.Debug("announcement not sent: the interface or its address has gone", "address", from, "err", err)
	case l.Room(now):
		l.Warn("announcement not sent", "address", from, "err", err)
	}
}

// Guard keeps one datagram from ending the program. After the third panic, of handle
// or otherwise accounted for, it returns an error: give up.
func (l *Log) Guard(handle func()) error {
	if p := Recovered(handle); p != nil {
		l.Panicked(*p)
	}
	if l.panics >= maxPanics {
		return fmt.Errorf("answering panicked %d times", l.panics)
	}
	return nil
}

// Panic is what a handler ended with.
type Panic struct {
	Value any
	Stack string
}

// Recovered calls handle and returns what it panicked with, nil if it did not.
func Recovered(handle func()) (panicked *Panic) {
	defer func() {
		if p := recover(); p != nil {
			panicked = &Panic{p, string(debug.Stack())}
		}
	}()
	handle()
	return nil
}

// Panicked accounts for a panic.
func (l *Log) Panicked(p Panic) {
	l.Error("datagram dropped after a panic", "panic", fmt.Sprintf("%.200v", p.Value), "stack", p.Stack)
	l.panics++
}
