package journal_test

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"portcullis/internal/journal"
	"portcullis/portmap"
)

// BenchmarkRecord: a grant, an end and a renewal on the real disk, and the
// bytes that each writes.
func BenchmarkRecord(b *testing.B) {
	w := newWorld(b)
	for name, record := range map[string]func(j *journal.Journal, i int) error{
		"grant and end": func(j *journal.Journal, i int) error {
			m := w.mapping(uint64(i + 1))
			m.ExternalPort = w.mapping(uint64(i%60000 + 1)).ExternalPort
			m.Description = "a description of usual length"
			return write(j, []portmap.Mapping{m}, []uint64{uint64(i)})
		},
		"renewal": func(j *journal.Journal, i int) error {
			m := w.mapping(1)
			m.Expires = m.Expires.Add(time.Duration(i) * 20 * time.Second)
			return write(j, []portmap.Mapping{m}, nil)
		},
	} {
		b.Run(name, func(b *testing.B) {
			clock := newFakeClock()
			j, _, err := journal.Open(journal.Config{Dir: filepath.Join(b.TempDir(), "s"), Log: discard(), MaxMappings: 100, Clock: clock})
			if err != nil {
				b.Fatal(err)
			}
			defer j.Close()
			var bytes int64
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				before := j.Size()
				if err := record(j, i); err != nil {
					b.Fatal(err)
				}
				bytes += j.Size() - before
				if i%10000 == 9999 {
					b.StopTimer()
					_ = j.Compact()
					b.StartTimer()
				}
			}
			b.ReportMetric(float64(bytes)/float64(b.N), "bytes/record")
		})
	}
}

// BenchmarkOpen: reading the journal of a large table, and beginning a new one.
func BenchmarkOpen(b *testing.B) {
	for _, n := range []int{1000, 60_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w := newWorld(b)
			r := rand.New(rand.NewPCG(1, 1))
			cfg := journal.Config{Dir: filepath.Join(b.TempDir(), "s"), Log: discard(), MaxMappings: n, Clock: w.clock}
			j, _, err := journal.Open(cfg)
			if err != nil {
				b.Fatal(err)
			}
			for id := range uint64(n) {
				m := w.mapping(id + 1)
				m.Description = fmt.Sprintf("game %d", r.Uint32())
				m.ExternalPort = w.mapping(id%60000 + 1).ExternalPort
				if err := write(j, []portmap.Mapping{m}, nil); err != nil {
					b.Fatal(err)
				}
			}
			size := j.Size()
			for b.Loop() {
				if err := j.Close(); err != nil {
					b.Fatal(err)
				}
				var got journal.Restored
				if j, got, err = journal.Open(cfg); err != nil || len(got.Mappings) != n {
					b.Fatal(err, len(got.Mappings))
				}
			}
			_ = j.Close()
			b.ReportMetric(float64(size)/float64(n), "bytes/mapping")
		})
	}
}

// BenchmarkRewrite: how long Record may have to wait while the file is written anew.
func BenchmarkRewrite(b *testing.B) {
	for _, n := range []int{1000, 20_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w := newWorld(b)
			cfg := journal.Config{Dir: filepath.Join(b.TempDir(), "s"), Log: discard(), MaxMappings: n, Clock: w.clock}
			j, _, err := journal.Open(cfg)
			if err != nil {
				b.Fatal(err)
			}
			defer j.Close()
			var all []portmap.Mapping
			for id := range uint64(n) {
				m := w.mapping(id + 1)
				m.Description = "a description of usual length"
				m.ExternalPort = w.mapping(id%60000 + 1).ExternalPort
				all = append(all, m)
			}
			if err := write(j, all, nil); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if err := j.Compact(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
