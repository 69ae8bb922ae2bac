package wall

import (
	"fmt"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"

	"portcullis/portmap"
)

// turning is a wall whose warden counts its tables.
func turning(t *testing.T) *rig {
	t.Helper()
	turn, err := NewTurn()
	if err != nil {
		t.Fatal(err)
	}
	d := newDecider()
	d.turn = turn
	r := buildFor(t, d)
	t.Cleanup(func() {
		if err := turn.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *rig) turns(t *testing.T) {
	t.Helper()
	if err := r.decider.turn.Next(); err != nil {
		t.Fatal(err)
	}
}

// TestKnown: a front asks once for what does not change, and again when the table may be
// another one; so it is with what is not there.
func TestKnown(t *testing.T) {
	t.Parallel()
	none := &portmap.Error{Reason: portmap.NoSuchMapping, Detail: "there is no such mapping"}
	for name, c := range map[string]struct {
		ask  func(*rig) (any, error)
		asks string
	}{
		"own":      {func(r *rig) (any, error) { return r.Own(t.Context(), asker.ID(), 3, 1) }, fmt.Sprintf("own %v 3 1", asker.ID())},
		"external": {func(r *rig) (any, error) { return r.External(t.Context(), portmap.TCP, 80, nil) }, "external tcp 80 []"},
		"internal": {func(r *rig) (any, error) { return r.Internal(t.Context(), asker.ID(), portmap.TCP, 80, nil) }, fmt.Sprintf("internal %v tcp 80 []", asker.ID())},
		"pinhole":  {func(r *rig) (any, error) { return r.Pinhole(t.Context(), 7) }, "pinhole 7"},
	} {
		for _, err := range []error{nil, none} {
			t.Run(fmt.Sprint(name, " ", err), func(t *testing.T) {
				r := turning(t)
				r.decider.is(nil, err)
				for range 2 {
					first, failed := c.ask(r)
					again, same := c.ask(r)
					if !reflect.DeepEqual(first, again) || fmt.Sprint(failed) != fmt.Sprint(err) || fmt.Sprint(same) != fmt.Sprint(err) {
						t.Errorf("got %+v, %v and then %+v, %v; want %v", first, failed, again, same, err)
					}
					if asked := r.decider.taken(); !reflect.DeepEqual(asked, []string{c.asks}) {
						t.Errorf("the warden was asked %q", asked)
					}
					r.turns(t)
				}
			})
		}
	}
}

// TestKnownIsBounded: more questions than are remembered are asked again, and a page is each
// reader's own.
func TestKnownIsBounded(t *testing.T) {
	t.Parallel()
	r := turning(t)
	page := func(n int) portmap.Page {
		t.Helper()
		p, err := r.Own(t.Context(), asker.ID(), n, 1)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for n := range 3 * maxKnown {
		page(n).Mappings[0].ExternalPort = 1
		if got := page(n).Mappings[0].ExternalPort; got != shownOne.ExternalPort {
			t.Fatalf("another reader has changed the port to %d", got)
		}
		if held := len(r.known.answers); held > maxKnown {
			t.Fatalf("%d answers are remembered", held)
		}
	}
	if asked := len(r.decider.taken()); asked != 3*maxKnown {
		t.Errorf("the warden was asked %d times", asked)
	}
}

// TestNotKnown: what may have changed while it was asked for is not remembered, nor are
// failures, nor what few ask; and there may be no turn.
func TestNotKnown(t *testing.T) {
	t.Parallel()
	twice := func(t *testing.T, r *rig, remotes []portmap.Remote) {
		t.Helper()
		for range 2 {
			_, _ = r.External(t.Context(), portmap.TCP, 80, remotes)
		}
		if asked := r.decider.taken(); len(asked) != 2 {
			t.Errorf("the warden was asked %q", asked)
		}
	}
	t.Run("changes meanwhile", func(t *testing.T) {
		r := turning(t)
		r.decider.mu.Lock()
		r.decider.asking = func() { r.turns(t) }
		r.decider.mu.Unlock()
		twice(t, r, nil)
	})
	t.Run("fails", func(t *testing.T) {
		r := turning(t)
		r.decider.is(nil, &portmap.Error{Reason: portmap.Busy})
		twice(t, r, nil)
	})
	t.Run("remotes", func(t *testing.T) { twice(t, turning(t), only) })
	t.Run("no turn", func(t *testing.T) { twice(t, build(t), nil) })
}

// TestTurnIsRead: a front can read the number, and neither write it nor cut the file.
func TestTurnIsRead(t *testing.T) {
	t.Parallel()
	r := turning(t)
	fd := r.known.turn
	before, known := turnOf(fd)
	r.turns(t)
	if after, still := turnOf(fd); !known || !still || after != before+1 {
		t.Errorf("the number was %d (%v) and is %d (%v)", before, known, after, still)
	}
	if _, err := unix.Pwrite(fd, []byte{9}, 0); err == nil {
		t.Error("a front can write it")
	}
	if err := unix.Ftruncate(fd, 0); err == nil {
		t.Error("a front can cut it")
	}
}
