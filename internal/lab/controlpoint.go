package lab

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// Service types that a control point looks for.
const (
	WANIP1 = "urn:schemas-upnp-org:service:WANIPConnection:1"
	WANIP2 = "urn:schemas-upnp-org:service:WANIPConnection:2"
	IGD1   = "urn:schemas-upnp-org:device:InternetGatewayDevice:1"
	IGD2   = "urn:schemas-upnp-org:device:InternetGatewayDevice:2"

	WANIPv6FC1 = "urn:schemas-upnp-org:service:WANIPv6FirewallControl:1"
)

// ControlPoint is a small UPnP client that lives on a host.
type ControlPoint struct {
	Host    *Host
	Source  netip.Addr // of its HTTP connections; invalid is any address of the host
	Service string     // the service type that Find found
	Control string     // its control URL
	client  *http.Client
}

// ErrSilence means that nobody answered.
var ErrSilence = errors.New("nobody answered")

// UPnPError is a refusal by the gateway.
type UPnPError struct {
	Code        int
	Description string
}

func (e *UPnPError) Error() string { return fmt.Sprintf("%d %s", e.Code, e.Description) }

// NewControlPoint puts a control point on a host.
func NewControlPoint(h *Host) *ControlPoint {
	c := &ControlPoint{Host: h}
	c.client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: c.dial}}
	return c
}

// dial connects from the control point's address. A link-local one of the
// gateway is on the host's link: its URL cannot say so (RFC 6874 is for people).
func (c *ControlPoint) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var source netip.AddrPort
	if c.Source.IsValid() {
		source = netip.AddrPortFrom(c.Source, 0)
	}
	return c.Host.DialFrom(ctx, source, network, addr)
}

// deviceXML is as much of a device description as a control point needs.
type deviceXML struct {
	Services []struct {
		Type    string `xml:"serviceType"`
		Control string `xml:"controlURL"`
	} `xml:"serviceList>service"`
	Devices []deviceXML `xml:"deviceList>device"`
}

// Find searches for a gateway by IPv4 and for the connection service in its
// description.
func (c *ControlPoint) Find(ctx context.Context, device, service string) error {
	return c.FindBy(ctx, Search{Target: device}, service)
}

// FindBy is Find with a search of the caller's.
func (c *ControlPoint) FindBy(ctx context.Context, search Search, service string) error {
	found, err := c.Discover(ctx, search)
	if err != nil {
		return err
	}
	return c.Read(ctx, found.Location(), service)
}

// Read takes a service from the description at a URL.
func (c *ControlPoint) Read(ctx context.Context, location, service string) error {
	body, err := c.get(ctx, location)
	if err != nil {
		return err
	}
	var root struct {
		Device deviceXML `xml:"device"`
	}
	if err := xml.Unmarshal(body, &root); err != nil {
		return fmt.Errorf("lab: description: %w", err)
	}
	control := findService(root.Device, service)
	if control == "" {
		return fmt.Errorf("lab: no %s in the description at %s", service, location)
	}
	base, err := url.Parse(location)
	if err != nil {
		return err
	}
	ref, err := base.Parse(control)
	if err != nil {
		return err
	}
	c.Service, c.Control = service, ref.String()
	return nil
}

func findService(d deviceXML, service string) string {
	for _, s := range d.Services {
		if s.Type == service {
			return s.Control
		}
	}
	for _, sub := range d.Devices {
		if url := findService(sub, service); url != "" {
			return url
		}
	}
	return ""
}

func (c *ControlPoint) get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	return io.ReadAll(io.LimitReader(resp.Body, 1<<16))
}

// Call invokes an action; args are names and values in turn. It returns the out
// arguments, or an *UPnPError.
func (c *ControlPoint) Call(ctx context.Context, action string, args ...string) (map[string]string, error) {
	var body strings.Builder
	fmt.Fprintf(&body, `<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" `+
		`s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body><u:%s xmlns:u="%s">`, action, c.Service)
	for i := 0; i+1 < len(args); i += 2 {
		fmt.Fprintf(&body, "<%s>", args[i])
		if err := xml.EscapeText(&body, []byte(args[i+1])); err != nil {
			return nil, err
		}
		fmt.Fprintf(&body, "</%s>", args[i])
	}
	fmt.Fprintf(&body, "</u:%s></s:Body></s:Envelope>", action)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.Control, strings.NewReader(body.String()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", `text/xml; charset="utf-8"`)
	req.Header["SOAPACTION"] = []string{`"` + c.Service + "#" + action + `"`}
	resp, err := c.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<17))
	if err != nil {
		return nil, err
	}
	return readAnswer(resp.StatusCode, answer)
}

func readAnswer(status int, body []byte) (map[string]string, error) {
	var env struct {
		Body struct {
			Fault *struct {
				Code        int    `xml:"detail>UPnPError>errorCode"`
				Description string `xml:"detail>UPnPError>errorDescription"`
			} `xml:"Fault"`
			Response struct {
				Args []struct {
					XMLName xml.Name
					Value   string `xml:",chardata"`
				} `xml:",any"`
			} `xml:",any"`
		}
	}
	if err := xml.Unmarshal(body, &env); err != nil {
		return nil, fmt.Errorf("lab: HTTP %d with no SOAP answer", status)
	}
	if f := env.Body.Fault; f != nil {
		return nil, &UPnPError{f.Code, f.Description}
	}
	out := make(map[string]string)
	for _, a := range env.Body.Response.Args {
		out[a.XMLName.Local] = a.Value
	}
	return out, nil
}

// Mapping is what a control point asks for.
type Mapping struct {
	Remote             string
	External, Internal uint16
	Protocol           string // "TCP" or "UDP"
	Client             string // "" means the host itself
	Description        string
	Lease              time.Duration
}

func (c *ControlPoint) arguments(m Mapping) []string {
	if m.Client == "" {
		m.Client = c.Host.Addr.String()
	}
	return []string{
		"NewRemoteHost", m.Remote,
		"NewExternalPort", fmt.Sprint(m.External),
		"NewProtocol", m.Protocol,
		"NewInternalPort", fmt.Sprint(m.Internal),
		"NewInternalClient", m.Client,
		"NewEnabled", "1",
		"NewPortMappingDescription", m.Description,
		"NewLeaseDuration", fmt.Sprint(int(m.Lease.Seconds())),
	}
}

// Add asks for exactly this mapping.
func (c *ControlPoint) Add(ctx context.Context, m Mapping) error {
	_, err := c.Call(ctx, "AddPortMapping", c.arguments(m)...)
	return err
}

// AddAny asks for this mapping or another port, and returns the port (IGD:2).
func (c *ControlPoint) AddAny(ctx context.Context, m Mapping) (uint16, error) {
	out, err := c.Call(ctx, "AddAnyPortMapping", c.arguments(m)...)
	if err != nil {
		return 0, err
	}
	var port uint16
	if _, err := fmt.Sscan(out["NewReservedPort"], &port); err != nil {
		return 0, fmt.Errorf("lab: NewReservedPort %q", out["NewReservedPort"])
	}
	return port, nil
}

// Delete removes a mapping.
func (c *ControlPoint) Delete(ctx context.Context, external uint16, protocol string) error {
	_, err := c.Call(ctx, "DeletePortMapping", "NewRemoteHost", "", "NewExternalPort", fmt.Sprint(external), "NewProtocol", protocol)
	return err
}
