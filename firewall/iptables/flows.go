package iptables

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	conntrack "github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"portcullis/firewall"
	"portcullis/portmap"
)

// Translation is decided at the first packet of a flow and stays with it. So when
// a mapping ends its flows are ended (abuse case C8), and when one begins, UDP
// flows that were there before it are looked up again. As in firewall/nft; what
// is ended, and what is not, is the same.

// flowKeeper ends flows. Its goroutine is owned by the Backend.
type flowKeeper struct {
	backend *Backend
	log     *slog.Logger
	netns   int

	mu      sync.Mutex // guards waiting
	waiting *flowJob
	wake    chan struct{} // capacity 1
	quit    chan struct{}
	done    chan struct{}
	passing sync.Mutex // held during a pass
}

// flowJob says which flows to look at.
type flowJob struct {
	ports map[portOf]bool     // external ports of which a mapping changed
	ended map[portOf][]ending // who those ports led to
	lost  map[netip.Addr]bool // WAN addresses we no longer have
	pins  map[pinOf][]ending  // pinholes that ended, or let in less
	tries int
}

type portOf struct {
	transport portmap.Transport
	port      uint16
}

type pinOf struct {
	transport portmap.Transport
	internal  netip.AddrPort
}

// ending is a mapping that ended.
type ending struct {
	internal netip.AddrPort
	remotes  []portmap.Remote
	force    bool // whatever the table says
}

// admits says whether the mapping was for a packet from src.
func (e ending) admits(src netip.AddrPort) bool {
	return len(e.remotes) == 0 || slices.ContainsFunc(e.remotes, func(r portmap.Remote) bool {
		return r.Prefix.Contains(src.Addr()) && (r.Port == 0 || r.Port == src.Port())
	})
}

func newFlowJob() *flowJob {
	return &flowJob{
		ports: make(map[portOf]bool), ended: make(map[portOf][]ending),
		lost: make(map[netip.Addr]bool), pins: make(map[pinOf][]ending),
	}
}

func (j *flowJob) four() bool { return len(j.ports)+len(j.lost)+len(j.ended) > 0 }

func (j *flowJob) six() bool { return len(j.pins) > 0 }

// end makes the flows of a mapping part of the job.
func (j *flowJob) end(m *portmap.Mapping, force bool) {
	e := ending{m.Internal, m.Remotes, force}
	if m.Kind == portmap.Pinhole6 {
		at := pinOf{m.Transport, m.Internal}
		j.pins[at] = append(j.pins[at], e)
		return
	}
	at := portOf{m.Transport, m.External.Port()}
	j.ended[at] = append(j.ended[at], e)
}

func (j *flowJob) endAll(ms []portmap.Mapping) {
	for i := range ms {
		j.end(&ms[i], true)
	}
}

// join adds another job.
func (j *flowJob) join(o *flowJob) {
	for p := range o.ports {
		j.ports[p] = true
	}
	for a := range o.lost {
		j.lost[a] = true
	}
	for p, list := range o.ended {
		j.ended[p] = append(j.ended[p], list...)
	}
	for p, list := range o.pins {
		j.pins[p] = append(j.pins[p], list...)
	}
	j.tries = max(j.tries, o.tries)
}

// flow is a conntrack entry as far as we care.
type flow struct {
	transport   portmap.Transport
	src, dst    netip.AddrPort // of the first packet as it came
	answersFrom netip.AddrPort // where dst was translated to
	answersTo   netip.AddrPort // what src was translated to
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
	job := newFlowJob()
	for i := range c.Gone {
		job.end(&c.Gone[i], false)
		if m := &c.Gone[i]; m.Kind != portmap.Pinhole6 {
			job.ports[portOf{m.Transport, m.External.Port()}] = true
		}
	}
	for _, e := range c.New {
		// A TCP connection that was refused before is gone by itself.
		if e.Kind == firewall.Hole && (e.Transport == portmap.UDP || !e.Source.Anyone()) {
			job.ports[portOf{e.Transport, e.External}] = true
		}
	}
	k.add(job)
}

// addressesGone notes WAN addresses that a new set of facts no longer has.
func (k *flowKeeper) addressesGone(before, after firewall.Gateway) {
	have := wanAddrs(after)
	job := newFlowJob()
	for _, a := range wanAddrs(before) {
		if !slices.Contains(have, a) {
			job.lost[a] = true
		}
	}
	k.add(job)
}

func (k *flowKeeper) add(job *flowJob) {
	if !job.four() && !job.six() {
		return
	}
	k.mu.Lock()
	k.waiting.join(job)
	k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

func (k *flowKeeper) take() *flowJob {
	k.mu.Lock()
	defer k.mu.Unlock()
	job := k.waiting
	k.waiting = newFlowJob()
	return job
}

const (
	maxRest     = 5 * time.Second
	passTimeout = 5 * time.Second // bounds each wait for the kernel
	passTries   = 3
)

// run does what is waiting. After each pass it rests ten times as long as the pass
// took, so that a large table and many changes cost a tenth of one core.
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
		if err := k.pass(job); err == nil {
			pause = min(10*time.Since(start), maxRest)
		} else if job.tries++; job.tries < passTries {
			k.add(job)
		} else {
			k.log.Warn("flows of ended mappings may live on", "err", err)
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

// stop ends the goroutine, waits for it, and gives what it has not done.
func (k *flowKeeper) stop() *flowJob {
	close(k.quit)
	<-k.done
	return k.take()
}

// within does a job, or stops waiting for it when ctx ends.
func (k *flowKeeper) within(ctx context.Context, job *flowJob) error {
	result := make(chan error, 1)
	go func() { result <- k.pass(job) }()
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// pass lists the kernel's flows once and ends those that the job is about. The
// hosts of connections that they could carry on alone are refused first.
func (k *flowKeeper) pass(job *flowJob) error {
	if !job.four() && !job.six() {
		return nil
	}
	k.passing.Lock()
	defer k.passing.Unlock()
	h, err := newHandle(k.netns)
	if err != nil {
		return fmt.Errorf("opening conntrack: %w", err)
	}
	defer h.Close()
	if job.four() {
		if err := k.endFamily(h, unix.AF_INET, job); err != nil {
			return err
		}
	}
	if job.six() {
		return k.endFamily(h, unix.AF_INET6, job)
	}
	return nil
}

func (k *flowKeeper) endFamily(h *conntrack.Handle, af conntrack.InetFamily, job *flowJob) error {
	var flows []flow
	find := judgement(func(f flow) bool {
		if k.over(job, f) {
			flows = append(flows, f)
		}
		return false
	})
	if err := filterFlows(h, af, find); err != nil || len(flows) == 0 {
		return err
	}
	refused := k.backend.refuse(flows)
	return errors.Join(refused, filterFlows(h, af, func(f flow) bool { return k.over(job, f) }))
}

func filterFlows(h *conntrack.Handle, af conntrack.InetFamily, j judgement) error {
	var err error
	for range passTries {
		if _, err = h.ConntrackDeleteFilters(conntrack.ConntrackTable, af, j); !errors.Is(err, conntrack.ErrDumpInterrupted) {
			break
		}
	}
	return err
}

// judgement is the filter form that the conntrack library wants.
type judgement func(flow) bool

// MatchConntrackFlow says whether the flow must end.
func (j judgement) MatchConntrackFlow(f *conntrack.ConntrackFlow) bool {
	t := portmap.Transport(f.Forward.Protocol)
	src, ok1 := netip.AddrFromSlice(f.Forward.SrcIP)
	dst, ok2 := netip.AddrFromSlice(f.Forward.DstIP)
	from, ok3 := netip.AddrFromSlice(f.Reverse.SrcIP)
	to, ok4 := netip.AddrFromSlice(f.Reverse.DstIP)
	return t.Valid() && ok1 && ok2 && ok3 && ok4 && j(flow{
		transport:   t,
		src:         netip.AddrPortFrom(src, f.Forward.SrcPort),
		dst:         netip.AddrPortFrom(dst, f.Forward.DstPort),
		answersFrom: netip.AddrPortFrom(from, f.Reverse.SrcPort),
		answersTo:   netip.AddrPortFrom(to, f.Reverse.DstPort),
	})
}

// over says whether a flow must end.
func (k *flowKeeper) over(job *flowJob, f flow) bool {
	b := k.backend
	if f.dst.Addr().Is6() {
		return b.pinOver(job.pins[pinOf{f.transport, f.dst}], f)
	}
	port := portOf{f.transport, f.dst.Port()}
	ledThere := false
	for _, e := range job.ended[port] {
		if f.answersFrom != e.internal || f.dst == f.answersFrom {
			continue
		}
		if ledThere = true; e.force && e.admits(f.src) {
			return true
		}
	}
	lost := job.lost[f.dst.Addr()] || job.lost[f.answersTo.Addr()]
	if !lost && !job.ports[port] {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if lost {
		return b.ours(f)
	}
	return slices.Contains(wanAddrs(b.gateway), f.dst.Addr()) && b.misled(f, ledThere)
}

// pinOver says whether a flow came through one of these pinholes, which ended.
func (b *Backend) pinOver(list []ending, f flow) bool {
	ended, force := false, false
	for _, e := range list {
		if e.admits(f.src) {
			ended, force = true, force || e.force
		}
	}
	if !ended {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if f.src.Addr().IsLinkLocalUnicast() || slices.ContainsFunc(b.gateway.LANPrefixes,
		func(p netip.Prefix) bool { return p.Contains(f.src.Addr()) }) {
		return false
	}
	_, governed := b.state.GoverningPin(f.transport, f.dst, f.src)
	return force || !governed
}

// misled says whether a flow to one of our external ports goes where the mappings
// no longer, or did not yet, send it. What somebody else translated, to where no
// mapping ever led, is left alone. The lock is held.
func (b *Backend) misled(f flow, ledThere bool) bool {
	m, governed := b.state.Governing(f.transport, f.dst.Port(), f.src)
	if !governed {
		return ledThere
	}
	if f.answersFrom == m.Internal {
		return false
	}
	return ledThere || f.answersFrom == f.dst || b.state.Leads(f.transport, f.dst.Port(), f.answersFrom)
}

// ours says whether a flow was translated by our rules. The lock is held.
func (b *Backend) ours(f flow) bool {
	if m, ok := b.state.Governing(f.transport, f.dst.Port(), f.src); ok && m.Internal == f.answersFrom {
		return true
	}
	kept, ok := b.state.KeptPort(f.transport, f.src)
	return ok && kept == f.answersTo.Port()
}

const (
	refuseTime = time.Minute // a host tries again within seconds
	maxRefused = 1024
)

// refuse has the hosts told that these flows are over: conntrack would pick a
// connection up in the middle when its host just goes on sending. Of translated
// flows that is TCP only, and not those whose other end the host knows as the
// gateway.
func (b *Backend) refuse(flows []flow) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.installed || b.closed || b.timeless {
		return nil
	}
	until, n := time.Now().Add(refuseTime), len(b.refused)
	for _, f := range flows {
		v4 := f.dst.Addr().Is4()
		if v4 && (f.transport != portmap.TCP || f.answersFrom == f.dst || f.answersTo != f.src) || len(b.refused) >= maxRefused {
			continue
		}
		b.refused = append(b.refused, refusal{f.transport, f.answersFrom, f.src, until})
	}
	if len(b.refused) == n {
		return nil
	}
	if _, err := b.sync(context.Background(), b.state); err != nil {
		return fmt.Errorf("refusing the hosts of ended flows: %w", err)
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
