package ssdp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"portcullis/internal/datagram"
	"portcullis/internal/slog"
)

// Config configures a Server.
type Config struct {
	// Logger must not be nil.
	Logger *slog.Logger
	// Ifname and Ifindex are the LAN interface; datagrams that came in by
	// another one are dropped (abuse cases A2, E7). Ifindex must not be 0.
	Ifname  string
	Ifindex int
	// IPv6 is the family of the socket: that of Listen6, or of Listen.
	IPv6 bool
	// Targets are the rows in the order of UDA 1.1 section 1.2.2, 1 to 64. A row that
	// is given twice is announced once.
	Targets []Target
	// Describe returns the description for a local address of the interface and a
	// version of the device tree: 1 or 2 for who searched for that version of a
	// type (3 and above are shown 2), 0 for who did not name one (rootdevice,
	// uuid, ssdp:all, notifications), Plain for who is one of those. It is called from
	// Run, once a version for each address that is announced, and must not block.
	Describe func(version int, local netip.Addr) Description
	// Plain reports whether a client is shown one description whatever it searches for,
	// that of the version Plain. Nil means nobody is. It must not block.
	Plain func(client netip.Addr) bool
	// Account returns whom a search is charged to. It must not block.
	Account func(datagram.Packet) datagram.Account
	// Server is the SERVER header, "OS UPnP/1.1 product"; printable ASCII, at
	// most 64 octets. Versions in it show an attacker what to try (abuse case
	// K6).
	Server string
	// MaxAge is how long an announcement holds; whole seconds, 2 s to 24 h, 0
	// means 1800 s. It is announced again before half of it has passed.
	MaxAge time.Duration
	// BootID is the BOOTID.UPNP.ORG to start with, 0 to 2^31-1; see NextBootID.
	BootID uint32
	// NewBootID returns the next BOOTID.UPNP.ORG, which must be greater than the
	// last one, when the address changes. It is called from Run and must not
	// block. The caller who keeps the last number for the next start keeps it
	// here. Nil means NextBootID with the clock.
	NewBootID func(last uint32) uint32
}

const defaultMaxAge = 1800 * time.Second // UDA 2.0 section 1.2.2: at least 1800 s

// Server answers searches and advertises on one interface.
type Server struct {
	cfg  Config
	udp  *datagram.Server
	conn datagram.Conn
	cat  *catalogue
}

// New checks the configuration and makes a Server, which is silent until Run
// and SetAddresses were called, in whatever order. Run closes conn.
func New(cfg Config, conn datagram.Conn) (*Server, error) {
	cat, err := newCatalogue(cfg.Targets)
	if err != nil {
		return nil, fmt.Errorf("ssdp: %w", err)
	}
	if cfg.MaxAge == 0 {
		cfg.MaxAge = defaultMaxAge
	}
	switch {
	case cfg.Describe == nil || cfg.Account == nil:
		return nil, errors.New("ssdp: Describe and Account must not be nil")
	case cfg.Server == "" || len(cfg.Server) > maxServer || !printable(cfg.Server, " "):
		return nil, fmt.Errorf("ssdp: server %.80q is empty, too long or not printable", cfg.Server)
	case cfg.MaxAge < 2*time.Second || cfg.MaxAge > 24*time.Hour || cfg.MaxAge%time.Second != 0:
		return nil, fmt.Errorf("ssdp: max-age %v, want whole seconds from 2 s to 24 h", cfg.MaxAge)
	case cfg.BootID > maxBootID:
		return nil, fmt.Errorf("ssdp: BOOTID %d is over 2^31-1", cfg.BootID)
	}
	if cfg.NewBootID == nil {
		cfg.NewBootID = func(last uint32) uint32 { return NextBootID(last, time.Now()) }
	}
	udp, err := datagram.NewServer(datagram.Config{
		Protocol: "ssdp", Logger: cfg.Logger, Ifname: cfg.Ifname, Ifindex: cfg.Ifindex,
		Groups: groups(cfg.IPv6), MaxDatagram: MaxDatagram, Conn: conn,
	})
	if err != nil {
		return nil, err
	}
	return &Server{cfg: cfg, udp: udp, conn: conn, cat: cat}, nil
}

// SetAddresses replaces the addresses of the interface and the networks on its link
// (configured routed prefixes included); only hosts in these are answered.
// Addresses of the other family count for nothing. Over IPv4 the first is announced,
// and a host that searches from the network of another one is shown that; over IPv6 a
// link-local one on the link and another one, a global one where there is, on the site.
// A new one is a new appearance there: byebye, then alive with the new location and a
// greater BOOTID (UDA 2.0 section 1.2.2). None silences the server. It never waits; of
// several calls the last one counts.
func (s *Server) SetAddresses(locals []netip.Addr, prefixes []netip.Prefix) {
	var own []netip.Addr
	for _, a := range locals {
		if a.IsValid() && a.Is4() != s.cfg.IPv6 && !a.Is4In6() {
			own = append(own, a.WithZone(""))
		}
	}
	s.udp.SetAddresses(own, prefixes)
}

// Pulse returns what is closed when Run next looks for what has come: when it serves.
func (s *Server) Pulse() <-chan struct{} { return s.udp.Pulse() }

// Run serves until ctx ends, then sends byebye twice, closes the conn, and
// returns nil when no goroutine is left; that takes some 100 ms. It returns an
// error when the socket can no longer be read, or when answering panicked three
// times. It is called once.
func (s *Server) Run(ctx context.Context) error {
	l := newLoop(s)
	err := s.udp.Run(ctx, l)
	l.farewell()
	return errors.Join(err, s.udp.Close())
}
