package netif

import (
	"context"
	"io"
	"net/netip"
	"sync/atomic"

	"portcullis/internal/slog"
)

// Hints lets tests stand between Watch and its subscription.
type Hints = hints

// RunWatch is the loop of Watch over a given subscription and reading.
func RunWatch(ctx context.Context, log *slog.Logger, subscribe func() (Hints, error),
	read func(context.Context) (State, error), publish func(State)) error {
	w := watcher{subscribe: subscribe, read: read, log: log}
	return w.run(ctx, publish)
}

// The times of Watch.
const (
	Debounce  = debounce
	ReadShare = readShare
)

// WithoutDiag makes k behave as on a kernel that has no inet_diag.
func WithoutDiag(k *Kernel) {
	k.diag.Close()
	k.diag = nil
}

// SearchNeighbour is Neighbour as it works before Linux 5.0.
func SearchNeighbour(k *Kernel, ifindex int, a netip.Addr) ([6]byte, bool, error) {
	s, known, err := k.searchNeighbour(ifindex, a)
	return s.MAC, known, err
}

// Repeat is the bounded repetition of dumps.
var Repeat = repeat

// MaxDumps is its bound.
const MaxDumps = maxDumps

// LinkRate is the decoding of ethtool's speed.
var LinkRate = linkRate

// ParseRouteMessage decodes a route and says what it makes of it: the default
// routes of its family and the links it makes an uplink.
func ParseRouteMessage(family uint8, m []byte) (v4, v6 []DefaultRoute, uplinks map[int]Way) {
	d := routeDump{uplinks: map[int]Way{}}
	d.add(family, m)
	return d.default4, d.default6, d.uplinks
}

// RoutesWithoutObjects reads the routes with no next-hop objects, or with an error in
// place of them.
func RoutesWithoutObjects(k *Kernel, refused error) error {
	_, err := resolved(k.dumpRoutes, func() (nexthops, error) { return nexthops{}, refused })
	return err
}

// ParseNexthop decodes a next-hop object, and returns its parts.
func ParseNexthop(m []byte) int {
	n := nexthops{}
	n.add(m)
	parts := 0
	for _, o := range n {
		parts += len(o.hops) + len(o.group)
	}
	return parts
}

// ParseLink decodes an interface.
func ParseLink(m []byte) (Link, bool) {
	l, _, ok := parseLink(m)
	return l, ok
}

// ParseAddr decodes an address, and the index of its link.
func ParseAddr(m []byte) (int, Addr, bool) {
	a, ok := parseAddr(m)
	return a.index, a.Addr, ok
}

// ParseRule decodes a rule message.
var ParseRule = parseRule

// ParseNeighbour decodes a neighbour message.
func ParseNeighbour(m []byte) (index int, addr netip.Addr, mac [6]byte, ok bool) {
	n, ok := parseNeighbour(m)
	return n.index, n.addr, n.mac, ok
}

// ParseDiag decodes an inet_diag message.
func ParseDiag(transport uint8, m []byte) (Listener, bool) { return parseDiag(transport, m) }

// ParseProc decodes a table of /proc/net.
func ParseProc(transport uint8, r io.Reader) ([]Listener, error) { return parseProc(transport, r) }

// Asked returns how many questions about neighbours and routes the kernel was asked.
func Asked(k *Kernel) uint32 { return atomic.LoadUint32(&k.neighbours.Seq) }

// SightLife is for how long an answer is remembered.
const SightLife = sightLife

// Remembered returns of how many neighbours an answer is remembered, at most MaxSights.
func Remembered(k *Kernel) int { return len(k.sights.all) }

const MaxSights = maxSights
