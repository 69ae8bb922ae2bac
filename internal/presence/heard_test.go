package presence

import (
	"testing"
	"time"

	"portcullis/portmap"
)

// TestHeard: who has answered is remembered, and told once; there is a bound, and who
// answered longest ago goes first.
func TestHeard(t *testing.T) {
	t.Parallel()
	var h heard
	device := func(n int) portmap.MAC { return portmap.MAC{2, 0, 0, 0, byte(n >> 8), byte(n)} }
	start := time.Unix(1_800_000_000, 0)
	for n := range maxHeard {
		h.note(device(n), start.Add(time.Duration(n)))
	}
	h.note(device(0), start.Add(time.Hour))
	h.note(portmap.MAC{1, 0, 0x5e, 0, 0, 0x16}, start) // a group
	if macs, news := h.all(); len(macs) != maxHeard || !news {
		t.Errorf("%d devices, news: %v", len(macs), news)
	}
	if _, news := h.all(); news {
		t.Error("the same is news twice")
	}
	h.note(device(maxHeard), start.Add(time.Hour))
	if macs, _ := h.all(); len(macs) != maxHeard || !h.has(device(0)) || h.has(device(1)) || !h.has(device(maxHeard)) {
		t.Errorf("%d devices; first: %v, second: %v, last: %v", len(macs), h.has(device(0)), h.has(device(1)), h.has(device(maxHeard)))
	}
}
