package firewall_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"portcullis/firewall"
	"portcullis/portmap"
)

// TestModel compares the incremental state with one computed from scratch.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := firewall.NewState()
		kernel := map[firewall.Key]firewall.Entry{}
		naive := map[uint64]portmap.Mapping{}
		one := rapid.Custom(func(t *rapid.T) portmap.Mapping {
			text := fmt.Sprintf("%d %s %d -> 10.0.0.%d:80 for %ds age %d",
				rapid.IntRange(1, 6).Draw(t, "id"), rapid.SampledFrom([]string{"tcp", "udp"}).Draw(t, "proto"),
				rapid.IntRange(1, 3).Draw(t, "port"), rapid.IntRange(1, 2).Draw(t, "host"),
				rapid.IntRange(1, 2).Draw(t, "lease"), rapid.IntRange(0, 2).Draw(t, "age"))
			if rapid.Bool().Draw(t, "limited") {
				text += " from 198.51.100.7"
			}
			if rapid.IntRange(0, 5).Draw(t, "off") == 0 {
				text += " off"
			}
			return mapping(t, text)
		})
		t.Repeat(map[string]func(*rapid.T){
			"apply": func(t *rapid.T) {
				add := rapid.SliceOfN(one, 0, 4).Draw(t, "add")
				del := rapid.SliceOfN(one, 0, 3).Draw(t, "del")
				before := firewall.World(s.Entries())
				c, err := s.Plan(add, del)
				if err != nil {
					t.Fatal(err)
				}
				if now := firewall.World(s.Entries()); now != before {
					t.Fatalf("Plan changed the state:\n%s", cmp.Diff(before, now))
				}
				s.Commit(c)
				for _, m := range del {
					delete(naive, m.ID)
				}
				for _, m := range add {
					put(naive, m)
				}
				play(t, kernel, c)
			},
			"": func(t *rapid.T) {
				fresh := firewall.NewState()
				var all []portmap.Mapping
				for _, m := range naive {
					all = append(all, m)
				}
				c, err := fresh.Plan(all, nil)
				if err != nil {
					t.Fatal(err)
				}
				fresh.Commit(c)
				var held []firewall.Entry
				for _, e := range kernel {
					held = append(held, e)
				}
				if diff := cmp.Diff(firewall.World(fresh.Entries()), firewall.World(s.Entries())); diff != "" {
					t.Fatalf("state (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff(timed(fresh.Entries()), timed(held)); diff != "" {
					t.Fatalf("kernel (-want +got):\n%s", diff)
				}
				if s.Len() != len(naive) {
					t.Fatalf("%d mappings, want %d", s.Len(), len(naive))
				}
			},
		})
	})
}

func timed(es []firewall.Entry) map[string]time.Time {
	m := map[string]time.Time{}
	for _, e := range es {
		m[e.String()] = e.Expires
	}
	return m
}

// put is the naive table: one mapping an ID, one an external port and remote.
func put(naive map[uint64]portmap.Mapping, m portmap.Mapping) {
	delete(naive, m.ID)
	if m.Disabled {
		return
	}
	for id, o := range naive {
		if o.Transport == m.Transport && o.External == m.External && fmt.Sprint(o.Remotes) == fmt.Sprint(m.Remotes) {
			delete(naive, id)
		}
	}
	naive[m.ID] = m
}

// play is a kernel that refuses what a kernel refuses.
func play(t *rapid.T, kernel map[firewall.Key]firewall.Entry, c *firewall.Change) {
	remove := func(e firewall.Entry) {
		if _, ok := kernel[e.Key()]; !ok {
			t.Fatalf("ENOENT: %s", e)
		}
		delete(kernel, e.Key())
	}
	for _, e := range c.Del {
		remove(e)
	}
	for _, e := range c.Retime {
		remove(e)
	}
	for _, e := range append(append([]firewall.Entry{}, c.Add...), c.Retime...) {
		if _, ok := kernel[e.Key()]; ok {
			t.Fatalf("EEXIST: %s", e)
		}
		kernel[e.Key()] = e
	}
}
