package firewall_test

import (
	"fmt"
	"maps"
	"slices"
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
			target, remotes := "%d -> 10.0.0.%d:80", limits4
			if rapid.Bool().Draw(t, "pinhole") {
				target, remotes = "pin -> [2001:db8::%[2]d]:8%[1]d", limits6
			}
			target = fmt.Sprintf(target, rapid.IntRange(1, 3).Draw(t, "port"), rapid.IntRange(1, 2).Draw(t, "host"))
			text := fmt.Sprintf("%d %s %s for %ds age %d%s",
				rapid.IntRange(1, 6).Draw(t, "id"), rapid.SampledFrom([]string{"tcp", "udp"}).Draw(t, "proto"), target,
				rapid.IntRange(1, 2).Draw(t, "lease"), rapid.IntRange(0, 2).Draw(t, "age"),
				rapid.SampledFrom(remotes).Draw(t, "limited"))
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
				after, ok := apply(naive, add, del)
				c, err := s.Plan(add, del)
				if (err == nil) != ok || err != nil && portmap.ReasonOf(err) != portmap.PortTaken {
					t.Fatalf("Plan: %v, want it to succeed: %v", err, ok)
				}
				if now := firewall.World(s.Entries()); now != before {
					t.Fatalf("Plan changed the state:\n%s", cmp.Diff(before, now))
				}
				if err != nil {
					return
				}
				s.Commit(c)
				naive = after
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

// overlap says it of the restrictions of two mappings, one each at most, where
// they are of one class.
func overlap(a, b []portmap.Remote) bool {
	if len(a) == 0 || len(b) == 0 {
		return len(a) == len(b)
	}
	x, y := a[0], b[0]
	host := func(r portmap.Remote) bool { return r.Prefix.IsSingleIP() && r.Port == 0 }
	return host(x) == host(y) && x.Prefix.Overlaps(y.Prefix) && (x.Port == 0 || y.Port == 0 || x.Port == y.Port)
}

// What mappings of the test are limited to, if at all.
var (
	limits4 = []string{"", "", " from 198.51.100.7", " from 198.51.100.0/24", " from 198.51.0.0/16 port 53", " from 192.0.2.0/24"}
	limits6 = []string{"", "", " from 2001:db8:9::7", " from 2001:db8:9::/64", " from 2001:db8:8::/45 port 53", " from 2001:db8:7::/64"}
)

// apply is the naive table: one mapping an ID, no two with restrictions of one
// class that overlap.
func apply(naive map[uint64]portmap.Mapping, add, del []portmap.Mapping) (map[uint64]portmap.Mapping, bool) {
	after := maps.Clone(naive)
	for _, m := range slices.Concat(del, add) {
		delete(after, m.ID)
	}
	for _, m := range add {
		delete(after, m.ID)
		if m.Disabled {
			continue
		}
		for id, o := range after {
			if o.Kind != m.Kind || o.Transport != m.Transport || o.ExternalPort != m.ExternalPort ||
				m.Kind == portmap.Pinhole6 && o.Internal != m.Internal || !overlap(o.Remotes, m.Remotes) {
				continue
			}
			if m.Kind == portmap.Pinhole6 || !slices.Equal(o.Remotes, m.Remotes) {
				return nil, false
			}
			delete(after, id) // takes its place
		}
		after[m.ID] = m
	}
	return after, true
}

// play is a kernel that refuses what a kernel refuses.
func play(t *rapid.T, kernel map[firewall.Key]firewall.Entry, c *firewall.Delta) {
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
		for _, o := range kernel {
			beside := o.Key()
			if beside.Source = e.Source; beside == e.Key() && e.Source.Filtered() && o.Source.Filtered() && o.Source.Overlaps(e.Source) {
				t.Fatalf("EEXIST: %s overlaps %s", e, o)
			}
		}
		kernel[e.Key()] = e
	}
}
