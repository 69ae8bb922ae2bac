package igd

import (
	"strings"
)

// kind is the UPnP data type of a state variable (UDA 1.1 section 2.5).
type kind string

const (
	text    kind = "string"
	boolean kind = "boolean"
	ui2     kind = "ui2"
	ui4     kind = "ui4"
)

// variable is one state variable of a service.
type variable struct {
	name    string
	kind    kind
	since   int      // the service version that brought it; 0 stands for 1
	allowed []string // all values of a string, or nil: any
	anyCase bool     // allowed values are accepted in either case
	limits  *limits  // what the description states, or nil; actions check it, with their own codes

	// value returns the present value for one client. It is set for what is
	// evented or can be queried, and for nothing else.
	value   func(visitor) string
	evented moment
	queried bool // QueryStateVariable answers it
}

// limits is an allowedValueRange that a version of the service introduced.
type limits struct {
	since    int
	min, max uint32
}

// argument is one argument of an action. In arguments must be present (abuse case
// G3), but for those that are optional.
type argument struct {
	name     string
	variable string // the related state variable, which gives the type
	optional bool   // a client may leave it out, and means the empty text then
	wildcard bool   // "*" stands for 0
	protocol bool   // "TCP" and "UDP" stand for their numbers
	cdata    bool   // an XML document, sent as a CDATA section; it never holds "]]>"
}

// action is one action of a service. The results of do are the values of the
// out arguments, in order.
type action struct {
	name  string
	since int // as in variable
	in    []argument
	out   []argument
	do    func(*call) ([]string, error)
}

// service is one entry of the device tree. Versions 1 to latest are spoken.
type service struct {
	name      string // as in its type, "WANIPConnection"
	id        string // the last part of its serviceId
	latest    int
	igd       int // the version of the gateway that brought it; 0 stands for 1
	variables []variable
	actions   []action
	noText    bool // no argument is free text: one that is too long is no value of its type
	pinholes  bool // its refusals are those of pinholes
}

// device is one level of the device tree.
type device struct {
	name     string
	latest   int
	services []*service
	embedded *device
}

// tree returns the gateway: three levels, each with its own UDN (UDA 1.1 section 2.3).
// Without pinholes it has no WANIPv6FirewallControl.
func tree(pinholes bool) *device {
	connection := []*service{wanIPConnection(), wanPPPConnection()}
	if pinholes {
		connection = append(connection, wanIPv6FirewallControl())
	}
	return &device{
		name: "InternetGatewayDevice", latest: 2,
		services: []*service{layer3Forwarding()},
		embedded: &device{
			name: "WANDevice", latest: 2,
			services: []*service{wanCommonInterfaceConfig()},
			embedded: &device{
				name: "WANConnectionDevice", latest: 2,
				services: connection,
			},
		},
	}
}

// igdVersions are the gateway versions that are described side by side.
var igdVersions = []int{1, 2}

const (
	devicePrefix    = "urn:schemas-upnp-org:device:"
	servicePrefix   = "urn:schemas-upnp-org:service:"
	serviceIDPrefix = "urn:upnp-org:serviceId:"
)

// under returns the version that a gateway of version igd shows.
func under(latest, igd int) int { return min(latest, igd) }

// offered reports whether a gateway of version igd has the service at all.
func (s *service) offered(igd int) bool { return s.igd <= igd }

func (s *service) typeOf(version int) string {
	return servicePrefix + s.name + ":" + digit(version)
}

// action returns the action that a version of the service has, or nil.
func (s *service) action(name string, version int) *action {
	for i := range s.actions {
		if a := &s.actions[i]; a.name == name && a.since <= version {
			return a
		}
	}
	return nil
}

func (s *service) variable(name string) *variable {
	for i := range s.variables {
		if s.variables[i].name == name {
			return &s.variables[i]
		}
	}
	return nil
}

// events returns the evented variables of a version of the service.
func (s *service) events(version int) []*variable {
	var all []*variable
	for i := range s.variables {
		if v := &s.variables[i]; v.evented != never && v.since <= version {
			all = append(all, v)
		}
	}
	return all
}

// parseType splits a service type of the standard namespace; version is 0 when
// it is none. Versions have no sign and no leading zero.
func parseType(serviceType string) (name string, version int) {
	rest, ok := strings.CutPrefix(serviceType, servicePrefix)
	if !ok {
		return "", 0
	}
	name, v, ok := strings.Cut(rest, ":")
	if !ok || len(v) != 1 || v[0] < '1' || v[0] > '9' {
		return "", 0
	}
	return name, int(v[0] - '0')
}

func digit(version int) string { return string(rune('0' + version)) }
