package control

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"portcullis/internal/http1"
	"portcullis/portmap"
)

// Question is the body of POST /v1/explain: what would come of a request, if a host made it now.
type Question struct {
	Client       string  `json:"client"`                  // an address, or a MAC address
	Protocol     string  `json:"protocol"`                // tcp or udp
	Port         uint16  `json:"port"`                    // of the host
	ExternalPort *uint16 `json:"external_port,omitempty"` // nil: the same number; 0: any
	Via          string  `json:"via,omitempty"`           // upnp, natpmp or pcp; "": upnp
	Description  string  `json:"description,omitempty"`
}

// Explained is the answer to a Question.
type Explained struct {
	Verdict
	Client       Asker  `json:"client"`
	Protocol     string `json:"protocol"`
	Family       int    `json:"family"`
	InternalPort uint16 `json:"internal_port"`
	ExternalPort uint16 `json:"external_port"` // that it would get; of a refusal, that it asked for
	ExpiresIn    int64  `json:"expires_in"`    // seconds of the lease that it would get; 0: it would get none
	Note         string `json:"note"`          // what could not be known, or ""
	Pending      uint64 `json:"pending"`       // the number under which it waits for the owner; 0: it does not
}

// Query is a Question that was understood: a request whose client is to be found by its
// address or its MAC address, and then its kind is known and so is the inside's address.
type Query struct {
	Addr    netip.Addr
	MAC     portmap.MAC // where Addr is not valid
	Port    uint16
	Request portmap.Request
}

// NotServed is why nobody is answered who asks by a protocol: it is off, say.
type NotServed string

// Error returns the sentence.
func (n NotServed) Error() string { return string(n) }

// Explain asks what would come of a request. Nothing is opened, and nobody hears of it.
func (c *Client) Explain(ctx context.Context, q Question) (Explained, error) {
	var e Explained
	return e, c.call(ctx, http1.Post, "/v1/explain", q, &e)
}

func (s *Server) explain(ctx context.Context, r *http1.Request) *http1.Response {
	var q Question
	if err := decode(r, &q); err != nil {
		return fail(http1.BadRequest, "bad-request", err.Error())
	}
	query, err := q.query()
	if err != nil {
		return fail(http1.BadRequest, "bad-request", err.Error())
	}
	e, err := s.cfg.Explain(ctx, query)
	if off := NotServed(""); errors.As(err, &off) {
		return fail(http1.Conflict, "not-served", err.Error())
	}
	if err != nil {
		return fail(http1.Conflict, portmap.ReasonOf(err).String(), err.Error())
	}
	return reply(e)
}

// query reads a question as the protocol would put it.
func (q Question) query() (x Query, err error) {
	if x.Addr, err = netip.ParseAddr(q.Client); err != nil {
		if x.MAC, err = portmap.ParseMAC(q.Client); err != nil || x.MAC == (portmap.MAC{}) {
			return x, fmt.Errorf("%.64q is neither an address nor a MAC address", q.Client)
		}
	} else if x.Addr.Zone() != "" || x.Addr.Is4In6() {
		return x, fmt.Errorf("%.64q is not the address of a host as a LAN has it", q.Client)
	}
	r := &x.Request
	if err := r.Transport.UnmarshalText([]byte(q.Protocol)); err != nil {
		return x, fmt.Errorf("protocol %.64q is neither tcp nor udp", q.Protocol)
	}
	if x.Port = q.Port; q.Port == 0 {
		return x, errors.New("0 is not a port from 1 to 65535")
	}
	if r.ExternalPort = q.Port; q.ExternalPort != nil {
		r.ExternalPort = *q.ExternalPort
	}
	if r.Description = q.Description; len(q.Description) > portmap.MaxDescription {
		return x, fmt.Errorf("a description has at most %d octets", portmap.MaxDescription)
	}
	switch q.Via {
	case "", "upnp":
		r.Client.Via, r.Exact, r.ZeroIsEndless = portmap.ViaUPnP, r.ExternalPort != 0, true
	case "natpmp":
		r.Client.Via, r.Named, r.RemotesAre, r.KeepDescription = portmap.ViaNATPMP, portmap.ByInternal, portmap.RemotesUnsaid, true
	case "pcp":
		r.Client.Via, r.Named, r.RemotesAre, r.Floored = portmap.ViaPCP, portmap.ByInternal, portmap.RemotesAdd, true
	default:
		return x, fmt.Errorf("%.64q is not a protocol that asks for ports: upnp, natpmp or pcp", q.Via)
	}
	return x, nil
}
