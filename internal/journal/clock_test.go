package journal_test

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"portcullis/internal/journal"
	"portcullis/portmap"
)

// left returns what is left of the leases that were restored, in whole seconds,
// rounded up.
func (w *world) left() []int {
	var s []int
	for _, m := range w.got.Mappings {
		s = append(s, int(m.Left(w.clock.now()).Round(10*time.Millisecond)/time.Second))
	}
	return s
}

// hours records mappings 1 to n that last as many hours.
func (w *world) hours(n uint64) {
	w.t.Helper()
	for id := uint64(1); id <= n; id++ {
		m := w.mapping(id)
		m.Expires = m.Created.Add(time.Duration(id) * time.Hour)
		w.record([]portmap.Mapping{m})
	}
}

var longAgo = time.Date(1970, 1, 1, 0, 1, 0, 0, time.UTC)

// TestClocks: what is left of a lease, after every kind of restart and with every
// kind of clock.
func TestClocks(t *testing.T) {
	t.Parallel()
	const h = 3600
	cases := []struct {
		name    string
		happens func(w *world) // after leases of 1, 2 and 3 hours were granted
		want    []int
		overdue []uint64 // when the clock becomes right in the end
	}{
		{"daemon restarted after 90 minutes", func(w *world) { w.clock.pass(90 * time.Minute) }, []int{h / 2, 3 * h / 2}, nil},
		{"the wall clock jumps ahead while the daemon is dead", func(w *world) {
			w.clock.set(w.clock.Moment().Wall.Add(9999*time.Hour), true)
		}, []int{h, 2 * h, 3 * h}, nil},
		{"the wall clock jumps back while the daemon is dead", func(w *world) {
			w.clock.pass(61 * time.Minute)
			w.clock.set(longAgo, true)
		}, []int{h - 60, 2*h - 60}, nil},
		{"machine off for 90 minutes, clock right", func(w *world) { w.clock.restart(90 * time.Minute) }, []int{h / 2, 3 * h / 2}, nil},
		{"machine off for 90 minutes, clock in 1970, then right", func(w *world) {
			w.clock.restart(0)
			w.clock.set(longAgo, false)
		}, []int{h, 2 * h, 3 * h}, []uint64{1}},
		{"machine off, clock far ahead and not synchronised, then right", func(w *world) {
			w.clock.restart(0)
			w.clock.set(w.clock.Moment().Wall.Add(9999*time.Hour), false)
		}, []int{h, 2 * h, 3 * h}, []uint64{1}},
		{"machine off, clock before the last record though synchronised", func(w *world) {
			w.clock.restart(-time.Hour)
		}, []int{h, 2 * h, 3 * h}, []uint64{1}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.hours(3)
			granted := w.clock.Moment().Wall
			c.happens(w)
			w.start()
			if got := w.left(); !slices.Equal(got, c.want) {
				t.Errorf("left %v seconds, want %v", got, c.want)
			}
			if got, _ := w.j.Overdue(); got != nil {
				t.Errorf("overdue at once: %v", got)
			}
			w.start() // once more, which changes nothing
			if got := w.left(); !slices.Equal(got, c.want) {
				t.Errorf("left %v seconds after another start, want %v", got, c.want)
			}
			w.clock.set(granted.Add(90*time.Minute), true)
			if got, _ := w.j.Overdue(); !slices.Equal(got, c.overdue) {
				t.Errorf("overdue: %v, want %v", got, c.overdue)
			}
			if got, _ := w.j.Overdue(); got != nil {
				t.Errorf("overdue twice: %v", got)
			}
		})
	}
}

// TestOverdueLater: what the time off has made shorter ends when its time has
// come, unless it was renewed or has ended; and the journal knows it.
func TestOverdueLater(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.hours(5)
	granted := w.clock.Moment().Wall
	w.clock.restart(0)
	w.clock.set(longAgo, false)
	w.start()
	renewed := w.got.Mappings[2]
	renewed.Expires = w.clock.now().Add(7 * time.Hour)
	w.record([]portmap.Mapping{renewed}, 4)
	w.record([]portmap.Mapping{w.got.Mappings[1]}) // the same again is no renewal
	changed := w.got.Mappings[0]
	changed.Rule = "another"
	w.record([]portmap.Mapping{changed}) // nor is this
	w.clock.set(granted.Add(30*time.Minute), true)
	if got, _ := w.j.Overdue(); got != nil {
		t.Errorf("after half an hour: %v", got)
	}
	w.clock.pass(31 * time.Minute)
	if got, _ := w.j.Overdue(); !slices.Equal(got, []uint64{1}) {
		t.Errorf("after 61 minutes: %v", got)
	}
	w.record(nil, 1)
	w.start()
	if got, want := w.ids(), []uint64{2, 3, 5}; !slices.Equal(got, want) {
		t.Errorf("restored %v, want %v", got, want)
	}
	if got, want := w.left(), []int{59 * 60, 7*3600 - 31*60, 4*3600 - 60}; !slices.Equal(got, want) {
		t.Errorf("left %v, want %v", got, want)
	}
	w.clock.pass(2 * time.Hour)
	if got, _ := w.j.Overdue(); got != nil {
		t.Errorf("what was restored with the right end is overdue: %v", got)
	}
}

// TestRightLater: the clock becomes right after the grants, and that is enough
// to know how long the machine was off.
func TestRightLater(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	right := w.clock.Moment().Wall
	w.clock.set(longAgo, false)
	w.start()
	w.hours(3)
	w.clock.pass(10 * time.Minute)
	w.clock.set(right, true)
	w.j.Tick() // ten minutes have gone by, and the time is noted
	w.clock.pass(5 * time.Minute)
	w.clock.set(right.Add(5*time.Minute), false)
	if err := w.j.Compact(); err != nil {
		t.Fatal(err)
	}
	w.clock.restart(time.Hour)
	w.clock.set(right.Add(65*time.Minute), true)
	w.start()
	if got, want := w.left(), []int{2*3600 - 75*60, 3*3600 - 75*60}; !slices.Equal(got, want) {
		t.Errorf("left %v, want %v", got, want)
	}
}

// TestNeverRight: without a right clock a lease lasts as long as was granted
// while the machine ran, and for each restart the age of the last line.
func TestNeverRight(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.clock.set(longAgo, false)
	w.start()
	w.hours(8)
	var ran, extra time.Duration
	for run := 1; len(w.got.Mappings) > 0 || run == 1; run++ {
		for range 10 * run {
			w.clock.pass(time.Minute)
			ran += time.Minute
			w.j.Tick()
		}
		w.clock.restart(time.Hour)
		w.start()
		extra += journal.NoteEvery
	}
	if ran < 8*time.Hour || ran > 8*time.Hour+extra {
		t.Errorf("a lease of 8 hours lasted %v", ran)
	}
}

// TestAgeOfLastLine: a restart gives back no more than what was not noted.
func TestAgeOfLastLine(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.clock.set(longAgo, false)
	w.start()
	w.hours(9)
	for range 500 {
		w.clock.pass(time.Minute)
		w.j.Tick()
	}
	w.clock.restart(time.Hour)
	w.start()
	if got := w.left(); len(got) != 1 || got[0] < 40*60 || got[0] > 50*60 {
		t.Errorf("left %v of 9 hours after 500 minutes", got)
	}
	size := w.j.Size()
	w.record(nil, 9)
	w.clock.pass(time.Hour)
	w.j.Tick()
	if more := w.j.Size() - size; more > 60 {
		t.Errorf("%d bytes were written though there are no leases", more)
	}
}

// TestSystemClock: the machine's own clock goes.
func TestSystemClock(t *testing.T) {
	t.Parallel()
	var c journal.SystemClock
	a, b := c.Moment(), c.Moment()
	if a.Boot <= 0 || b.Boot < a.Boot || b.Boot-a.Boot > time.Minute || time.Since(a.Now) > time.Minute || a.Wall.Sub(a.Now).Abs() > time.Second {
		t.Errorf("%+v, %+v", a, b)
	}
	want, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	if got := c.BootID(); got != strings.TrimSpace(string(want)) {
		t.Errorf("boot ID %q, want %q", got, want)
	}
}

// TestRenewals: a mapping that is renewed in a loop writes a line in ten seconds,
// and its lease is never early and ten seconds late at most.
func TestRenewals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := w.mapping(1)
	w.record([]portmap.Mapping{m})
	size := w.j.Size()
	for range 6000 {
		w.clock.pass(10 * time.Millisecond)
		m.Expires = w.clock.now().Add(time.Hour)
		w.record([]portmap.Mapping{m})
	}
	if got := w.j.Size() - size; got > 8*80 {
		t.Errorf("%d bytes for a minute of renewals", got)
	}
	w.start()
	w.expect(table{1: m}, journal.RenewSlack)

	for _, lease := range []time.Duration{2 * time.Hour, time.Minute, time.Hour, 30 * time.Minute} {
		w.clock.pass(15 * time.Second)
		m.Expires = w.clock.now().Add(lease)
		w.record([]portmap.Mapping{m})
		w.start()
		w.expect(table{1: m}, 0)
	}

	// One that gains next to nothing is not early either.
	w.clock.pass(15 * time.Second)
	m.Expires = m.Expires.Add(30 * time.Millisecond)
	w.record([]portmap.Mapping{m})
	w.start()
	w.expect(table{1: m}, 0)
}

// TestEpochs: the epochs go on where nothing can have been forgotten, and only
// there.
func TestEpochs(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		happens func(w *world)
		kept    bool
	}{
		"process died": {func(*world) {}, true},
		"and again":    {func(w *world) { w.start() }, true},
		"compacted":    {func(w *world) { _ = w.j.Compact() }, true},
		"the wall clock jumps": {func(w *world) {
			w.clock.set(longAgo, true)
		}, true},
		"machine restarted": {func(w *world) { w.clock.restart(0) }, false},
		"file damaged":      {func(w *world) { w.put(append([]byte("x\n"), w.file()...)) }, false},
		"file gone":         {func(w *world) { delete(w.disk.names, journal.JournalFile) }, false},
		"a record failed": {func(w *world) {
			w.disk.set(1, errCrash, true)
			_ = write(w.j, []portmap.Mapping{w.mapping(9)}, nil)
		}, true},
		"a record failed, for want of room": {func(w *world) {
			w.disk.space = 1
			_ = write(w.j, []portmap.Mapping{w.mapping(9)}, nil)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			want := journal.Epochs{V4: w.clock.now().Add(-time.Minute), V6: w.clock.now().Add(-time.Hour)}
			if err := w.j.KeepEpochs(want); err != nil {
				t.Fatal(err)
			}
			w.record([]portmap.Mapping{w.mapping(1)})
			w.clock.pass(time.Minute)
			c.happens(w)
			w.start()
			got := w.got.Epochs
			if got.V4.IsZero() != !c.kept || got.V6.IsZero() != !c.kept {
				t.Fatalf("epochs %+v, whole %v", got, w.got.Whole)
			}
			if off4, off6 := want.V4.Sub(got.V4), want.V6.Sub(got.V6); c.kept && (off4 < 0 || off6 < 0 || off4 > 5*time.Millisecond || off6 > 5*time.Millisecond) {
				t.Errorf("epochs began at %+v, want %+v", got, want)
			}
		})
	}
}
