package ssdp_test

import (
	"testing"
	"time"

	"portcullis/ssdp"
)

func TestNextBootID(t *testing.T) {
	t.Parallel()
	const last = 1<<31 - 1
	for _, c := range []struct {
		name     string
		previous uint32
		now      int64
		want     uint32
	}{
		{"first start", 0, 1_700_000_000, 1_700_000_000},
		{"SSDP-22/later start", 1_700_000_000, 1_700_000_100, 1_700_000_100},
		{"SSDP-22/within the second", 1_700_000_000, 1_700_000_000, 1_700_000_001},
		{"SSDP-22/clock gone back", 1_700_000_000, 12, 1_700_000_001},
		{"clock at 0", 0, 0, 1},
		{"clock before 1970", 0, -5, 1},
		{"2038, state kept", last - 1, last + 1, last},
		{"2038, no state", 0, last + 6, 5},
		{"2038, the very second", 0, last + 1, 1},
		{"no room above, clock sane", last, 1_700_000_000, 1_700_000_000},
		{"damaged state", 1<<32 - 1, 1_700_000_000, 1_700_000_000},
		{"damaged state, last second", last, last, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := ssdp.NextBootID(c.previous, time.Unix(c.now, 0)); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
}
