package policy

import "testing"

// find searches by bisection, so both tables must be sorted by both ends, and
// no port may stand twice for one transport.
func TestTablesAreSorted(t *testing.T) {
	t.Parallel()
	for name, table := range map[string][]service{"forbidden": forbidden, "privileged": privileged, "usual": usual} {
		for i, s := range table {
			if s.lo == 0 || s.lo > s.hi || s.on == 0 || s.on > onBoth || s.why == "" {
				t.Errorf("%s: bad entry %+v", name, s)
			}
			if i == 0 {
				continue
			}
			last := table[i-1]
			if s.lo < last.lo || s.hi < last.hi {
				t.Errorf("%s: %+v stands after %+v", name, s, last)
			}
			if s.lo <= last.hi && s.on&last.on != 0 {
				t.Errorf("%s: %+v overlaps %+v", name, s, last)
			}
		}
	}
}
