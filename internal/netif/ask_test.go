package netif

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAnswerTo(t *testing.T) {
	message := func(size uint32, kind uint16, seq uint32, payload string) []byte {
		m := binary.NativeEndian.AppendUint32(nil, size)
		m = binary.NativeEndian.AppendUint16(m, kind)
		m = append(m, 0, 0)
		m = binary.NativeEndian.AppendUint32(m, seq)
		return append(append(m, 0, 0, 0, 0), payload...) // the port
	}
	errno := func(n int32) string { return string(binary.NativeEndian.AppendUint32(nil, uint32(-n))) }
	for name, c := range map[string]struct {
		in      []byte
		payload string
		ours    bool
		err     string
	}{
		"answer":                     {message(20, unix.RTM_NEWNEIGH, 7, "abcd"), "abcd", true, ""},
		"more behind it":             {message(20, unix.RTM_NEWNEIGH, 7, "abcdefgh"), "abcd", true, ""},
		"answer to another question": {message(20, unix.RTM_NEWNEIGH, 6, "abcd"), "", false, ""},
		"cut short":                  {message(24, unix.RTM_NEWNEIGH, 7, "abcd"), "", false, "a message of 24 octets in 20"},
		"no room for a header":       {message(15, unix.RTM_NEWNEIGH, 7, ""), "", false, "a message of 15 octets in 16"},
		"half of a header":           {message(16, unix.RTM_NEWNEIGH, 7, "")[:12], "", false, "an answer of 12 octets"},
		"nothing":                    {nil, "", false, "an answer of 0 octets"},
		"acknowledgement":            {message(20, unix.NLMSG_ERROR, 7, errno(0)), "", true, ""},
		"refusal":                    {message(20, unix.NLMSG_ERROR, 7, errno(int32(unix.ENOENT))), "", true, unix.ENOENT.Error()},
		"refusal cut short":          {message(18, unix.NLMSG_ERROR, 7, "\x01\x02"), "", false, "a refusal of 2 octets"},
	} {
		payload, ours, err := answerTo(c.in, 7)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if string(payload) != c.payload || ours != c.ours || got != c.err {
			t.Errorf("%s: got %q, %v, %q, want %q, %v, %q", name, payload, ours, got, c.payload, c.ours, c.err)
		}
	}
}
