package wall

import (
	"net/netip"
	"time"

	"portcullis/internal/netif"
	"portcullis/portmap"
)

// Version is of the messages. Both ends are one program, so there is no other.
const Version = 1

// Bounds of what crosses.
const (
	MaxMessage  = 64 << 10 // octets of a message
	MaxUnderWay = 64       // requests without an answer

	maxPatience = 30 * time.Second // of a request
	maxSet      = 64               // mappings of one request (RFC 7753)
	maxRemotes  = 64               // in a request; a mapping has portmap.MaxRemotes
	maxDetail   = 1 << 10          // octets of a sentence
	maxLANs     = 64
	maxAddrs    = 256 // addresses, and networks, of one LAN
	maxSetting  = 512 // octets of a text among the settings
	maxPlain    = 256 // networks of Version1Clients
	maxLine     = 200 // octets of the message of a record
	maxKey      = 40
	maxAttrs    = 16
	maxMissing  = 16 // lines about a sandbox
)

// Message is one that crosses the wall.
type Message struct {
	// Number is that of a request, which its answer repeats; 0 of what nobody asked for.
	Number uint32
	// Patience is how long who asks waits for the answer; 0 in all else.
	Patience time.Duration
	Body     Body
}

// Body is what a message says: a pointer to one of the types below.
type Body interface{ code(*wire) }

// What the front asks.
type (
	// Map asks for N mappings in a row. The answer is Mappings.
	Map struct {
		Request portmap.Request
		N       int
	}
	// Unmap asks that mappings end. The answer is Done.
	Unmap struct{ Selector portmap.Selector }
	// Own and OwnPorts ask for a client's mappings. The answer is Page.
	Own struct {
		Client  portmap.ClientID
		From, N int
	}
	OwnPorts struct {
		Own
		Transport portmap.Transport
		Ports     portmap.PortRange
	}
	// External, Internal and Pinhole ask for one mapping. The answer is Mappings.
	External struct {
		Transport portmap.Transport
		Port      uint16
		Remotes   []portmap.Remote
	}
	Internal struct {
		Client portmap.ClientID
		External
	}
	Pinhole struct{ ID uint16 }
	// Packets asks how many came in by a mapping. The answer is Value.
	Packets struct{ ID uint64 }
	// OutboundTimeout asks for that of a protocol. The answer is Value, in nanoseconds.
	OutboundTimeout struct{ Transport portmap.Transport }
	// Heard asks whether a device has answered. The answer is Value, 1 or 0.
	Heard struct{ MAC portmap.MAC }
	// NextBootID asks for a number. The answer is Value.
	NextBootID struct{ Last uint32 }
	// Suspect and KeepEpochs ask for what their names say. The answer is Done.
	Suspect    struct{}
	KeepEpochs struct{ Four, Six time.Time }
	// Open asks for the socket of a LAN. The answer is Socket.
	Open struct {
		Kind SocketKind
		LAN  string
		Six  bool
		Addr netip.AddrPort // of HTTP
	}
	// Resolve asks that a LAN is asked for a host. The answer is Done.
	Resolve struct {
		LAN  string
		Addr netip.Addr
	}
	// Connect asks for a connection to a subscriber of events, from an address of ours. The
	// answer is Socket.
	Connect struct {
		LAN   string
		Local netip.Addr
		To    netip.AddrPort
	}
	// Forget says that nobody waits for the answer to the request of this number any
	// more. It has none of its own.
	Forget struct{}
)

// What the warden answers.
type (
	Done     struct{}
	Mappings struct{ Mappings []Mapping }
	Page     struct {
		Mappings []Mapping
		Count    uint32
		Revision uint64
	}
	Value struct{ Value uint64 }
	// Refused is a portmap.Error, or, where Reason is NoReason, another one: without
	// Detail, that the patience was over.
	Refused struct {
		Reason   portmap.Reason
		Detail   string
		Left     time.Duration
		External bool
		Gone     bool // netif.ErrGone
	}
	// Socket comes with its descriptors: that of the socket, and a packet socket's
	// where that is how its senders are seen.
	Socket struct{ Seen Seen }
)

// What the warden says unasked.
type (
	// Settings are what the front is to do. They come first, and once.
	Settings struct {
		UPnP, Events             bool
		UUID, Path, FriendlyName string
		Product                  Product
		HTTPPort                 uint16
		MaxAge                   time.Duration // whole seconds
		RateUp, RateDown         uint64
		Version1                 bool
		Version1Clients          []netip.Prefix
		NATPMP, PCP              bool
		RequestsPerSecond        uint32 // 0: no limit
		SameDevice               bool
		LogLevel                 int8   // of slog; what is below it does not cross
		UID, GID                 uint32 // that the front goes on as; 0: as it is
		Shared                   bool   // a Turn comes with them
	}
	// Product is igd.Product.
	Product struct {
		Manufacturer, ManufacturerURL                      string
		ModelName, ModelNumber, ModelDescription, ModelURL string
		SerialNumber                                       string
		PresentationURL                                    string
	}
	// Serve lets the front begin to answer, with the epochs that began then; zero: now.
	Serve struct{ Four, Six time.Time }
	// Event says whose mappings changed.
	Event struct {
		Type   portmap.EventType
		Kind   portmap.Kind
		Client portmap.ClientID // without an address where events were lost
	}
	// Network says how the gateway is reached and what it serves. It is answered by Served.
	Network struct {
		Turn uint32 // which of them it is
		WAN  portmap.WAN
		Six  bool
		LANs []netif.LAN
	}
	// Stop asks the front to end.
	Stop struct{}
	// Ping asks whether the front serves. It is answered by Pong, and a second one says that
	// this takes too long.
	Ping struct{}
)

// What the front says, and is not answered.
type (
	// Served says that the front serves the network of a turn, or what of it cannot be
	// served.
	Served struct {
		Turn    uint32
		Problem string
	}
	// Failed says that a server has ended.
	Failed struct{ Problem string }
	// Pong answers Ping, by way of the loops that serve.
	Pong struct{}
	// Confined says that the front's sandbox is closed, and what of it this machine lacks.
	// It comes once, before the first Served.
	Confined struct{ Missing []string }
	// Record is for the owner's log.
	Record struct {
		Level   int8 // of slog
		Message string
		Attrs   []Attr
	}
)

// Attr is an attribute of a Record.
type Attr struct {
	Key    string
	Kind   AttrKind
	Text   string // of TextAttr, else ""
	Number uint64 // of the others, else 0
}

// AttrKind is what an Attr has.
type AttrKind uint8

// The kinds.
const (
	TextAttr AttrKind = iota
	IntAttr
	UintAttr
	BoolAttr
	DurationAttr
)

// SocketKind is what a socket is for.
type SocketKind uint8

// The kinds.
const (
	Discovery SocketKind = iota
	PortControl
	HTTP
)

// Seen is how a socket shows which machine sent a datagram.
type Seen uint8

// The ways.
const (
	NotSeen Seen = iota
	ByMark
	ByPacketSocket
)

// The number of a type says who sends it.
const (
	firstAsked    = 1   // by the front
	firstAnswered = 64  // by the warden
	firstTold     = 128 // by the warden, unasked
	firstSaid     = 192 // by the front, without an answer
)

// bodies makes an empty one of each type.
var bodies = map[uint8]func() Body{
	1:   func() Body { return new(Map) },
	2:   func() Body { return new(Unmap) },
	3:   func() Body { return new(Own) },
	4:   func() Body { return new(OwnPorts) },
	5:   func() Body { return new(External) },
	6:   func() Body { return new(Internal) },
	7:   func() Body { return new(Pinhole) },
	8:   func() Body { return new(Packets) },
	9:   func() Body { return new(OutboundTimeout) },
	10:  func() Body { return new(Heard) },
	11:  func() Body { return new(NextBootID) },
	12:  func() Body { return new(Suspect) },
	13:  func() Body { return new(KeepEpochs) },
	14:  func() Body { return new(Open) },
	15:  func() Body { return new(Forget) },
	16:  func() Body { return new(Resolve) },
	17:  func() Body { return new(Connect) },
	64:  func() Body { return new(Done) },
	65:  func() Body { return new(Mappings) },
	66:  func() Body { return new(Page) },
	67:  func() Body { return new(Value) },
	68:  func() Body { return new(Refused) },
	69:  func() Body { return new(Socket) },
	128: func() Body { return new(Settings) },
	129: func() Body { return new(Network) },
	130: func() Body { return new(Serve) },
	131: func() Body { return new(Event) },
	132: func() Body { return new(Stop) },
	133: func() Body { return new(Ping) },
	192: func() Body { return new(Served) },
	193: func() Body { return new(Failed) },
	194: func() Body { return new(Record) },
	195: func() Body { return new(Pong) },
	196: func() Body { return new(Confined) },
}

func typeOf(b Body) uint8 {
	switch b.(type) {
	case *Map:
		return 1
	case *Unmap:
		return 2
	case *Own:
		return 3
	case *OwnPorts:
		return 4
	case *External:
		return 5
	case *Internal:
		return 6
	case *Pinhole:
		return 7
	case *Packets:
		return 8
	case *OutboundTimeout:
		return 9
	case *Heard:
		return 10
	case *NextBootID:
		return 11
	case *Suspect:
		return 12
	case *KeepEpochs:
		return 13
	case *Open:
		return 14
	case *Forget:
		return 15
	case *Resolve:
		return 16
	case *Connect:
		return 17
	case *Done:
		return 64
	case *Mappings:
		return 65
	case *Page:
		return 66
	case *Value:
		return 67
	case *Refused:
		return 68
	case *Socket:
		return 69
	case *Settings:
		return 128
	case *Network:
		return 129
	case *Serve:
		return 130
	case *Event:
		return 131
	case *Stop:
		return 132
	case *Ping:
		return 133
	case *Served:
		return 192
	case *Failed:
		return 193
	case *Record:
		return 194
	case *Pong:
		return 195
	case *Confined:
		return 196
	}
	return 0
}

// Encode returns the octets of a message. The error says that a field is out of its
// bounds.
func Encode(m Message) ([]byte, error) {
	w := &wire{b: make([]byte, 0, 128)}
	w.message(&m)
	if w.err == nil && len(w.b) > MaxMessage {
		w.err = errLong
	}
	return w.b, w.err
}

// Decode reads one message, all of b. It is the only one that Encode makes these octets
// of.
func Decode(b []byte) (Message, error) {
	if len(b) > MaxMessage {
		return Message{}, errLong
	}
	w := &wire{b: b, reading: true}
	var m Message
	w.message(&m)
	if w.err == nil && len(w.b) > 0 {
		w.err = errTrailing
	}
	if w.err != nil {
		return Message{}, w.err
	}
	return m, nil
}

func (w *wire) message(m *Message) {
	version, kind := uint8(Version), uint8(0)
	if !w.reading {
		kind = typeOf(m.Body)
	}
	w.u8(&version)
	if version != Version {
		w.fail(errVersion)
	}
	w.u8(&kind)
	if bodies[kind] == nil {
		w.fail(errType)
	}
	if w.err != nil {
		return
	}
	if w.reading {
		m.Body = bodies[kind]()
	}
	w.u32(&m.Number)
	w.span(&m.Patience, 0)
	asked := kind < firstAnswered
	w.check((kind < firstTold) == (m.Number != 0))
	w.check(m.Patience <= maxPatience && (asked || m.Patience == 0))
	m.Body.code(w)
}
