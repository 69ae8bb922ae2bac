package control

import (
	"context"
	"time"

	"portcullis/internal/http1"
	"portcullis/portmap"
)

// unmapper is a gate that only hears what is to be removed.
type unmapper struct {
	Mapper
	hear func(portmap.Selector) ([]portmap.Mapping, error)
}

func (unmapper) Snapshot() *portmap.Table { return portmap.NewTable() }

func (u unmapper) Unmap(_ context.Context, s portmap.Selector) ([]portmap.Mapping, error) {
	return u.hear(s)
}

// Delete answers a deletion.
func Delete(body []byte, hear func(portmap.Selector) ([]portmap.Mapping, error)) *http1.Response {
	s := &Server{cfg: Config{Mapper: unmapper{hear: hear}}}
	return s.delete(context.Background(), &http1.Request{Method: http1.Post, Body: body})
}

// Explain answers a question.
func Explain(body []byte, hear func(Query)) *http1.Response {
	s := &Server{cfg: Config{Explain: func(_ context.Context, q Query) (Explained, error) {
		hear(q)
		return Explained{}, nil
	}}}
	return s.explain(context.Background(), &http1.Request{Method: http1.Post, Body: body})
}

// Hasty has the client wait for no longer.
func (c *Client) Hasty(wait time.Duration) { c.wait = wait }
