package journal_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/internal/journal"
	"portcullis/portmap"
)

// bubbleClock goes with the time of a synctest bubble.
type bubbleClock struct{}

func (bubbleClock) BootID() string { return "00000000-0000-4000-8000-000000000000" }
func (bubbleClock) Moment() journal.Moment {
	now := time.Now()
	return journal.Moment{Now: now, Wall: now, Synced: true, Boot: now.Sub(time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC))}
}

// running is a world whose journal is run in a bubble.
func running(t *testing.T, f func(w *world, syncs *atomic.Int32)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, clock: newFakeClock(), disk: newFakeDisk(), log: discard()}
		var err error
		w.j, _, err = journal.OpenOn(journal.Config{Log: w.log, MaxMappings: 100, Clock: bubbleClock{}}, w.disk)
		if err != nil {
			t.Fatal(err)
		}
		var syncs atomic.Int32
		w.disk.hook = func(op string) {
			if op == "sync" {
				syncs.Add(1)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.j.Run(ctx) }()
		synctest.Wait()
		f(w, &syncs)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
		w.disk.hook = nil
		if err := w.j.Close(); err != nil {
			t.Error(err)
		}
		if !w.disk.all() {
			t.Error("Close left something that is not on the disk")
		}
	})
}

func (w *world) soon(id uint64) portmap.Mapping {
	m := w.mapping(id)
	m.Created, m.Expires = time.Now(), time.Now().Add(time.Hour)
	return m
}

// TestSyncs: at most one a second, a second after the first record, and none
// when nothing was recorded.
func TestSyncs(t *testing.T) {
	t.Parallel()
	running(t, func(w *world, syncs *atomic.Int32) {
		for i := range uint64(95) {
			w.record([]portmap.Mapping{w.soon(1 + i)})
			time.Sleep(100 * time.Millisecond) // the bubble's time
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n := syncs.Load(); n < 9 || n > 10 || !w.disk.all() {
			t.Errorf("%d syncs in 10 s, all on the disk: %v", n, w.disk.all())
		}
		w.record([]portmap.Mapping{w.soon(99)})
		time.Sleep(time.Second + time.Millisecond)
		synctest.Wait()
		if !w.disk.all() {
			t.Error("a record is not on the disk after a second")
		}
		syncs.Store(0)
		time.Sleep(9 * time.Minute)
		if n := syncs.Load(); n != 0 {
			t.Errorf("%d syncs of nothing", n)
		}
		time.Sleep(51 * time.Minute)
		if n := syncs.Load(); n != 6 { // every ten minutes at most, and a second
			t.Errorf("%d syncs in an hour of notes of the time", n)
		}
	})
}

// TestRests: a journal that is not written looks once a minute whether it is still there, and
// wakes for nothing else.
func TestRests(t *testing.T) {
	t.Parallel()
	running(t, func(w *world, _ *atomic.Int32) {
		time.Sleep(time.Hour + time.Second)
		synctest.Wait()
		if w.disk.looks != 60 {
			t.Errorf("%d looks in an hour", w.disk.looks)
		}
	})
}

// TestCompaction: the file stays small for ever.
func TestCompaction(t *testing.T) {
	t.Parallel()
	running(t, func(w *world, _ *atomic.Int32) {
		first := w.disk.named(journal.JournalFile)
		for i := range 3000 {
			m := w.soon(uint64(1 + i%20))
			m.Description = fmt.Sprint(i)
			w.record([]portmap.Mapping{m})
			time.Sleep(100 * time.Millisecond)
			if size := w.j.Size(); size > 80_000 {
				t.Fatalf("the file has %d bytes", size)
			}
		}
		if w.disk.named(journal.JournalFile) == first {
			t.Error("it was never replaced")
		}
	})
}

// TestMends: after a failure the file is written anew without another record.
func TestMends(t *testing.T) {
	t.Parallel()
	running(t, func(w *world, _ *atomic.Int32) {
		w.disk.set(1, errors.New("input/output error"), false)
		if err := write(w.j, []portmap.Mapping{w.soon(1)}, nil); !errors.Is(err, journal.ErrBehind) {
			t.Fatal(err)
		}
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		if n := w.disk.durable[journal.JournalFile]; n == nil || !bytes.Contains(n.synced, []byte("put id=1 ")) {
			t.Error("not mended")
		}
	})
}

// TestMendsWhatWasLost: where a look by somebody else finds that the file has gone, and it cannot
// be written anew yet, it is a second later.
func TestMendsWhatWasLost(t *testing.T) {
	t.Parallel()
	running(t, func(w *world, _ *atomic.Int32) {
		w.record([]portmap.Mapping{w.soon(1)})
		time.Sleep(10 * time.Second)
		synctest.Wait()
		w.disk.lost = errors.New("it was unlinked")
		w.disk.set(1, errors.New("no such directory"), false)
		before := w.disk.durable[journal.JournalFile]
		w.j.Look()
		time.Sleep(2100 * time.Millisecond)
		synctest.Wait()
		if n := w.disk.durable[journal.JournalFile]; n == before || !bytes.Contains(n.synced, []byte("put id=1 ")) {
			t.Error("not mended")
		}
	})
}

// TestUnreadable: a file that cannot be read costs what it holds, and no more.
func TestUnreadable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.record([]portmap.Mapping{w.mapping(1)})
	w.disk.set(1, errors.New("input/output error"), false)
	var err error
	if w.j, w.got, err = journal.OpenOn(w.config(), w.disk); err != nil || len(w.got.Mappings) > 0 || w.got.Whole {
		t.Fatalf("%+v, %v", w.got, err)
	}
	w.record([]portmap.Mapping{w.mapping(2)})
	w.start()
	w.expect(table{2: w.mapping(2)}, 0)
}

// TestAtTheSameTime: everything may be called at the same time as Record. (What
// it shows is for the race detector.)
func TestAtTheSameTime(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	cfg := journal.Config{Dir: dir, Log: discard(), MaxMappings: 5000}
	j, _, err := journal.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, clock: newFakeClock()}
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	wait.Go(func() { _ = j.Run(ctx) })
	for _, f := range []func(){j.Tick, func() { _ = j.Compact() }, func() { j.Overdue() }} {
		wait.Go(func() {
			for ctx.Err() == nil {
				f()
			}
		})
	}
	for id := range uint64(400) {
		if err := write(j, []portmap.Mapping{w.soon(id + 1)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	wait.Wait()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j, got, err := journal.Open(cfg)
	if err != nil || len(got.Mappings) != 400 || !got.Whole {
		t.Fatalf("%d restored, %v", len(got.Mappings), err)
	}
	_ = j.Close()
}
