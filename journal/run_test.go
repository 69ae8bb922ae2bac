package journal_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/journal"
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
func running(t *testing.T, f func(w *world, syncs *int)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, clock: newFakeClock(), disk: newFakeDisk(), log: discard()}
		var err error
		w.j, _, err = journal.OpenOn(journal.Config{Log: w.log, MaxMappings: 100, Clock: bubbleClock{}}, w.disk)
		if err != nil {
			t.Fatal(err)
		}
		syncs := 0
		w.disk.hook = func(op string) {
			if op == "sync" {
				syncs++
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
		n := w.disk.names[journal.JournalFile]
		if !bytes.Equal(n.data, n.synced) {
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
	running(t, func(w *world, syncs *int) {
		for i := range uint64(95) {
			w.record([]portmap.Mapping{w.soon(1 + i)})
			time.Sleep(100 * time.Millisecond) // the bubble's time
		}
		time.Sleep(time.Second)
		synctest.Wait()
		n := w.disk.names[journal.JournalFile]
		if *syncs < 9 || *syncs > 10 || !bytes.Equal(n.data, n.synced) {
			t.Errorf("%d syncs in 10 s, %d of %d bytes on the disk", *syncs, len(n.synced), len(n.data))
		}
		w.record([]portmap.Mapping{w.soon(99)})
		time.Sleep(time.Second + time.Millisecond)
		synctest.Wait()
		if !bytes.Equal(n.data, n.synced) {
			t.Error("a record is not on the disk after a second")
		}
		*syncs = 0
		time.Sleep(9 * time.Minute)
		if *syncs != 0 {
			t.Errorf("%d syncs of nothing", *syncs)
		}
		time.Sleep(51 * time.Minute)
		if *syncs != 5 { // every ten minutes and a second
			t.Errorf("%d syncs in an hour of notes of the time", *syncs)
		}
	})
}

// TestCompaction: the file stays small for ever.
func TestCompaction(t *testing.T) {
	t.Parallel()
	running(t, func(w *world, _ *int) {
		first := w.disk.names[journal.JournalFile]
		for i := range 3000 {
			m := w.soon(uint64(1 + i%20))
			m.Description = fmt.Sprint(i)
			w.record([]portmap.Mapping{m})
			time.Sleep(100 * time.Millisecond)
			if size := w.j.Size(); size > 80_000 {
				t.Fatalf("the file has %d bytes", size)
			}
		}
		if w.disk.names[journal.JournalFile] == first {
			t.Error("it was never replaced")
		}
	})
}

// TestMends: after a failure the file is written anew without another record.
func TestMends(t *testing.T) {
	t.Parallel()
	running(t, func(w *world, _ *int) {
		w.disk.set(1, errors.New("input/output error"), false)
		if err := w.j.Record([]portmap.Mapping{w.soon(1)}, nil); !errors.Is(err, journal.ErrBehind) {
			t.Fatal(err)
		}
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		if n := w.disk.durable[journal.JournalFile]; n == nil || !bytes.Contains(n.synced, []byte("put id=1 ")) {
			t.Error("not mended")
		}
	})
}
