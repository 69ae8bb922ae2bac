package wall

import (
	"context"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"portcullis/internal/netif"
	"portcullis/portmap"
)

// atOnce answers what the published table says, for which no goroutine is worth while; nil
// for all else.
func (s *Server) atOnce(ctx context.Context, body Body) Body {
	switch body.(type) {
	case *Own, *External, *Internal, *Pinhole:
		answer, _ := s.answer(ctx, body)
		return answer
	}
	return nil
}

// answer does what is asked.
func (s *Server) answer(ctx context.Context, body Body) (Body, []int) {
	answer, descriptors, err := s.do(ctx, body)
	if err != nil {
		return refused(err), nil
	}
	return answer, descriptors
}

func (s *Server) do(ctx context.Context, body Body) (Body, []int, error) {
	switch b := body.(type) {
	case *Map:
		got, err := s.warden.MapSet(ctx, b.Request, b.N)
		return &Mappings{shown(got)}, nil, err
	case *Unmap:
		_, err := s.warden.Unmap(ctx, b.Selector)
		return new(Done), nil, err
	case *Open:
		return passes(s.socket(ctx, b))
	case *Connect:
		return passes(s.connection(ctx, b))
	case *Resolve:
		return new(Done), nil, s.warden.Resolve(b.LAN, b.Addr)
	case *Suspect:
		s.warden.Suspect()
		return new(Done), nil, nil
	case *KeepEpochs:
		s.warden.KeepEpochs(b.Four, b.Six)
		return new(Done), nil, nil
	}
	answer, err := s.tells(ctx, body)
	return answer, nil, err
}

// tells answers what changes nothing, but for the number of a boot.
func (s *Server) tells(ctx context.Context, body Body) (Body, error) {
	switch b := body.(type) {
	case *Own:
		return page(s.warden.Own(ctx, b.Client, b.From, b.N))
	case *OwnPorts:
		return page(s.warden.OwnPorts(ctx, b.Client, b.Transport, b.Ports, b.From, b.N))
	case *External:
		return one(s.warden.External(ctx, b.Transport, b.Port, b.Remotes))
	case *Internal:
		return one(s.warden.Internal(ctx, b.Client, b.Transport, b.Port, b.Remotes))
	case *Pinhole:
		return one(s.warden.Pinhole(ctx, b.ID))
	case *Packets:
		n, err := s.warden.Packets(ctx, portmap.Mapping{ID: b.ID})
		return &Value{n}, err
	case *OutboundTimeout:
		d, err := s.warden.OutboundTimeout(b.Transport)
		return &Value{uint64(d)}, err // #nosec G115 -- and back
	case *Heard:
		if s.warden.Heard(b.MAC) {
			return &Value{1}, nil
		}
		return &Value{0}, nil
	case *NextBootID:
		return &Value{uint64(s.warden.NextBootID(b.Last))}, nil
	}
	return nil, errNoAsk
}

func one(m portmap.Mapping, err error) (Body, error) {
	return &Mappings{shown([]portmap.Mapping{m})}, err
}

func page(p portmap.Page, err error) (Body, error) {
	return &Page{Mappings: shown(p.Mappings), Count: uint32(p.Count), Revision: p.Revision}, err // #nosec G115 -- MaxID bounds it no less
}

func shown(all []portmap.Mapping) []Mapping {
	now := time.Now()
	out := make([]Mapping, len(all))
	for i := range all {
		out[i] = showing(&all[i], now)
	}
	return out
}

// refused returns an error as it crosses: what of the causes people should read is in the
// sentence.
func refused(err error) *Refused {
	var e *portmap.Error
	if !errors.As(err, &e) {
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			return new(Refused)
		}
		return &Refused{Detail: sentence(err.Error()), Gone: errors.Is(err, netif.ErrGone)}
	}
	return &Refused{Reason: e.Reason, Detail: sentence(e.Detail), Left: max(0, e.Left), External: e.External}
}

// sentence cuts a text to what a message has room for.
func sentence(s string) string { return cut(s, maxDetail) }

// cut returns what of a text has room in so many octets.
func cut(s string, most int) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) <= most {
		return s
	}
	n := most
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
