package warden

import (
	"context"
	"time"

	"portcullis/config"
	"portcullis/internal/control"
	"portcullis/portmap"
)

// repaired returns how often rules were put right, each with a line in the log.
func (w *Warden) repaired() uint64 { return w.firewall.Repaired() + w.rules.Others() }

// status returns what `portcullis status` shows.
func (w *Warden) status() control.Status {
	wan, table := w.network.View().WAN(), w.engine.Snapshot()
	s := control.Status{
		Version: w.version,
		Uptime:  int64(time.Since(w.started) / time.Second),
		WAN:     control.WAN{Interface: wan.Name, Private: wan.Private, Up: wan.Up},
		LAN:     []control.LAN{},
		Denied:  w.engine.Denied(), LastRefused: w.lastRefused(), Limit: w.now().Limits.Mappings, Pending: w.approvals.Count(),
		Firewall: control.Firewall{
			Backend: w.backend, DriftRepaired: w.repaired(),
		},
		Sandbox: w.sandbox, Hook: w.showHook(),
	}
	w.showFront(&s.Sandbox)
	if w.loaded != nil {
		s.Configuration = w.loaded()
	}
	if w.witness != nil {
		way, _ := w.witness.Way()
		s.Firewall.Senders, s.Firewall.Askers = string(way), w.witness.Remembers()
	}
	for range table.Pinholes() {
		s.Pinholes++
	}
	s.Mappings = table.Len() - s.Pinholes
	if wan.External.IsValid() {
		s.WAN.ExternalIP = wan.External.String()
	}
	for _, l := range w.network.Roles().LAN {
		lan := control.LAN{Interface: l.Name, Prefixes: []string{}}
		for _, p := range l.Prefixes {
			lan.Prefixes = append(lan.Prefixes, p.String())
		}
		s.LAN = append(s.LAN, lan)
	}
	return s
}

// running returns the configuration that holds.
func (w *Warden) running() []byte { return config.Effective(w.now()) }

// host returns the name that a client has now.
func (w *Warden) host(c *portmap.Client) string { return w.names.Name(c.MAC, c.Addr, time.Now()) }

// traffic returns what went through some mappings, as the kernel counts it.
func (w *Warden) traffic(ctx context.Context, ids []uint64) (map[uint64]control.Traffic, error) {
	w.spare.passed(len(ids))
	counters, err := w.firewall.CountersOf(ctx, ids)
	if err != nil {
		return nil, err
	}
	all := make(map[uint64]control.Traffic, len(counters))
	for id, c := range counters {
		all[id] = control.Traffic{Packets: c.Packets, Bytes: c.Bytes}
	}
	return all, nil
}
