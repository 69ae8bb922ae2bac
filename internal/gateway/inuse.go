package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"portcullis/firewall"
	"portcullis/internal/netif"
	"portcullis/portmap"
)

// How old our knowledge of the ports in use may be when a port is granted. Reading it
// costs a dump, which a client must not be able to cause at will; that of the owner's
// rules costs more, and their changes are seen.
const (
	listenersAge = time.Second
	forwardsAge  = 2 * time.Second
	readTimeout  = 10 * time.Second // for one reading
)

// inUse knows the external ports that the gateway itself or the owner uses. It reads on
// demand, one reader at a time; whoever comes meanwhile waits for that reader's answer.
// A failure is remembered as long as an answer, so that a kernel in trouble is not
// pressed. It is safe for concurrent use.
type inUse struct {
	listeners func(context.Context) (netif.Ports, error)
	forwards  func(context.Context) (*firewall.Forwards, error)

	stale atomic.Bool   // somebody has changed rules since they were read
	turn  chan struct{} // holds one token; its holder may touch now

	now readings

	seen atomic.Pointer[readings]
}

// readings are what was read last, and when; a zero time is never.
type readings struct {
	listenersAt, forwardsAt   time.Time
	listeners                 netif.Ports
	forwards                  *firewall.Forwards
	listenersErr, forwardsErr error
}

func newInUse(listeners func(context.Context) (netif.Ports, error), forwards func(context.Context) (*firewall.Forwards, error)) *inUse {
	u := &inUse{listeners: listeners, forwards: forwards, turn: make(chan struct{}, 1)}
	u.turn <- struct{}{}
	return u
}

// look reads what is too old, and calls told when it has. Who has no more patience goes,
// and the reading goes on for the next one: where it takes longer than a client waits,
// as with very many rules, nobody would ever be granted a port.
func (u *inUse) look(ctx context.Context, told func()) {
	select {
	case <-ctx.Done():
		return
	case <-u.turn:
	}
	if u.fresh() {
		u.turn <- struct{}{}
		return
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer func() { u.turn <- struct{}{} }()
		reading, cancel := context.WithTimeout(context.WithoutCancel(ctx), readTimeout)
		defer cancel()
		u.read(reading)
		told()
	}()
	select {
	case <-ctx.Done():
	case <-read:
	}
}

// fresh reports whether there is nothing to read. The caller's is the turn, as in read.
func (u *inUse) fresh() bool {
	return !u.stale.Load() && time.Since(u.now.listenersAt) < listenersAge && time.Since(u.now.forwardsAt) < forwardsAge
}

// read reads what is too old.
func (u *inUse) read(ctx context.Context) {
	now := u.now
	if time.Since(now.listenersAt) >= listenersAge {
		now.listeners, now.listenersErr = u.listeners(ctx)
		now.listenersAt = time.Now()
	}
	if stale := u.stale.Swap(false); stale || time.Since(now.forwardsAt) >= forwardsAge {
		now.forwards, now.forwardsErr = u.forwards(ctx)
		now.forwardsAt = time.Now()
	}
	u.now = now
	u.seen.Store(&now)
}

// list returns the ports in use where a WAN is the one that mappings are made on, those
// that nobody ever gets among them, or why that is not known.
func (u *inUse) list(w netif.WAN) ([]portmap.PortsInUse, error) {
	seen := u.seen.Load()
	switch {
	case seen == nil:
		return nil, errors.New("nobody has looked yet")
	case seen.listenersErr != nil:
		return nil, fmt.Errorf("list the gateway's own services: %w", seen.listenersErr)
	case seen.forwardsErr != nil:
		return nil, fmt.Errorf("read the owner's port forwards: %w", seen.forwardsErr)
	}
	spare := portmap.PortsInUse{
		Ports: portmap.PortRange{First: firewall.SpareFirst, Last: firewall.SpareLast},
		By:    fmt.Sprintf("ports %d to %d are kept for hosts whose own port is mapped to another", firewall.SpareFirst, firewall.SpareLast),
	}
	all := []portmap.PortsInUse{spare}
	for _, l := range seen.listeners.Reachable(w) {
		all = append(all, portmap.PortsInUse{
			Transport: portmap.Transport(l.Transport), Ports: portmap.PortRange{First: l.Port, Last: l.Port},
			By: fmt.Sprintf("the gateway itself listens on %s", netip.AddrPortFrom(l.Addr, l.Port)),
		})
	}
	for _, f := range seen.forwards.All() {
		f.By = "the owner's own firewall forwards it: " + f.By
		all = append(all, f)
	}
	return all, nil
}
