package sandbox

import (
	"runtime/debug"
	"testing"
)

// TestLimitMemory: the limit is the program's, or that of its environment.
func TestLimitMemory(t *testing.T) {
	for _, c := range []struct {
		limit, percent string // in the environment
		most           int64
		lies           int
	}{
		{"", "", 1 << 40, 50},
		{"2TiB", "", 2 << 40, 50},
		{"", "400", 1 << 40, 400},
	} {
		t.Setenv("GOMEMLIMIT", c.limit)
		t.Setenv("GOGC", c.percent)
		before := debug.SetMemoryLimit(2 << 40) // as the runtime would have it from there
		old := debug.SetGCPercent(400)
		LimitMemory(1 << 40)
		if most, lies := debug.SetMemoryLimit(before), debug.SetGCPercent(old); most != c.most || lies != c.lies {
			t.Errorf("%+v: %d octets, %d%%", c, most, lies)
		}
	}
}

// TestSpare: less garbage lies about for a while, but where the environment says how much.
func TestSpare(t *testing.T) {
	for percent, most := range map[string]int{"": sparingGarbage, "400": 400} {
		t.Setenv("GOGC", percent)
		old := debug.SetGCPercent(400)
		end := Spare()
		during := debug.SetGCPercent(-1)
		debug.SetGCPercent(during)
		end()
		if after := debug.SetGCPercent(old); during != most || after != 400 {
			t.Errorf("GOGC=%s: %d%% meanwhile, and %d%% then", percent, during, after)
		}
	}
}
