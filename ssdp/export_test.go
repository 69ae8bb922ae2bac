package ssdp

import (
	"net/netip"
	"time"
)

// Limits lets tests watch the table of hosts.
type Limits struct{ *limits }

func NewLimits(rows int) Limits { return Limits{newLimits(rows)} }

func (l Limits) Allow(now time.Time, host netip.Addr, n int) bool { return l.allow(now, host, n) }
func (l Limits) Hosts() int                                       { return len(l.hosts) }

// Bounds that tests assert against.
const (
	HostRate  = hostRate
	TotalRate = totalRate
	MaxHosts  = maxHosts
	MaxQueued = maxQueued
)

// Answers gives the responses to a target without a server around them.
func Answers(cfg Config, target string, local netip.Addr, now time.Time) ([][]byte, error) {
	cat, err := newCatalogue(cfg.Targets)
	if err != nil {
		return nil, err
	}
	f := facts{maxAge: int(defaultMaxAge / time.Second), server: cfg.Server, bootID: cfg.BootID}
	if f.shown, err = describe(cfg.Describe, local); err != nil {
		return nil, err
	}
	var out [][]byte
	for _, r := range cat.match(target) {
		out = append(out, appendResponse(nil, &f, r, now))
	}
	return out, nil
}
