package wall

import (
	"cmp"
	"context"
	"net/netip"
	"time"

	"portcullis/internal/netif"
	"portcullis/portmap"
)

// Map implements front.Warden.
func (c *Client) Map(ctx context.Context, r portmap.Request) (portmap.Mapping, error) {
	return c.one(ctx, &Map{Request: r, N: 1})
}

// MapSet implements front.Warden.
func (c *Client) MapSet(ctx context.Context, r portmap.Request, n int) ([]portmap.Mapping, error) {
	a, err := answerOf[*Mappings](ctx, c, &Map{Request: r, N: n})
	if err != nil {
		return nil, err
	}
	if len(a.Mappings) == 0 {
		return nil, errAnswer
	}
	return mappings(a.Mappings), nil
}

// Unmap implements front.Warden. What was removed is not told.
func (c *Client) Unmap(ctx context.Context, s portmap.Selector) ([]portmap.Mapping, error) {
	_, err := answerOf[*Done](ctx, c, &Unmap{s})
	return nil, err
}

func (c *Client) one(ctx context.Context, b Body) (portmap.Mapping, error) {
	a, err := answerOf[*Mappings](ctx, c, b)
	if err != nil {
		return portmap.Mapping{}, err
	}
	if len(a.Mappings) != 1 {
		return portmap.Mapping{}, errAnswer
	}
	return a.Mappings[0].mapping(time.Now()), nil
}

func mappings(all []Mapping) []portmap.Mapping {
	var out []portmap.Mapping
	for now, i := time.Now(), 0; i < len(all); i++ {
		out = append(out, all[i].mapping(now))
	}
	return out
}

// Packets implements front.Warden.
func (c *Client) Packets(ctx context.Context, m portmap.Mapping) (uint64, error) {
	return c.value(ctx, &Packets{m.ID})
}

// OutboundTimeout implements front.Warden.
func (c *Client) OutboundTimeout(tr portmap.Transport) (time.Duration, error) {
	n, err := c.value(context.Background(), &OutboundTimeout{tr})
	return time.Duration(n), err // #nosec G115 -- for people
}

func (c *Client) value(ctx context.Context, b Body) (uint64, error) {
	a, err := answerOf[*Value](ctx, c, b)
	if err != nil {
		return 0, err
	}
	return a.Value, nil
}

// Uplink implements front.Warden.
func (c *Client) Uplink() (four portmap.WAN, six bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.network.WAN, c.network.Six
}

// LANs implements front.Warden.
func (c *Client) LANs() map[string]netif.LAN {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lans
}

// Heard implements front.Warden.
func (c *Client) Heard(mac portmap.MAC) bool {
	n, err := c.value(context.Background(), &Heard{mac})
	return err == nil && n == 1
}

// Suspect implements front.Warden.
func (c *Client) Suspect() { c.tell("look at the rules", new(Suspect)) }

// Resolve implements front.Warden.
func (c *Client) Resolve(lan string, addr netip.Addr) error {
	_, err := answerOf[*Done](context.Background(), c, &Resolve{lan, addr.WithZone("")})
	return err
}

// KeepEpochs implements front.Warden.
func (c *Client) KeepEpochs(four, six time.Time) { c.tell("keep the epochs", &KeepEpochs{four, six}) }

// tell asks for what nobody waits for the result of.
func (c *Client) tell(what string, b Body) {
	if _, err := answerOf[*Done](context.Background(), c, b); err != nil {
		c.log.Warn("cannot ask the warden", "for", what, "err", err)
	}
}

// NextBootID implements front.Warden.
func (c *Client) NextBootID(last uint32) uint32 {
	n, err := c.value(context.Background(), &NextBootID{last})
	if err != nil {
		c.log.Warn("cannot ask the warden", "for", "a boot id", "err", err)
	}
	return cmp.Or(uint32(n), last+1) // #nosec G115 -- it is one
}
