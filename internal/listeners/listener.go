package listeners

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"portcullis/internal/netif"
)

// listener is what serves a LAN at one Key.
type listener struct {
	key     Key
	lan     atomic.Pointer[netif.LAN] // as it is now
	servers []*Server
	stop    context.CancelFunc
	done    chan struct{}
}

// listen opens all sockets of a listener, or none. It returns nil where there are no
// servers for it.
func (s *Set) listen(ctx context.Context, at Key, lan netif.LAN) (*listener, error) {
	l := &listener{key: at, done: make(chan struct{})}
	l.lan.Store(&lan)
	var err error
	if l.servers, err = s.cfg.Open(ctx, at, lan, l.accepts); err != nil || len(l.servers) == 0 {
		return nil, err
	}
	l.follow(lan)
	return l, nil
}

// accepts is an Accepts.
func (l *listener) accepts(remote, local netip.AddrPort) bool {
	lan := l.lan.Load()
	return lan.OnLink(remote.Addr()) && slices.Contains(lan.Addrs, local.Addr())
}

// follow hands the servers other addresses and prefixes.
func (l *listener) follow(lan netif.LAN) {
	l.lan.Store(&lan)
	for _, server := range l.servers {
		if server.Follow != nil {
			server.Follow(lan)
		}
	}
}

// fits reports whether a listener is open and can stay: its sockets are bound to the
// interface, and those of IPv4 to its address. Prefixes and IPv6 addresses come and go
// more often, with every announcement of a provider, and must not shut clients out for
// a second.
func (l *listener) fits(lan netif.LAN) bool {
	select {
	case <-l.done:
		return false
	default:
	}
	was := l.lan.Load()
	return lan.Index == was.Index && (l.key.IPv6 || l.key.Also.IsValid() || lan.Addr == was.Addr)
}

func (l *listener) abandon() error {
	var failed error
	for _, server := range l.servers {
		failed = errors.Join(failed, server.Close())
	}
	return failed
}

// begin answers at a listener until it is stopped.
func (s *Set) begin(ctx context.Context, l *listener) {
	ctx, l.stop = context.WithCancel(ctx)
	var wait sync.WaitGroup
	names := make([]string, len(l.servers))
	for i, server := range l.servers {
		names[i] = server.Name
		wait.Go(func() {
			if err := server.Run(ctx); err != nil {
				s.ended(l, server.Name, err)
			}
		})
	}
	go func() {
		wait.Wait()
		close(l.done)
	}()
	s.cfg.Log.Info("serving a LAN", "interface", l.key.LAN, "family", l.key.Family(),
		"address", l.key.address(*l.lan.Load()), "servers", strings.Join(names, ", "))
}

// ended closes a listener of which a server ended before its time.
func (s *Set) ended(l *listener, server string, err error) {
	s.cfg.Log.Error("a LAN is no longer served", "interface", l.key.LAN, "family", l.key.Family(), "server", server, "err", err)
	l.stop()
	s.cfg.Failed(err)
}
