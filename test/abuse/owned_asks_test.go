package abuse

import (
	"net/netip"
	"testing"

	"portcullis/internal/control"
	"portcullis/internal/wall"
	"portcullis/portmap"
)

// TestOwnedFrontAsks (M9): what an owned front asks for waits for the owner as anybody's does, so
// much of a device and no more, whatever it says; it has no message by which it could answer, and
// what the owner then approves is open to that alone.
func TestOwnedFrontAsks(t *testing.T) {
	t.Parallel()
	r := startOwnable(t, noRates+"[policy]\ndefault = \"ask\"\n")
	r.talks(t, "a")
	r.own(t)
	var all []wall.Body
	for port := uint16(30_000); port < 31_000; port++ {
		q := r.wish()
		q.Internal, q.ExternalPort = netip.AddrPortFrom(q.Internal.Addr(), port), port
		q.Description = "approve me\x1b[2J\u202e"
		all = append(all, &wall.Map{Request: q, N: 1})
	}
	set := r.wish()
	set.Exact = false
	for n := range 32 {
		all = append(all, &wall.Map{Request: set, N: 1 + n})
	}
	// In the owner's name it is ended (M2), and so as its last word.
	r.refuses(t, all, "M9")
	list, err := r.Owner.Pending(t.Context())
	if err != nil || len(list) == 0 || len(list) > 8 {
		t.Fatalf("%d wait, %v", len(list), err)
	}
	for _, p := range list {
		if p.ClientMAC != r.Host("a").MAC.String() {
			t.Errorf("it waits for %+v", p)
		}
	}
	if said, err := r.Owner.Approvals(t.Context()); err != nil || len(said) != 0 {
		t.Errorf("approved are %+v, %v", said, err)
	}
	port := list[0].InternalPort
	if _, err := r.Owner.Approve(t.Context(), control.Answer{ID: list[0].ID, For: "once"}); err != nil {
		t.Fatal(err)
	}
	open := 0
	for range 2 {
		for _, a := range r.front.asks(t, all) {
			if got, ok := a.body.(*wall.Mappings); ok {
				open++
				for _, m := range got.Mappings {
					if m.Internal.Port() != port || m.Client.MAC != portmap.MAC(r.Host("a").MAC) {
						t.Errorf("open is %+v", m)
					}
				}
			}
		}
	}
	if m := r.List(t); len(m) != 1 || m[0].InternalPort != port || open == 0 {
		t.Errorf("%d were granted, open are %+v", open, m)
	}
}
