package igd

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"portcullis/internal/digest"
	"portcullis/internal/slog"
	"portcullis/portmap"
)

// Mapper is what the device needs of portmap's Engine and its Reader.
type Mapper interface {
	Map(context.Context, portmap.Request) (portmap.Mapping, error)
	Unmap(context.Context, portmap.Selector) ([]portmap.Mapping, error)

	Own(ctx context.Context, id portmap.ClientID, from, n int) (portmap.Page, error)
	OwnPorts(ctx context.Context, id portmap.ClientID, tr portmap.Transport, ports portmap.PortRange, from, n int) (portmap.Page, error)
	External(ctx context.Context, tr portmap.Transport, port uint16, remotes []portmap.Remote) (portmap.Mapping, error)
	Internal(ctx context.Context, id portmap.ClientID, tr portmap.Transport, port uint16, remotes []portmap.Remote) (portmap.Mapping, error)
	Pinhole(ctx context.Context, number uint16) (portmap.Mapping, error)
}

// WAN is the state of the connection to the Internet. It is asked at every
// request and answers from memory.
type WAN interface {
	Status() WANStatus
}

// Config is what a Device needs. Every field must be set but those that say
// otherwise.
type Config struct {
	Mapper Mapper
	WAN    WAN

	// Identify returns who stands behind an address that a request came from by
	// an interface, going by the neighbour table. An error, for instance
	// because the address is not on that link, refuses the request.
	Identify func(iface string, addr netip.Addr) (portmap.Client, error)

	// The four that pinholes need: all of them are set, or none, and then there
	// is no WANIPv6FirewallControl.

	// As returns who c is when it names target, an address that is not its own:
	// the client at that address, where it is the same device and the gateway's
	// owner allows that (policy.same_device); else an error. It goes by the
	// neighbour table. The client that it returns has target for its Addr.
	As func(c portmap.Client, target netip.Addr) (portmap.Client, error)

	// Packets returns how many packets have come in by a pinhole.
	Packets func(ctx context.Context, m portmap.Mapping) (uint64, error)

	// OutboundTimeout returns how long the kernel lets answers in after the last
	// packet of what a host began itself.
	OutboundTimeout func(portmap.Transport) (time.Duration, error)

	// InboundAllowed reports whether a pinhole can be opened at present. It answers
	// from memory; when it changes, that is a signal on the wan channel of Run.
	InboundAllowed func() bool

	// UUID is the root device's, in the usual form, lower case; it should
	// stay the same for the life of the installation. Those of the embedded
	// devices follow from it.
	UUID string

	FriendlyName string // shown to people; at most 63 characters of it
	Product      Product

	// Path is the first segment of every URL, at least 16 letters, digits and dashes
	// that a web page cannot guess (abuse case D5). It should stay as the UUID does:
	// control points keep URLs.
	Path string

	Notifier Notifier // nil: no eventing
	Log      *slog.Logger
}

// minPath is the least number of characters of a Path.
const minPath = 16

// Device is the gateway as UPnP sees it, on all LAN interfaces at once. It is
// safe for concurrent use.
type Device struct {
	mapper       Mapper
	wan          WAN
	identify     func(string, netip.Addr) (portmap.Client, error)
	as           func(portmap.Client, netip.Addr) (portmap.Client, error)
	packets      func(context.Context, portmap.Mapping) (uint64, error)
	timeout      func(portmap.Transport) (time.Duration, error)
	allowed      func() bool
	notifier     Notifier
	log          *slog.Logger
	root         *device
	services     []*service
	udns         [3]string // of the three levels, with "uuid:"
	friendlyName string
	product      Product
	base         string // the secret path, with a slash in front and none behind
	resources    map[string]resource
	configID     uint32
}

// New returns a Device.
func New(cfg Config) (*Device, error) {
	given := []bool{cfg.As != nil, cfg.Packets != nil, cfg.OutboundTimeout != nil, cfg.InboundAllowed != nil}
	if slices.Contains(given, true) && slices.Contains(given, false) {
		return nil, errors.New("igd: As, Packets, OutboundTimeout and InboundAllowed must be set together")
	}
	return build(cfg, tree(cfg.As != nil))
}

func build(cfg Config, root *device) (*Device, error) {
	switch {
	case cfg.Mapper == nil:
		return nil, errors.New("igd: Mapper must be set")
	case cfg.WAN == nil:
		return nil, errors.New("igd: WAN must be set")
	case cfg.Identify == nil:
		return nil, errors.New("igd: Identify must be set")
	case cfg.Log == nil:
		return nil, errors.New("igd: Log must be set")
	}
	udns, err := deriveUDNs(cfg.UUID)
	if err != nil {
		return nil, err
	}
	if len(cfg.Path) < minPath || strings.ContainsFunc(cfg.Path, notPathRune) {
		return nil, fmt.Errorf("igd: path %q: at least %d letters, digits and dashes", cfg.Path, minPath)
	}
	d := &Device{
		mapper: cfg.Mapper, wan: cfg.WAN, identify: cfg.Identify, notifier: cfg.Notifier,
		as: cfg.As, packets: cfg.Packets, timeout: cfg.OutboundTimeout, allowed: cfg.InboundAllowed,
		log:  cfg.Log.With("subsystem", "igd"),
		root: root, udns: udns,
		friendlyName: cutRunes(cfg.FriendlyName, maxText),
		product:      cfg.Product.bounded(),
		base:         "/" + cfg.Path,
	}
	for dev := d.root; dev != nil; dev = dev.embedded {
		d.services = append(d.services, dev.services...)
	}
	d.resources, d.configID = d.layout()
	return d, nil
}

func notPathRune(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-')
}

func cutRunes(s string, n int) string {
	r := []rune(s)
	return string(r[:min(n, len(r))])
}

// deriveUDNs returns the three levels' names. The embedded devices' are hashes of
// the root's, in the form that RFC 9562 section 5.8 leaves to the application.
func deriveUDNs(root string) (udns [3]string, err error) {
	raw, err := hex.DecodeString(strings.ReplaceAll(root, "-", ""))
	if err != nil || len(raw) != 16 || root != formatUUID(raw) {
		return udns, fmt.Errorf("igd: not a UUID: %q", root)
	}
	udns[0] = "uuid:" + root
	for i, name := range []string{"WANDevice", "WANConnectionDevice"} {
		sum := digest.Sum(append([]byte(name), raw...))
		sum[6] = sum[6]&0x0f | 0x80
		sum[8] = sum[8]&0x3f | 0x80
		udns[i+1] = "uuid:" + formatUUID(sum[:16])
	}
	return udns, nil
}

func formatUUID(b []byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// ConfigID stands for the set of description documents, 0 to 16777215
// (CONFIGID.UPNP.ORG, UDA 1.1 section 1.2.2).
func (d *Device) ConfigID() uint32 { return d.configID }

// Target is one row of discovery (UDA 1.1 section 1.2.2): what can be searched for and
// is announced.
type Target struct {
	Type       string // a urn without its version, "upnp:rootdevice", or "" for the bare uuid
	MaxVersion int    // of a urn: versions 1 to MaxVersion are spoken
	UUID       string // of the device that has it, without "uuid:"
	Tree       int    // the first version of the gateway that has it
}

// Targets returns all rows, the root device's first.
func (d *Device) Targets() []Target {
	all := []Target{{Type: "upnp:rootdevice", UUID: d.uuid(0), Tree: 1}}
	level := 0
	for dev := d.root; dev != nil; dev = dev.embedded {
		all = append(all,
			Target{UUID: d.uuid(level), Tree: 1},
			Target{Type: devicePrefix + dev.name, MaxVersion: dev.latest, UUID: d.uuid(level), Tree: 1})
		for _, s := range dev.services {
			all = append(all, Target{
				Type: servicePrefix + s.name, MaxVersion: s.latest, UUID: d.uuid(level), Tree: max(1, s.igd),
			})
		}
		level++
	}
	return all
}

func (d *Device) uuid(level int) string { return strings.TrimPrefix(d.udns[level], "uuid:") }
