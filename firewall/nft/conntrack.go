package nft

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/google/nftables"
	conntrack "github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"portcullis/firewall"
	"portcullis/portmap"
)

// Translation is decided at the first packet of a flow and then stays with the
// flow. So when a mapping ends, its flows must be ended too (abuse case C8), and
// when one begins, flows that were there before it must be looked up again: a
// peer that kept sending to a closed UDP port would otherwise never be
// translated. Both are done by listing the kernel's flows once for all changes
// that are waiting, in a goroutine of its own: the table may be large.
//
// A mapping whose restrictions change is no exception. The flows of those whom
// it no longer admits end, because a restriction blocks the traffic of others
// (RFC 6887 section 13.3), not just their first packets; a UDP flow would
// otherwise live on for as long as its peer keeps sending. The flows of those
// whom it still admits go on, and so does what the host itself began.
//
// Conntrack picks up a connection in the middle. A mapped host that just keeps
// sending, a camera, would thereby carry the connection on as one of its own,
// through the owner's masquerade and under the same port where the external port
// is the internal one (measured). So for a while the connections that were ended
// are answered with a reset when their host goes on with them.

// flowKeeper ends flows. Its goroutine is owned by the Backend.
type flowKeeper struct {
	backend *Backend
	log     *slog.Logger
	netns   int

	mu      sync.Mutex // guards what follows
	waiting flowJob
	wake    chan struct{} // capacity 1
	quit    chan struct{}
	done    chan struct{}

	handleMu sync.Mutex // guards the socket; held while it is used
	handle   *conntrack.Handle
	closed   bool
	failing  bool // for logging a change only; the goroutine's own
}

// flowJob says which flows to look at.
type flowJob struct {
	ports map[firewallPort]bool     // external ports of which a mapping changed
	ended map[endedFlow]bool        // who those ports led to
	lost  map[netip.Addr]bool       // WAN addresses we no longer have
	force map[firewallPort][]ending // see FlushFlows
	pins  map[pinnedEnd][]pinEnding // pinholes, of both sorts
	tries int                       // passes that failed
}

type firewallPort struct {
	transport portmap.Transport
	port      uint16
}

// endedFlow is an external port and where it used to lead.
type endedFlow struct {
	firewallPort
	internal netip.AddrPort
}

// ending is a mapping whose flows end whatever the table says.
type ending struct {
	internal netip.AddrPort
	remotes  []portmap.Remote
}

// admits says whether the mapping was for a packet from src.
func (e ending) admits(src netip.AddrPort) bool {
	return len(e.remotes) == 0 || slices.ContainsFunc(e.remotes, func(r portmap.Remote) bool {
		return r.Prefix.Contains(src.Addr()) && (r.Port == 0 || r.Port == src.Port())
	})
}

func newFlowJob() flowJob {
	return flowJob{
		ports: make(map[firewallPort]bool), ended: make(map[endedFlow]bool),
		lost: make(map[netip.Addr]bool), force: make(map[firewallPort][]ending),
		pins: make(map[pinnedEnd][]pinEnding),
	}
}

func (j *flowJob) empty() bool { return !j.four() && !j.six() }

// four and six say which family's flows the job is about.
func (j *flowJob) four() bool { return len(j.ports)+len(j.lost)+len(j.force) > 0 }

func (j *flowJob) six() bool { return len(j.pins) > 0 }

// flow is a conntrack entry as far as we care.
type flow struct {
	transport   portmap.Transport
	src, dst    netip.AddrPort // of the first packet as it came
	answersFrom netip.AddrPort // the reply's source: where dst was translated to
	answersTo   netip.AddrPort // the reply's destination: what src was translated to
}

func newFlowKeeper(b *Backend, cfg Config) *flowKeeper {
	k := &flowKeeper{
		backend: b, log: cfg.Log, netns: cfg.NetNS, waiting: newFlowJob(),
		wake: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{}),
	}
	go k.run()
	return k
}

// changed notes what a committed change means for flows.
func (k *flowKeeper) changed(c *firewall.Change) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range c.Gone {
		m := &c.Gone[i]
		if m.Kind == portmap.Pinhole6 {
			k.waiting.endPin(m, false)
			continue
		}
		p := firewallPort{m.Transport, m.External.Port()}
		k.waiting.ports[p] = true
		k.waiting.ended[endedFlow{p, m.Internal}] = true
	}
	for _, e := range c.New {
		if e.Kind == firewall.Pin {
			continue // it needs no translation
		}
		// A TCP connection that was refused before is gone from conntrack
		// by itself; only a UDP flow can have lived on beside the mapping.
		if e.Transport == portmap.UDP || !e.Source.Anyone() {
			k.waiting.ports[firewallPort{e.Transport, e.External}] = true
		}
	}
	k.signal()
}

// addressesGone notes WAN addresses that a new set of facts no longer has. The
// kernel ends masqueraded flows itself when their address goes, but not ours.
func (k *flowKeeper) addressesGone(before, after firewall.Gateway) {
	have := wanAddrs(after)
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, a := range wanAddrs(before) {
		if !slices.Contains(have, a) {
			k.waiting.lost[a] = true
		}
	}
	k.signal()
}

func wanAddrs(g firewall.Gateway) []netip.Addr {
	var all []netip.Addr
	for _, up := range g.WAN {
		all = append(all, only4(up.Addrs)...)
	}
	return all
}

// signal wakes the goroutine if there is something to do; mu is held.
func (k *flowKeeper) signal() {
	if k.waiting.empty() {
		return
	}
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

func (k *flowKeeper) take() flowJob {
	k.mu.Lock()
	defer k.mu.Unlock()
	job := k.waiting
	k.waiting = newFlowJob()
	return job
}

// giveBack puts a job that failed back among what is waiting, but not for ever:
// a kernel without conntrack's netlink interface will never do it.
func (k *flowKeeper) giveBack(job flowJob) {
	if job.tries++; job.tries >= passTries {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	maps.Copy(k.waiting.ports, job.ports)
	maps.Copy(k.waiting.ended, job.ended)
	maps.Copy(k.waiting.lost, job.lost)
	for end, list := range job.pins {
		k.waiting.pins[end] = append(k.waiting.pins[end], list...)
	}
	k.waiting.tries = max(k.waiting.tries, job.tries)
	k.signal()
}

// run does what is waiting. After each pass it rests ten times as long as the
// pass took, so that a large table and many changes cost a tenth of one core.
func (k *flowKeeper) run() {
	defer close(k.done)
	for {
		select {
		case <-k.quit:
			return
		case <-k.wake:
		}
		start, pause := time.Now(), maxRest
		job := k.take()
		ended, err := k.pass(job)
		if k.report(ended, err); err != nil {
			k.giveBack(job)
		} else {
			pause = min(10*time.Since(start), maxRest)
		}
		rest := time.NewTimer(pause)
		select {
		case <-k.quit:
			rest.Stop()
			return
		case <-rest.C:
		}
	}
}

const (
	maxRest = 5 * time.Second
	// passTimeout bounds each wait for the kernel.
	passTimeout = 5 * time.Second
	// passTries is how often a listing that changed meanwhile is taken again,
	// and how often a pass that failed is.
	passTries = 3
)

func (k *flowKeeper) report(ended uint, err error) {
	switch {
	case err != nil && !k.failing:
		k.log.Warn("flows of ended mappings may live on", "err", err)
	case ended > 0:
		k.log.Debug("flows of changed mappings ended", "flows", ended)
	}
	k.failing = err != nil
}

// stop ends the goroutine, waits for it, and gives what it has not done.
func (k *flowKeeper) stop() flowJob {
	close(k.quit)
	<-k.done
	return k.take()
}

// close closes the socket.
func (k *flowKeeper) close() {
	k.handleMu.Lock()
	defer k.handleMu.Unlock()
	k.closed = true
	if k.handle != nil {
		k.handle.Close()
		k.handle = nil
	}
}

// FlushFlows ends the flows of these mappings before it returns. Apply, Replace
// and Close do by themselves, soon, what they must; this is for who has to wait
// for it. It says nothing to a mapping that is still open: its peers may go on
// with new flows, and those of a TCP connection usually do.
func (b *Backend) FlushFlows(ctx context.Context, ms []portmap.Mapping) error {
	job := newFlowJob()
	job.endAll(ms)
	return b.flows.within(ctx, job)
}

// endAll makes the flows of mappings part of a job.
func (j *flowJob) endAll(ms []portmap.Mapping) {
	for i := range ms {
		m := &ms[i]
		if m.Kind == portmap.Pinhole6 {
			j.endPin(m, true)
			continue
		}
		p := firewallPort{m.Transport, m.External.Port()}
		j.force[p] = append(j.force[p], ending{m.Internal, m.Remotes})
	}
}

// within does a job, or stops waiting for it when ctx ends.
func (k *flowKeeper) within(ctx context.Context, job flowJob) error {
	result := make(chan error, 1)
	go func() {
		_, err := k.pass(job)
		result <- err
	}()
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// pass lists the kernel's flows once and ends those that the job is about.
func (k *flowKeeper) pass(job flowJob) (ended uint, err error) {
	if job.empty() {
		return 0, nil
	}
	k.handleMu.Lock()
	defer k.handleMu.Unlock()
	if k.closed {
		return 0, firewall.ErrClosed
	}
	if k.handle == nil {
		if k.handle, err = newHandle(k.netns); err != nil {
			return 0, fmt.Errorf("opening conntrack: %w", explain(err))
		}
	}
	if job.four() {
		var connections []flow
		if ended, err = k.end(unix.AF_INET, k.judge(job).noting(&connections)); err != nil {
			return ended, err
		}
		if err = k.backend.refuse(connections); err != nil {
			return ended, err
		}
	}
	if job.six() {
		n, err := k.endPins(job)
		return ended + n, err
	}
	return ended, nil
}

// endPins refuses the hosts first: between the two steps they would begin anew
// what is being ended.
func (k *flowKeeper) endPins(job flowJob) (ended uint, err error) {
	var flows []flow
	if _, err = k.end(unix.AF_INET6, k.judge(job).listing(&flows)); err != nil {
		return 0, err
	}
	refused := k.backend.refuse(flows)
	ended, err = k.end(unix.AF_INET6, k.judge(job))
	return ended, errors.Join(refused, err)
}

// end ends the flows of one family that the filter finds.
func (k *flowKeeper) end(family conntrack.InetFamily, filter judgement) (ended uint, err error) {
	for range passTries {
		var n uint
		n, err = k.handle.ConntrackDeleteFilters(conntrack.ConntrackTable, family, filter)
		ended += n
		if !errors.Is(err, conntrack.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		// Half an answer may be left in the socket.
		k.handle.Close()
		k.handle = nil
		return ended, fmt.Errorf("ending flows: %w", explain(err))
	}
	return ended, nil
}

// refuseTime is how long a host is answered with resets, or errors; it tries
// again within seconds.
const refuseTime = time.Minute

// refuse has the hosts of these flows told that they are over.
func (b *Backend) refuse(flows []flow) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.installed || len(flows) == 0 {
		return nil
	}
	e := newElements()
	for _, f := range flows {
		set := b.own.ended
		six, key := f.ended()
		if six {
			set = b.own.ended6
		}
		e.add(set, nftables.SetElement{Key: key, Timeout: refuseTime})
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, batch := range b.writer.batches(e.ops()) {
		if err := b.writer.commit(ctx, func(q *nftables.Conn) error { return queueAll(q, batch) }); err != nil {
			return fmt.Errorf("refusing the hosts of ended flows: %w", explain(err))
		}
	}
	return nil
}

func newHandle(fd int) (*conntrack.Handle, error) {
	var h *conntrack.Handle
	var err error
	if fd == 0 {
		h, err = conntrack.NewHandle(unix.NETLINK_NETFILTER)
	} else {
		h, err = conntrack.NewHandleAt(netns.NsHandle(fd), unix.NETLINK_NETFILTER)
	}
	if err != nil {
		return nil, err
	}
	if err := h.SetSocketTimeout(passTimeout); err != nil {
		h.Close()
		return nil, err
	}
	return h, nil
}
