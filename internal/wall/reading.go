package wall

import (
	"context"
	"errors"

	"portcullis/portmap"
)

// The questions of portmap.Reader. What was asked before is answered from memory, while the
// table stays the same.
type (
	ownKey struct {
		client  portmap.ClientID
		from, n int
	}
	externalKey struct {
		transport portmap.Transport
		port      uint16
	}
	internalKey struct {
		client portmap.ClientID
		externalKey
	}
	pinholeKey uint16
)

// Own implements front.Warden.
func (c *Client) Own(ctx context.Context, id portmap.ClientID, from, n int) (portmap.Page, error) {
	n = clampPage(n)
	return c.read(ownKey{id, from, n}, func() (portmap.Page, error) { return c.page(ctx, &Own{id, from, n}) })
}

// OwnPorts implements front.Warden.
func (c *Client) OwnPorts(ctx context.Context, id portmap.ClientID, tr portmap.Transport, ports portmap.PortRange, from, n int) (portmap.Page, error) {
	return c.page(ctx, &OwnPorts{Own{id, from, clampPage(n)}, tr, ports})
}

func clampPage(n int) int { return min(max(0, n), portmap.MaxPage) }

func (c *Client) page(ctx context.Context, b Body) (portmap.Page, error) {
	a, err := answerOf[*Page](ctx, c, b)
	if err != nil {
		return portmap.Page{}, err
	}
	return portmap.Page{Mappings: mappings(a.Mappings), Count: int(a.Count), Revision: a.Revision}, nil
}

// External implements front.Warden.
func (c *Client) External(ctx context.Context, tr portmap.Transport, port uint16, remotes []portmap.Remote) (portmap.Mapping, error) {
	return c.readOne(ctx, externalKey{tr, port}, remotes, &External{tr, port, remotes})
}

// Internal implements front.Warden.
func (c *Client) Internal(ctx context.Context, id portmap.ClientID, tr portmap.Transport, port uint16, remotes []portmap.Remote) (portmap.Mapping, error) {
	return c.readOne(ctx, internalKey{id, externalKey{tr, port}}, remotes, &Internal{id, External{tr, port, remotes}})
}

// Pinhole implements front.Warden.
func (c *Client) Pinhole(ctx context.Context, number uint16) (portmap.Mapping, error) {
	return c.readOne(ctx, pinholeKey(number), nil, &Pinhole{number})
}

// readOne asks for one mapping. A question with remotes, which few ask, is not remembered.
func (c *Client) readOne(ctx context.Context, key any, remotes []portmap.Remote, b Body) (portmap.Mapping, error) {
	if len(remotes) > 0 {
		return c.one(ctx, b)
	}
	p, err := c.read(key, func() (portmap.Page, error) {
		m, err := c.one(ctx, b)
		return portmap.Page{Mappings: []portmap.Mapping{m}}, err
	})
	if err != nil {
		return portmap.Mapping{}, err
	}
	return p.Mappings[0], nil
}

// read answers a question, by ask where the answer is not known.
func (c *Client) read(key any, ask func() (portmap.Page, error)) (portmap.Page, error) {
	r, turn, found := c.known.recall(key)
	if found && r.missing != nil {
		return portmap.Page{}, r.missing
	}
	if found {
		return r.page, nil
	}
	p, err := ask()
	var missing *portmap.Error
	switch {
	case err == nil:
		c.known.note(key, turn, recalled{page: p})
	case errors.As(err, &missing) && missing.Reason == portmap.NoSuchMapping:
		c.known.note(key, turn, recalled{missing: missing})
	}
	return p, err
}
