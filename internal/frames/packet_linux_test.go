package frames_test

import (
	"testing"

	"portcullis/internal/frames"
)

// TestDrainEnds: frames that come faster than they are taken keep no datagram waiting, and
// take no memory.
func TestDrainEnds(t *testing.T) {
	t.Parallel()
	if taken, remembered := frames.Flooded(100_000); taken > 4096 || remembered > 1024 {
		t.Errorf("%d frames taken at once, %d remembered", taken, remembered)
	}
	if taken, remembered := frames.Flooded(1000); taken != 1000 || remembered != 1000 {
		t.Errorf("of 1000 frames %d are taken, %d remembered", taken, remembered)
	}
}
