package control

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"portcullis/internal/http1"
	"portcullis/portmap"
)

// Addition is the body of POST /v1/add: what the owner opens for a host of a LAN by hand.
// The answer is the Mapping.
type Addition struct {
	Protocol     string `json:"protocol"`      // tcp or udp
	ExternalPort uint16 `json:"external_port"` // 0 for IPv6, where nothing is translated
	InternalIP   string `json:"internal_ip"`
	InternalPort uint16 `json:"internal_port"`
	Remote       string `json:"remote,omitempty"`   // addresses and networks with commas between them; "": anyone
	Lifetime     int64  `json:"lifetime,omitempty"` // seconds; 0: for ever
	Description  string `json:"description,omitempty"`
}

// MaxLifetime is the longest lease but one without an end, in seconds: ten years, which
// every kernel can count.
const MaxLifetime = 10 * 365 * 24 * 3600

// addTimeout bounds how long the owner waits for the firewall.
const addTimeout = 10 * time.Second

func (s *Server) add(ctx context.Context, r *http1.Request) *http1.Response {
	var a Addition
	if err := decode(r, &a); err != nil {
		return fail(http1.BadRequest, "bad-request", err.Error())
	}
	wish, err := a.request()
	if err != nil {
		return fail(http1.BadRequest, "bad-request", err.Error())
	}
	ctx, cancel := context.WithTimeout(ctx, addTimeout)
	defer cancel()
	m, err := s.cfg.Mapper.Map(ctx, wish)
	if err != nil {
		return fail(http1.Conflict, portmap.ReasonOf(err).String(), err.Error())
	}
	return reply(NewMapping(m, new(Traffic), time.Now()))
}

// request returns what the engine is asked for. What the policy knows better is not
// looked at here.
func (a *Addition) request() (r portmap.Request, err error) {
	if r.Transport, err = transport(a.Protocol); err != nil {
		return r, err
	}
	host, err := netip.ParseAddr(a.InternalIP)
	switch {
	case err != nil || host.Zone() != "":
		return r, fmt.Errorf("%.64q is not an address", a.InternalIP)
	case a.InternalPort == 0 || host.Is4() && a.ExternalPort == 0:
		return r, errors.New("0 is not a port from 1 to 65535")
	case host.Is6() && a.ExternalPort != 0:
		return r, errors.New("nothing is translated for IPv6: the port outside is the one inside")
	case a.Lifetime < 0 || a.Lifetime > MaxLifetime:
		return r, fmt.Errorf("a lifetime is 0, which is for ever, or up to %d seconds", MaxLifetime)
	case len(a.Description) > portmap.MaxDescription:
		return r, fmt.Errorf("a description has at most %d bytes", portmap.MaxDescription)
	}
	r.Client, r.Internal = portmap.Owner(host), netip.AddrPortFrom(host, a.InternalPort)
	r.ExternalPort, r.Exact, r.Description = a.ExternalPort, true, strings.ToValidUTF8(a.Description, "\ufffd")
	r.Lifetime = time.Duration(a.Lifetime) * time.Second
	if host.Is6() {
		r.Kind = portmap.Pinhole6
	}
	r.Remotes, err = remotes(a.Remote)
	return r, err
}

// remotes reads what portmap.RemotesString writes, but for source ports.
func remotes(list string) (all []portmap.Remote, err error) {
	if list == "" {
		return nil, nil
	}
	for word := range strings.SplitSeq(list, ",") {
		p, err := netip.ParsePrefix(word)
		if a, other := netip.ParseAddr(word); other == nil && a.Zone() == "" {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		switch {
		case err != nil:
			return nil, fmt.Errorf("%.64q is neither an address nor a network", word)
		case p != p.Masked():
			return nil, fmt.Errorf("%s is not a network: that is %s", p, p.Masked())
		}
		all = append(all, portmap.Remote{Prefix: p})
	}
	return all, nil
}

func transport(word string) (portmap.Transport, error) {
	for _, t := range []portmap.Transport{portmap.TCP, portmap.UDP} {
		if word == t.String() {
			return t, nil
		}
	}
	return 0, fmt.Errorf("protocol %.40q is neither tcp nor udp", word)
}
