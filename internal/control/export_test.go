package control

import (
	"context"
	"net/http"

	"portcullis/portmap"
)

// unmapper is a gate that only hears what is to be removed.
type unmapper struct {
	Mapper
	hear func(portmap.Selector) ([]portmap.Mapping, error)
}

func (u unmapper) Unmap(_ context.Context, s portmap.Selector) ([]portmap.Mapping, error) {
	return u.hear(s)
}

// Delete returns the handler of deletions alone.
func Delete(hear func(portmap.Selector) ([]portmap.Mapping, error)) http.Handler {
	return http.HandlerFunc((&Server{cfg: Config{Mapper: unmapper{hear: hear}}}).delete)
}
