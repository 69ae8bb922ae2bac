package portmap

import (
	"cmp"
	"context"
	"slices"
	"sort"
)

// MaxPage is how many mappings one answer of a Reader has at most.
const MaxPage = 32

// Page is a part of one client's mappings.
type Page struct {
	Mappings []Mapping
	Count    int    // of all of them, not of this part alone
	Revision uint64 // of the table
}

// Reader answers questions about the mappings as they are now, each with a few values: so
// who asks may be another process. A mapping that is not there is an *Error with
// NoSuchMapping; there is no other error here, but there may be where the questions go a
// longer way.
type Reader struct{ Now func() *Table }

var errNoMapping = &Error{Reason: NoSuchMapping, Detail: "there is no such mapping"}

// Own returns at most n of a client's mappings, oldest first, from the given one on: 0 is
// the oldest. A renewal keeps its place.
func (r Reader) Own(_ context.Context, id ClientID, from, n int) (Page, error) {
	t := r.Now()
	l := t.Of(id)
	p := Page{Count: l.Len(), Revision: t.Revision()}
	for i := max(0, from); i < l.Len() && len(p.Mappings) < min(n, MaxPage); i++ {
		p.Mappings = append(p.Mappings, l.At(i))
	}
	return p, nil
}

// OwnPorts is Own for those of one transport whose external ports are in a range, by
// their ports.
func (r Reader) OwnPorts(_ context.Context, id ClientID, tr Transport, ports PortRange, from, n int) (Page, error) {
	t := r.Now()
	var found []*Mapping
	for m := range t.Of(id).own.all() {
		if m.Kind == NAT4 && m.Transport == tr && ports.Contains(m.ExternalPort) {
			found = append(found, m)
		}
	}
	sort.Slice(found, func(i, j int) bool {
		a, b := found[i], found[j]
		return cmp.Or(cmp.Compare(a.ExternalPort, b.ExternalPort), cmp.Compare(a.ID, b.ID)) < 0
	})
	p := Page{Count: len(found), Revision: t.Revision()}
	for i := max(0, from); i < len(found) && len(p.Mappings) < min(n, MaxPage); i++ {
		p.Mappings = append(p.Mappings, *found[i])
	}
	return p, nil
}

// External returns the mapping of an external port with exactly these remotes, whoever
// has it.
func (r Reader) External(_ context.Context, tr Transport, port uint16, remotes []Remote) (Mapping, error) {
	if m, found := r.Now().Find(tr, port, remotes); found {
		return m, nil
	}
	return Mapping{}, errNoMapping
}

// Internal returns the oldest of a client's mappings that lead to an internal port of its
// own address, with exactly these remotes.
func (r Reader) Internal(_ context.Context, id ClientID, tr Transport, port uint16, remotes []Remote) (Mapping, error) {
	for m := range r.Now().Inside(id, tr, port) {
		if m.Internal.Addr() == id.Addr && slices.Equal(m.Remotes, remotes) {
			return m, nil
		}
	}
	return Mapping{}, errNoMapping
}

// Pinhole returns the IPv6 pinhole with this number, whoever has it.
func (r Reader) Pinhole(_ context.Context, number uint16) (Mapping, error) {
	if m, found := r.Now().Pinhole(number); found {
		return m, nil
	}
	return Mapping{}, errNoMapping
}
