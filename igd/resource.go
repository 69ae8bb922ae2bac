package igd

import (
	"net/netip"
	"slices"
	"strings"

	"portcullis/internal/http1"
	"portcullis/internal/httpd"
	"portcullis/portmap"
)

// resource is what one path leads to.
type resource struct {
	methods []string
	serve   func(*Handler, *http1.Request, portmap.Client) *http1.Response
}

// The files of a service under its directory.
const (
	scpdFile    = "scpd.xml"
	controlFile = "control"
	eventFile   = "event"
)

var (
	readMethods    = []string{http1.Get, http1.Head}
	controlMethods = []string{http1.Post}
	eventMethods   = []string{"SUBSCRIBE", "UNSUBSCRIBE"}
)

func (d *Device) rootPath(igd int) string { return d.base + "/" + digit(igd) + "/root.xml" }

// path returns the URL of a service's file, absolute, because some clients do not
// resolve relative ones against the document's own directory. The two versions
// of the gateway have URLs of their own, so that each description stays
// consistent in itself and events fit it.
func (d *Device) path(igd int, s *service, file string) string {
	return d.base + "/" + digit(igd) + "/" + s.name + "/" + file
}

// layout is the table of all paths. What is not in it does not exist.
func (d *Device) layout() (map[string]resource, uint32) {
	docs, configID := d.documents()
	all := make(map[string]resource)
	for path, doc := range docs {
		all[path] = resource{readMethods, func(_ *Handler, r *http1.Request, _ portmap.Client) *http1.Response {
			answer := httpd.XML(http1.OK, doc)
			if r.Header.Get("Accept-Language") != "" { // UDA 1.1 section 2.11 wants an answer to it
				answer.Header = append(answer.Header, http1.Field{Name: "Content-Language", Value: "en"})
			}
			return answer
		}}
	}
	for _, igd := range igdVersions {
		for _, s := range d.services {
			if !s.offered(igd) {
				continue
			}
			all[d.path(igd, s, controlFile)] = resource{controlMethods, func(h *Handler, r *http1.Request, c portmap.Client) *http1.Response {
				return h.control(r, s, visitor{device: d, client: c, igd: igd})
			}}
			if d.notifier != nil {
				all[d.path(igd, s, eventFile)] = resource{eventMethods, func(h *Handler, r *http1.Request, c portmap.Client) *http1.Response {
					return h.event(r, s, visitor{device: d, client: c, igd: igd})
				}}
			}
		}
	}
	return all, configID
}

// Handler is the device as one LAN interface sees it. It is the handler that
// stands behind httpd's guard.
type Handler struct {
	device *Device
	iface  string
	addr   netip.AddrPort
}

// On returns the handler for a LAN interface whose server listens on addr.
func (d *Device) On(iface string, addr netip.AddrPort) *Handler {
	return &Handler{device: d, iface: iface, addr: addr}
}

// Location is the URL of the description for clients that searched for this
// version of a gateway, 1 or 2; other versions give that of the nearest. An IPv6
// address stands in it without a zone, which means something to its host only.
func (h *Handler) Location(version int) string {
	version = min(max(version, igdVersions[0]), igdVersions[len(igdVersions)-1])
	at := netip.AddrPortFrom(h.addr.Addr().WithZone(""), h.addr.Port())
	return "http://" + at.String() + h.device.rootPath(version)
}

// ServeHTTP finds the resource by the request target as it was sent: nothing is
// decoded, cleaned or redirected (abuse case G9). Who cannot be identified as a
// host of this LAN is refused before anything is told.
func (h *Handler) ServeHTTP(r *http1.Request) *http1.Response {
	client, ok := h.identify(r.Remote.Addr())
	if !ok {
		return http1.Empty(http1.Forbidden)
	}
	found, ok := h.device.resources[r.Target]
	if !ok {
		return http1.Empty(http1.NotFound)
	}
	if !slices.Contains(found.methods, r.Method) {
		return http1.Empty(http1.MethodNotAllowed, http1.Field{Name: "Allow", Value: strings.Join(found.methods, ", ")})
	}
	return found.serve(h, r, client)
}

// identify goes by the socket's peer, never by anything the client wrote. The
// interface is known, and so the zone of a link-local address says nothing new.
func (h *Handler) identify(peer netip.Addr) (portmap.Client, bool) {
	client, err := h.device.identify(h.iface, peer.WithZone(""))
	if err != nil {
		h.device.log.Debug("client not identified", "interface", h.iface, "client", peer, "err", err)
		return portmap.Client{}, false
	}
	client.Via = portmap.ViaUPnP
	return client, true
}
