package warden

import (
	"cmp"
	"context"
	"maps"
	"runtime"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"portcullis/internal/metrics"
	"portcullis/portmap"
)

// Numbers are told again without being counted for so many times as long as counting them took,
// half a minute at most: any user of the gateway may ask without end (metrics.listen), and with
// many mappings each time takes the engine's processor, and the firewall, for seconds.
const (
	toldFor   = 20
	maxToldTo = 30 * time.Second
)

// numbersTold are the metrics as they were counted last.
type numbersTold struct {
	mu    sync.Mutex // one at a time counts; guards what follows
	text  []byte
	until time.Time // it is told again
}

// get returns what it has, or what count makes.
func (n *numbersTold) get(count func() []byte) []byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	if begun := time.Now(); !begun.Before(n.until) {
		n.text = count()
		now := time.Now()
		n.until = now.Add(min(toldFor*now.Sub(begun), maxToldTo))
	}
	return n.text
}

// Metrics returns the daemon's numbers, as Prometheus reads them.
func (w *Warden) Metrics(ctx context.Context) []byte {
	return w.told.get(func() []byte { return w.count(ctx) })
}

func (w *Warden) count(ctx context.Context) []byte {
	t, table := new(metrics.Text), w.engine.Snapshot()
	t.Family("portcullis_build_info", metrics.Gauge, "The version that runs")
	t.Sample(1, "version", w.version, "goversion", runtime.Version())
	t.Family("portcullis_start_time_seconds", metrics.Gauge, "When the daemon began, in seconds since 1970")
	t.Sample(float64(w.started.UnixMilli()) / 1000)
	w.countMappings(t, table)
	w.countEvents(t)
	t.Histogram("portcullis_request_duration_seconds", "How long it took to decide about a request for a mapping, and to change the kernel", &w.durations)
	w.countKernel(t)
	w.countNetwork(t)
	if w.now().Metrics.Mappings {
		w.countTraffic(ctx, t, table)
	}
	return t.Bytes()
}

// countMappings writes what is open, by network and family.
func (w *Warden) countMappings(t *metrics.Text, table *portmap.Table) {
	type place struct{ lan, family string }
	open := map[place]int{}
	for name := range w.LANs() { // one without a mapping is a number as well
		open[place{name, "4"}], open[place{name, "6"}] = 0, 0
	}
	for m := range table.All() {
		open[place{m.Client.Interface, familyOf(m.Kind)}]++
	}
	t.Family("portcullis_mappings", metrics.Gauge, "Mappings, and pinholes of IPv6, by the interface that their client is on")
	places := slices.Collect(maps.Keys(open))
	sort.Slice(places, func(i, j int) bool {
		a, b := places[i], places[j]
		return cmp.Or(strings.Compare(a.lan, b.lan), strings.Compare(a.family, b.family)) < 0
	})
	for _, p := range places {
		t.Sample(float64(open[p]), "interface", p.lan, "family", p.family)
	}
	t.Family("portcullis_mappings_limit", metrics.Gauge, "How many mappings there may be in all (limits.mappings)")
	t.Sample(float64(w.now().Limits.Mappings))
	t.Family("portcullis_pending_requests", metrics.Gauge, "Ports that devices have asked for and that wait for the owner")
	t.Sample(float64(w.approvals.Count()))
	t.Family("portcullis_clients", metrics.Gauge, "Hosts that have a mapping")
	t.Sample(float64(table.Hosts()))
}

func familyOf(k portmap.Kind) string {
	if k == portmap.Pinhole6 {
		return "6"
	}
	return "4"
}

// countEvents writes what became of requests and mappings.
func (w *Warden) countEvents(t *metrics.Text) {
	all := slices.Collect(w.engine.Tally())
	t.Family("portcullis_requests_total", metrics.Counter, "Requests for mappings, by what became of them and the protocol")
	for _, ty := range []portmap.EventType{portmap.Granted, portmap.Renewed, portmap.Denied, portmap.Pending} {
		for _, via := range vias {
			t.Sample(float64(sum(all, func(c portmap.Count) bool { return c.Type == ty && c.Via == via })), "result", ty.String(), "protocol", via.String())
		}
	}
	t.Family("portcullis_refusals_total", metrics.Counter, "Refused requests, by reason and protocol")
	for _, c := range all {
		if c.Type == portmap.Denied || c.Type == portmap.Pending {
			t.Sample(float64(c.N), "reason", c.Reason.String(), "protocol", c.Via.String())
		}
	}
	t.Family("portcullis_mappings_ended_total", metrics.Counter, "Mappings that have ended, by how")
	for _, ty := range []portmap.EventType{portmap.Deleted, portmap.Expired, portmap.RevokedEvent} {
		t.Sample(float64(sum(all, func(c portmap.Count) bool { return c.Type == ty })), "how", ty.String())
	}
}

var vias = []portmap.Via{portmap.ViaUPnP, portmap.ViaNATPMP, portmap.ViaPCP, portmap.ViaOwner}

func sum(all []portmap.Count, of func(portmap.Count) bool) (n uint64) {
	for _, c := range all {
		if of(c) {
			n += c.N
		}
	}
	return n
}

// countKernel writes what the daemon had to put right, or to start anew.
func (w *Warden) countKernel(t *metrics.Text) {
	t.Family("portcullis_firewall_repairs_total", metrics.Counter, "How often somebody else's change of the firewall was put right")
	t.Sample(float64(w.repaired()), "backend", w.backend)
	ended := 0
	if w.front != nil {
		ended = w.front().Ended
	}
	t.Family("portcullis_front_ends_total", metrics.Counter, "Ends of the process that parses what the network sends, which should not end")
	t.Sample(float64(ended))
	t.Family("portcullis_unseen_requests_total", metrics.Counter, "Requests in the name of a host that the kernel has not seen send one")
	t.Sample(float64(w.unseen.Load()))
}

// countNetwork writes whether there is a way to the Internet.
func (w *Warden) countNetwork(t *metrics.Text) {
	wan := w.network.View().WAN()
	t.Family("portcullis_wan_up", metrics.Gauge, "Whether the WAN is up and has an address that the Internet can reach")
	t.Sample(one(wan.Up && wan.External.IsValid() && !wan.Private), "interface", wan.Name)
}

func one(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// countTraffic writes what went through each mapping, where the owner wants so many lines.
func (w *Warden) countTraffic(ctx context.Context, t *metrics.Text, table *portmap.Table) {
	w.hasRead()
	counters, err := w.firewall.Counters(ctx)
	if err != nil {
		w.log.Warn("mappings are missing in the metrics", "err", err)
		return
	}
	labels := func(m *portmap.Mapping) []string {
		return []string{"protocol", m.Transport.String(), "external_port", strconv.Itoa(int(m.ExternalPort)), "internal", m.Internal.String(),
			"remote", portmap.RemotesString(m.Remotes), "interface", m.Client.Interface, "mac", m.Client.MAC.String()}
	}
	t.Family("portcullis_mapping_packets_total", metrics.Counter, "Packets that came in by a mapping")
	for m := range table.All() {
		t.Sample(float64(counters[m.ID].Packets), labels(&m)...)
	}
	t.Family("portcullis_mapping_bytes_total", metrics.Counter, "Octets that came in by a mapping")
	for m := range table.All() {
		t.Sample(float64(counters[m.ID].Bytes), labels(&m)...)
	}
}
