package journal_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"portcullis/internal/journal"
	"portcullis/portmap"
)

type table = map[uint64]portmap.Mapping

// history does things one by one, each of which is a line, and gives what the
// table was after each line of the file: the first two are the head and the time.
func history(w *world, n int) []table {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	now := table{}
	states := []table{{}, {}}
	for i := range n {
		w.clock.pass(11 * time.Second)
		id := uint64(1 + r.IntN(8))
		_, known := now[id]
		switch {
		case known && r.IntN(3) == 0:
			delete(now, id)
			w.record(nil, id)
		case known && r.IntN(2) == 0 && !now[id].Expires.IsZero():
			m := now[id]
			m.Expires = w.clock.now().Add(time.Duration(2000+i) * time.Second)
			now[id] = m
			w.record([]portmap.Mapping{m})
		default:
			m := w.anyMapping(r, id)
			if m.Description = fmt.Sprintf("%s %d", m.Description[:min(9, len(m.Description))], i); known {
				m.Created = now[id].Created
			}
			now[id] = m
			w.record([]portmap.Mapping{m})
		}
		states = append(states, maps.Clone(now))
		w.j.Tick() // the disk has it, and the next line says so
	}
	return states
}

// living is what of a table has not run out.
func (w *world) living(t table) table {
	t = maps.Clone(t)
	now := w.clock.now()
	maps.DeleteFunc(t, func(_ uint64, m portmap.Mapping) bool { return !m.Expires.IsZero() && !m.Expires.After(now) })
	return t
}

func (w *world) file() []byte { return w.disk.names[journal.JournalFile].data }

func (w *world) put(data []byte) {
	w.disk.names[journal.JournalFile] = &inode{data: data, synced: bytes.Clone(data)}
}

// TestTornTail: wherever the file ends, what is restored is what the whole lines
// say.
func TestTornTail(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	states := history(w, 9)
	whole := bytes.Clone(w.file())
	if n := bytes.Count(whole, []byte("\n")); n != len(states) {
		t.Fatalf("%d lines, %d states", n, len(states))
	}
	for n := range len(whole) + 1 {
		w.put(bytes.Clone(whole[:n]))
		w.start()
		want := table{}
		if lines := bytes.Count(whole[:n], []byte("\n")); lines > 0 {
			want = w.living(states[lines-1])
		}
		w.expect(want, 0)
		if w.got.Whole != bytes.Contains(whole[:n], []byte("\n")) {
			t.Fatalf("%d bytes: whole is %v", n, w.got.Whole)
		}
	}
}

// TestLostEnd: what has ended does not come back because the line that says so
// is damaged, nor does what it was before it was changed.
func TestLostEnd(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		synced, restarted bool
		want              []uint64
	}{
		"process died":                      {false, false, nil},
		"process died later":                {true, false, nil},
		"machine restarted later":           {true, true, nil},
		"power lost within the same second": {false, true, []uint64{1, 2}}, // which is what that may cost
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.record([]portmap.Mapping{w.mapping(1), w.mapping(2)})
			w.record(nil, 1)
			if c.synced {
				w.j.Tick() // the disk has it, and the next line says so
			}
			w.record([]portmap.Mapping{w.mapping(3)})
			w.put(bytes.Replace(w.file(), []byte("end id=1"), []byte("end id=9"), 1))
			if c.restarted {
				w.clock.restart(0)
			}
			w.start()
			if got := w.ids(); !slices.Equal(got, c.want) || w.got.Whole {
				t.Errorf("restored %v, whole %v", got, w.got.Whole)
			}
			w.record([]portmap.Mapping{w.mapping(4)})
			w.start() // the damage is gone
			if got := w.ids(); !slices.Equal(got, append(c.want, 4)) || !w.got.Whole {
				t.Errorf("then %v", got)
			}
		})
	}
}

// TestDamage: L12. Wherever and however the file is damaged, nothing is restored but
// what was true at the last line that is left, and then all of that: after the death of
// the process, and after that of the machine.
func TestDamage(t *testing.T) {
	t.Parallel()
	for name, off := range map[string]bool{"process died": false, "machine restarted": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			states := history(w, 40)
			whole := bytes.Clone(w.file())
			lines := strings.SplitAfter(string(whole), "\n")
			lines = lines[:len(lines)-1]
			r := rand.New(rand.NewPCG(3, 4))
			restored, none := 0, 0
			for range 400 {
				data := damage(r, bytes.Clone(whole))
				last := 0
				for i, l := range lines {
					if bytes.Contains(data, []byte(l)) {
						last = i
					}
				}
				w.put(data)
				if off {
					w.clock.restart(0)
				}
				w.start()
				want := states[last]
				if len(w.got.Mappings) == 0 {
					none++
					continue
				}
				if off { // their times are those of another run
					for _, m := range w.got.Mappings {
						was := want[m.ID]
						m.Created, m.Expires = was.Created, was.Expires
						if diff := cmp.Diff(was, m, comparable, cmpopts.EquateEmpty()); diff != "" {
							t.Fatalf("restored (-want +got):\n%s", diff)
						}
					}
				} else {
					w.expect(w.living(want), 0)
				}
				restored++
			}
			if restored < 20 || none < 20 {
				t.Errorf("restored %d times and not %d times: the test shows nothing", restored, none)
			}
		})
	}
}

func damage(r *rand.Rand, data []byte) []byte {
	for range 1 + r.IntN(3) {
		at, n := r.IntN(len(data)), 1+r.IntN(60)
		end := min(at+n, len(data))
		switch r.IntN(7) {
		case 0:
			data[at] ^= 1 << r.IntN(8)
		case 1:
			clear(data[at:end])
		case 2:
			data = slices.Delete(data, at, end)
		case 3:
			data[at] = '\n'
		case 4: // a piece of another place
			from := r.IntN(len(data))
			copy(data[at:], data[from:min(from+10*n, len(data))])
		case 5:
			data = data[:at]
		case 6:
			from := r.IntN(len(data))
			data = slices.Insert(data, at, bytes.Clone(data[from:min(from+10*n, len(data))])...)
		}
	}
	return data
}

// TestCrashInCompaction: the process, or the machine, dies at each step of a
// compaction, and nothing is lost.
func TestCrashInCompaction(t *testing.T) {
	t.Parallel()
	for _, power := range []bool{false, true} {
		steps := 0
		for died := true; died; {
			steps++
			t.Run(fmt.Sprintf("step %d, power lost %v", steps, power), func(t *testing.T) {
				w := newWorld(t)
				states := history(w, 30)
				want := states[len(states)-1]
				w.j.Tick()
				w.disk.set(steps, errCrash, true)
				died = w.j.Compact() != nil
				if power {
					w.disk.losePower(rand.New(rand.NewPCG(1, 1)))
				}
				w.start()
				w.expect(w.living(want), 0)
			})
		}
		if steps < 6 {
			t.Errorf("only %d steps", steps)
		}
	}
}

// TestOneFailure: a step that fails once costs an error, and all is in the file
// again soon after.
func TestOneFailure(t *testing.T) {
	t.Parallel()
	for step := 1; step < 14; step++ {
		t.Run(fmt.Sprint("step ", step), func(t *testing.T) {
			w := newWorld(t)
			states := history(w, 20)
			want := states[len(states)-1]
			w.disk.set(step, errors.New("input/output error"), false)
			failures := 0
			for i := range 6 {
				m := w.mapping(uint64(60 + i))
				want[m.ID] = m
				err := write(w.j, []portmap.Mapping{m}, nil)
				if err != nil {
					failures++
					if !errors.Is(err, journal.ErrBehind) {
						t.Fatal(err)
					}
				}
				if i == 1 {
					_ = w.j.Compact()
				}
				w.j.Tick()
				w.clock.pass(3 * time.Second)
			}
			m := w.mapping(70)
			want[m.ID] = m
			w.record([]portmap.Mapping{m})
			w.start()
			w.expect(w.living(want), 0)
			if failures > 2 {
				t.Errorf("%d records failed", failures)
			}
		})
	}
}

// TestDiskFull: L12. The caller is told, nothing half is left, what has ended does not
// come back, and all is written as soon as there is room.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	want := table{}
	for id := uint64(1); id <= 20; id++ {
		want[id] = w.mapping(id)
		w.record([]portmap.Mapping{want[id]})
	}
	w.disk.space = len(w.file()) + 100
	for id := uint64(21); id <= 24; id++ {
		want[id] = w.mapping(id)
		if err := write(w.j, []portmap.Mapping{want[id]}, nil); !errors.Is(err, journal.ErrBehind) || !errors.Is(err, errFull) {
			t.Fatalf("full: %v", err)
		}
	}
	if _, got, err := journal.OpenOn(w.config(), w.disk.copy()); err != nil || len(got.Mappings) != 20 || got.Whole {
		t.Errorf("a crash now: %d restored, whole %v, %v", len(got.Mappings), got.Whole, err)
	}
	data := bytes.Clone(w.file())
	if data[len(data)-1] != '\n' || bytes.Contains(data, []byte("id=21 ")) {
		t.Errorf("a part of a record is left: %q", data[len(data)-100:])
	}

	// An end cannot be written, and so the file goes; without it there is room.
	w.clock.pass(time.Minute)
	var ended []uint64
	for id := uint64(3); id <= 8; id++ {
		delete(want, id)
		ended = append(ended, id)
	}
	err := write(w.j, nil, ended)
	if w.disk.names[journal.JournalFile] != nil && bytes.Contains(w.file(), []byte("put id=3 ")) {
		t.Errorf("the file still shows what has ended, %v", err)
	}
	w.clock.pass(time.Minute)
	w.j.Tick()
	w.record(nil, 99)
	w.start()
	w.expect(w.living(want), 0)
	if !w.got.Whole {
		t.Error("not whole")
	}

	// The same once more, but with room made by somebody else.
	w.disk.space = len(w.file()) + 100
	want[30] = w.mapping(30)
	if err := write(w.j, []portmap.Mapping{want[30]}, nil); !errors.Is(err, journal.ErrBehind) {
		t.Fatal(err)
	}
	w.disk.space = 0
	w.clock.pass(time.Minute)
	want[31] = w.mapping(31)
	w.record([]portmap.Mapping{want[31]})
	w.start()
	w.expect(w.living(want), 0)
}

// TestPowerLoss: the disk has some of the last second's writes, in any order.
// What is restored is what the table was at one moment since the last sync.
func TestPowerLoss(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 5))
		w := newWorld(t)
		states := []table{{}}
		now := table{}
		synced := 0
		for range r.IntN(60) {
			switch id := uint64(1 + r.IntN(12)); {
			case r.IntN(12) == 0:
				w.j.Tick()
				synced = len(states) - 1
				continue
			case r.IntN(30) == 0:
				if err := w.j.Compact(); err != nil {
					t.Fatal(err)
				}
				synced = len(states) - 1
				continue
			case r.IntN(2) == 0 && len(now) > 0 && now[id].ID != 0:
				delete(now, id)
				w.record(nil, id)
			default:
				m := w.mapping(id)
				m.Description = fmt.Sprint(len(states))
				now[id] = m
				w.record([]portmap.Mapping{m})
			}
			states = append(states, maps.Clone(now))
		}
		w.disk.losePower(r)
		w.clock.restart(0)
		w.start()
		names := func(ms table) (s []string) {
			for _, id := range slices.Sorted(maps.Keys(ms)) {
				s = append(s, fmt.Sprint(id, " ", ms[id].Description))
			}
			return s
		}
		got := table{}
		for _, m := range w.got.Mappings {
			got[m.ID] = m
		}
		if !slices.ContainsFunc(states[synced:], func(s table) bool { return slices.Equal(names(s), names(got)) }) {
			t.Fatalf("seed %d: restored what never was since the sync (-synced +got):\n%s", seed, cmp.Diff(names(states[synced]), names(got), cmpopts.EquateEmpty()))
		}
		if w.got.Whole {
			t.Fatal("whole, after a loss of power")
		}
	}
}

// TestSyncFails: what the kernel could not bring to the disk it forgets, and so
// the file is written anew.
func TestSyncFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := w.mapping(1)
	w.record([]portmap.Mapping{m})
	before := w.disk.durable[journal.JournalFile]
	w.disk.set(1, errors.New("input/output error"), false)
	w.j.Tick()
	after := w.disk.durable[journal.JournalFile]
	if after == before || !bytes.Contains(after.synced, []byte("put id=1 ")) {
		t.Errorf("on the disk: %q", after.synced)
	}
}
