package datagram_test

import (
	"testing"

	"portcullis/internal/datagram"
)

func TestSender(t *testing.T) {
	t.Parallel()
	mac := [6]byte{2, 0, 0, 0x77, 0, 0x14}
	for _, x := range []struct {
		sender datagram.Sender
		is     bool
		text   string
	}{
		{datagram.Sender{}, false, "..:..:..:..:..:.."},
		{datagram.Sender{MAC: mac, Known: 6}, true, "02:00:00:77:00:14"},
		{datagram.Sender{MAC: [6]byte{2: 0, 3: 0x77, 4: 0, 5: 0x14}, Known: 4}, true, "..:..:00:77:00:14"},
		{datagram.Sender{MAC: [6]byte{2: 0, 3: 0x77, 4: 0, 5: 0x15}, Known: 4}, false, "..:..:00:77:00:15"},
		{datagram.Sender{MAC: [6]byte{6, 0, 0, 0x77, 0, 0x14}, Known: 6}, false, "06:00:00:77:00:14"},
	} {
		if got := x.sender.Is(mac); got != x.is {
			t.Errorf("%v is the machine: %v", x.sender, got)
		}
		if got := x.sender.String(); got != x.text {
			t.Errorf("%q, want %q", got, x.text)
		}
	}
}
