package gena

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"portcullis/internal/slog"
)

// Defaults of a Config.
const (
	DefaultMaxTotal     = 64
	DefaultMaxPerDevice = 8
	DefaultTimeout      = 30 * time.Minute // UDA: 1800 s or more
	DefaultMaxTimeout   = 2 * time.Hour
	DefaultMinInterval  = 200 * time.Millisecond
)

// reserve is how much of MaxTotal is kept for devices that have no subscription: one
// part in so many.
const reserve = 8

// Bounds of the deliveries, abuse case F6.
const (
	maxDeliveries = 8               // at a time, over all subscribers
	maxShare      = 2               // of these to one device: a slow one cannot starve the others
	deliveryTime  = 5 * time.Second // for one message in all, every URL of it
	maxFailures   = 2               // in a row, then the subscription ends

	// settleTime passes between the answer to SUBSCRIBE and the first event, so
	// that the connection's FIN goes first (UDA 1.1 section 4.1.2) and the
	// subscriber has noted its SID. Without it a quick gateway gets a 412.
	settleTime = 50 * time.Millisecond
)

// A Property is one evented variable and its value.
type Property struct {
	Name  string // an XML name, from a table of the caller's, never from a client
	Value string // as the variable's type writes it; escaped here
}

// A Subscriber is the sender of a request, as its socket has it.
type Subscriber struct {
	Addr      netip.Addr // the client's; never an IPv4 address mapped into IPv6
	Local     netip.Addr // the one of ours it connected to
	Interface string     // the one it came in by

	// Device is what caps count by: one machine has one, whatever addresses it has
	// taken (abuse case K2). Empty where that is not known: then the address on its
	// interface counts, and half of everything is the most for all such together.
	Device string
}

// A Config configures a Notifier. A zero number or duration means its
// default.
type Config struct {
	// Logger must not be nil. Everything a client can cause is logged at Debug,
	// without a byte of what it wrote.
	Logger *slog.Logger

	// Server is the SERVER header of the answers to SUBSCRIBE; empty leaves the
	// header as the caller set it.
	Server string

	// MaxTotal is how many subscriptions there are in all; default 64. An eighth of
	// them is kept for devices that have none.
	MaxTotal int
	// MaxPerDevice is how many one device has; default 8.
	MaxPerDevice int

	// Timeout is how long a subscription lasts that asks for less, or for
	// nothing; default 1800 s. MaxTimeout is the longest anyone gets; default
	// 7200 s, and never below Timeout.
	Timeout, MaxTimeout time.Duration

	// MinInterval lies between the starts of two messages to one subscription;
	// what changes meanwhile goes out as one message. Default 200 ms.
	MinInterval time.Duration

	// OnLink reports whether an address is a neighbour's on an interface. It is
	// asked when a subscription begins and before each delivery; nil means that
	// the caller has seen to it. It must not block.
	OnLink func(iface string, addr netip.Addr) bool

	// Dial connects to one of a subscriber's ports, out of its interface and from
	// Subscriber.Local; to.Addr() is always the subscriber's own, and to.Port() at
	// least MinPort. It must not be nil.
	Dial func(ctx context.Context, sub Subscriber, to netip.AddrPort) (net.Conn, error)
}

// Stats are counts since New, but for Subscriptions, which is now.
type Stats struct {
	Subscriptions int
	Delivered     uint64 // messages a subscriber accepted
	Failed        uint64 // messages given up
	Dropped       uint64 // subscriptions ended by failures
	Panics        uint64 // in functions of the caller; each one is logged
}

// A Notifier keeps the subscriptions and delivers the events. Its methods may be
// called from any goroutine. Subscriptions live in memory only: none outlives
// the process, as UDA 1.1 section 4 demands after a reboot.
type Notifier struct {
	cfg  Config
	wake chan struct{} // holds one: there may be something to do for Run

	mu      sync.Mutex // guards what follows, and the fields of each subscription
	began   bool       // Run was called
	closed  bool       // Run has ended
	subs    map[string]*subscription
	queue   []*subscription  // those that have something to send, longest wait first
	loads   map[string]*load // by Subscriber.party
	unknown load             // of all whose device is not known
	running int              // deliveries under way
	stats   Stats
}

// A host is what ownership goes by: an address, without its zone, on the interface
// it came in by.
type host struct {
	addr  netip.Addr
	iface string
}

func (s Subscriber) host() host { return host{s.Addr.WithZone(""), s.Interface} }

// party is what caps go by.
func (s Subscriber) party() string {
	if s.Device != "" {
		return s.Device
	}
	return s.Interface + " " + s.Addr.WithZone("").String()
}

// A load is what one party has; it is forgotten when both are 0.
type load struct {
	subscriptions int
	deliveries    int
}

// New returns a Notifier that accepts subscriptions at once, and delivers events
// while Run runs. It panics when cfg has no Logger or no Dial.
func New(cfg Config) *Notifier {
	if cfg.Logger == nil || cfg.Dial == nil {
		panic("gena: Config.Logger or Config.Dial is nil")
	}
	orDefault(&cfg.MaxTotal, DefaultMaxTotal)
	orDefault(&cfg.MaxPerDevice, DefaultMaxPerDevice)
	orDefault(&cfg.Timeout, DefaultTimeout)
	orDefault(&cfg.MaxTimeout, DefaultMaxTimeout)
	orDefault(&cfg.MinInterval, DefaultMinInterval)
	cfg.MaxTimeout = max(cfg.MaxTimeout, cfg.Timeout)
	return &Notifier{
		cfg:   cfg,
		wake:  make(chan struct{}, 1),
		subs:  make(map[string]*subscription),
		loads: make(map[string]*load),
	}
}

func orDefault[T int | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

// Publish sends every subscriber of service what changed. It never waits for
// one: values are kept, the newest of each variable, until the subscription's
// message before has ended. A value must be visible through a subscription's
// initial function before it is published, so that none is lost between the two.
// Subscribers whose first event is still due learn it from there.
func (n *Notifier) Publish(service string, changed []Property) {
	n.PublishEach(service, func(Subscriber) []Property { return changed })
}

// PublishEach is Publish for variables that each subscriber sees otherwise.
// Nothing is sent to those for whom changed returns no property. changed is called
// with the Notifier locked: it must not block, nor call the Notifier.
func (n *Notifier) PublishEach(service string, changed func(Subscriber) []Property) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.subs {
		if s.service != service || s.initialDue {
			continue // the first event has every variable
		}
		if p := changed(s.sub); len(p) > 0 {
			s.pending = merge(s.pending, p)
			s.due = true
			n.enqueue(s)
		}
	}
	n.poke()
}

// Reset ends all subscriptions silently, as a device does that has said
// byebye. What is being delivered is cut off.
func (n *Notifier) Reset() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.subs {
		n.remove(s)
	}
}

// Stats returns the counts.
func (n *Notifier) Stats() Stats {
	n.mu.Lock()
	defer n.mu.Unlock()
	st := n.stats
	st.Subscriptions = len(n.subs)
	return st
}

// poke lets Run look again. It never blocks.
func (n *Notifier) poke() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

var errRunTwice = errors.New("gena: Run was called before")
