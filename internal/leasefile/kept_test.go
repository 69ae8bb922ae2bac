package leasefile_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"portcullis/portmap"
)

// TestVersions: a page may have read the file before the daemon wrote it again, and write it
// afterwards, also while no daemon runs. What was gone from the version that it read is closed,
// and what came meanwhile stays.
func TestVersions(t *testing.T) {
	t.Parallel()
	renewed := func(m *portmap.Mapping) { m.Expires = m.Expires.Add(10 * time.Minute) }
	for name, c := range map[string]struct {
		meanwhile func(*house)
		left      []int
	}{
		"one has come":            {func(h *house) { h.open(4, 6003); h.turn() }, []int{6000, 6002, 6003}},
		"two have, one by one":    {func(h *house) { h.open(4, 6003); h.turn(); h.open(5, 6004); h.turn() }, []int{6000, 6002, 6003, 6004}},
		"one was renewed":         {func(h *house) { h.end(1); h.open(1, 6000, renewed); h.turn() }, []int{6000, 6002}},
		"one has ended":           {func(h *house) { h.end(1); h.turn() }, []int{6002}},
		"another name was taken":  {func(h *house) { h.end(3); h.open(4, 6002); h.turn() }, []int{6000, 6002}},
		"it was not written, yet": {func(h *house) { h.open(4, 6003) }, []int{6000, 6002, 6003}},
	} {
		for _, running := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, running %v", name, running), func(t *testing.T) {
				t.Parallel()
				h := newHouse(t)
				h.three()
				old := h.without(1)
				c.meanwhile(h)
				h.rename(old)
				if !running {
					h.start()
				}
				h.turn()
				h.wantsClosed(2)
				h.wants(c.left...)
			})
		}
	}
}

// TestNewest: the deletion of the line that was added last leaves the file as it was before
// that came, and closes the mapping all the same, unless both happen within seconds.
func TestNewest(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		later  time.Duration
		closed []uint64
	}{"at once": {0, nil}, "later": {time.Minute, []uint64{4}}} {
		for _, running := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, running %v", name, running), func(t *testing.T) {
				t.Parallel()
				h := newHouse(t)
				h.three()
				h.open(4, 6003)
				h.turn()
				h.rename(h.without(3))
				now := time.Now().Add(c.later)
				if err := os.Chtimes(h.file, now, now); err != nil {
					t.Fatal(err)
				}
				if !running {
					h.start()
				}
				h.Turn(t.Context(), now.Add(5*time.Second))
				h.wantsClosed(c.closed...)
			})
		}
	}
}

// TestLeftOut: a line that the daemon has left out itself is no deletion, wherever it dies
// while it writes.
func TestLeftOut(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.three()
	before, err := os.ReadFile(h.file + ".written")
	if err != nil {
		t.Fatal(err)
	}
	table := h.table
	h.end(2) // as if its LAN had gone
	h.Dirty()
	if err := os.Mkdir(h.file+".written.new", 0o700); err != nil { // the copy cannot be written
		t.Fatal(err)
	}
	if err := os.WriteFile(h.file+".written.new/x", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h.turn()
	if err := os.RemoveAll(h.file + ".written.new"); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(h.file + ".written")
	if err != nil || string(after) != string(before) {
		t.Errorf("%v; the copy was written:\n%s", err, after)
	}
	h.table = table
	h.start()
	h.turn()
	h.wantsClosed()
	h.wants(6000, 6001, 6002)
}
