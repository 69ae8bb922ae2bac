package ssdp

import (
	"net/netip"
	"time"
)

// Bounds that tests assert against.
const (
	MaxQueued = maxQueued
	HostRate  = hostRate
	TotalRate = totalRate
)

// Answers returns the responses to a target without a server around them.
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
