package frames_test

import (
	"encoding/binary"
	"testing"

	"portcullis/internal/frames"
)

// TestSenderOf: a packet that no rule has seen is no machine's, nor is one too many;
// and the machines that would have these marks are nobody.
func TestSenderOf(t *testing.T) {
	t.Parallel()
	for name, mark := range map[string]uint32{"no rule has seen it": 0, "too much": frames.FloodMark} {
		if octets, ok := frames.SenderOf(mark); ok {
			t.Errorf("%s: it comes from %x", name, octets)
		}
	}
	for _, mark := range []uint32{^uint32(0), 2, 1 << 24} {
		got, ok := frames.SenderOf(mark)
		if want := binary.NativeEndian.AppendUint32(nil, ^mark); !ok || string(got[:]) != string(want) {
			t.Errorf("the machine whose address ends in %x: %x, %v", want, got, ok)
		}
	}
}
