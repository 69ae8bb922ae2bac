package journal_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"portcullis/internal/journal"
	"portcullis/portmap"
)

// TestModel plays at random with a journal and a plain map: grants, changes,
// renewals and ends in batches, deaths of the process, restarts of the machine
// with a right clock, syncs and compactions. At each start both are the same.
func TestModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(16) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 7))
			p := &player{world: newWorld(t), r: r, want: table{}}
			for range 120 {
				p.step()
			}
			p.restart(0)
			if p.lastID < 50 {
				t.Errorf("only %d mappings", p.lastID)
			}
		})
	}
}

// player is a world and what its table should be.
type player struct {
	*world
	r      *rand.Rand
	want   table
	lastID uint64
}

func (p *player) step() {
	p.clock.pass(time.Duration(p.r.IntN(90000)) * time.Millisecond)
	switch p.r.IntN(12) {
	case 0:
		p.restart(0)
	case 1:
		p.restart(p.clock.restart(time.Duration(p.r.IntN(1800)) * time.Second))
	case 2:
		p.j.Tick()
	case 3:
		if err := p.j.Compact(); err != nil {
			p.t.Fatal(err)
		}
	default:
		p.batch()
	}
}

func (p *player) batch() {
	var put []portmap.Mapping
	var ended []uint64
	for id, m := range p.want {
		switch p.r.IntN(12) {
		case 0:
			ended = append(ended, id)
			delete(p.want, id)
			continue
		case 1:
			if !m.Expires.IsZero() {
				m.Expires = p.clock.now().Add(time.Duration(1+p.r.IntN(7200)) * time.Second)
			}
		case 2:
			other := p.anyMapping(p.r, id)
			other.Created = m.Created
			m = other
		default:
			continue
		}
		p.want[id] = m
		put = append(put, m)
	}
	for range p.r.IntN(4) {
		if len(p.want) < 90 {
			p.lastID++
			p.want[p.lastID] = p.anyMapping(p.r, p.lastID)
			put = append(put, p.want[p.lastID])
		}
	}
	p.record(put, ended...)
}

// restart opens the journal again, with all times shifted, and goes on with what
// it gives, as the engine does.
func (p *player) restart(shift time.Duration) {
	p.t.Helper()
	p.start()
	got := table{}
	for _, m := range p.got.Mappings {
		got[m.ID] = m
	}
	want, now := table{}, p.clock.now()
	for id, m := range p.want {
		m.Created = m.Created.Add(shift)
		if !m.Expires.IsZero() {
			m.Expires = m.Expires.Add(shift)
		}
		late := now.Sub(m.Expires)
		if _, there := got[id]; m.Expires.IsZero() || late < 0 || there && late <= journal.RenewSlack {
			want[id] = m
		}
	}
	p.expect(want, journal.RenewSlack)
	p.want = got
}
