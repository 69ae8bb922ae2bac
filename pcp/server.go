package pcp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"

	"portcullis/internal/datagram"
	"portcullis/internal/slog"
	"portcullis/portmap"
)

// Config configures a Server. All fields must be set.
type Config struct {
	Logger *slog.Logger
	// Ifname and Ifindex are the LAN interface; datagrams that came in by
	// another one are dropped (abuse case A2).
	Ifname  string
	Ifindex int
	// NATPMP and PCP are the protocols that are served, at least one of them.
	// NAT-PMP exists over IPv4 only.
	NATPMP, PCP bool
	Mapper      Mapper
	// External returns the IPv4 address that clients are told; zero while unknown.
	External func() netip.Addr
	// Identify returns who sent a datagram and whom it is charged to;
	// portmap.ErrUnknownHost makes the server ask again in a moment. With another
	// error there is no answer, and nobody is charged. It must not block.
	Identify func(datagram.Packet) (portmap.Client, datagram.Account, error)
	// Seek has the kernel ask who has a datagram's source address. It must not
	// block.
	Seek func(datagram.Packet)
	// Epoch is shared by the servers of all interfaces, those of one family.
	Epoch *Epoch
	// RequestsPerSecond bounds what one device is answered; 0: no limit.
	RequestsPerSecond int
}

const (
	totalRate  = 2000 // replies a second to all hosts together
	maxDevices = 1024 // remembered for their rate
)

// Server answers the hosts of one interface.
type Server struct {
	cfg      Config
	udp      *datagram.Server
	conn     datagram.Conn
	announce atomic.Bool // the series shall begin anew
}

// New checks the configuration and makes a Server, which is silent until Run and
// SetAddresses were called, in whatever order. Run closes conn.
func New(cfg Config, conn datagram.Conn) (*Server, error) {
	switch {
	case cfg.Mapper == nil || cfg.External == nil || cfg.Identify == nil || cfg.Seek == nil || cfg.Epoch == nil:
		return nil, errors.New("pcp: Mapper, External, Identify, Seek and Epoch must not be nil")
	case !cfg.NATPMP && !cfg.PCP:
		return nil, errors.New("pcp: neither NAT-PMP nor PCP is enabled")
	case cfg.RequestsPerSecond < 0:
		return nil, fmt.Errorf("pcp: %d requests a second", cfg.RequestsPerSecond)
	}
	udp, err := datagram.NewServer(datagram.Config{
		Protocol: "pcp", Logger: cfg.Logger, Ifname: cfg.Ifname, Ifindex: cfg.Ifindex,
		MaxDatagram: MaxDatagram, Conn: conn,
	})
	if err != nil {
		return nil, err
	}
	return &Server{cfg: cfg, udp: udp, conn: conn}, nil
}

// SetAddresses replaces the addresses of the socket's family that the interface has,
// first one that is there to stay, of IPv6 the link-local ones, and the networks on its
// link; only hosts in these are answered, and only where they asked one of these
// addresses. It never waits.
func (s *Server) SetAddresses(locals []netip.Addr, prefixes []netip.Prefix) {
	s.udp.SetAddresses(locals, prefixes)
}

// Announce begins the series of announcements anew, as a restart of the epoch, or
// another external address, demands. It never waits.
func (s *Server) Announce() {
	s.announce.Store(true)
	s.udp.Wake()
}

// Pulse returns what is closed when Run next looks for what has come: when it serves.
func (s *Server) Pulse() <-chan struct{} { return s.udp.Pulse() }

// Run serves until ctx ends, closes the conn, and returns nil when no goroutine
// is left. It announces itself first. It returns an error when the socket can no
// longer be read, or when answering panicked three times. It is called once.
func (s *Server) Run(ctx context.Context) error {
	l := newLoop(s)
	err := s.udp.Run(ctx, l)
	l.queue.working.Wait()
	return errors.Join(err, s.udp.Close())
}
