package digest

import (
	"bytes"
	"crypto/sha256"
	"testing"
)

// Every length up to some blocks, and a second opinion for each.
func TestSum(t *testing.T) {
	data := make([]byte, 5*block)
	for i := range data {
		data[i] = byte(i * 7)
	}
	for n := range data {
		if got, want := Sum(data[:n]), sha256.Sum256(data[:n]); got != want {
			t.Errorf("of %d octets: %x, not %x", n, got, want)
		}
	}
}

func TestEqual(t *testing.T) {
	a := Sum([]byte("a"))
	if !Equal(a, a) {
		t.Error("a digest is not itself")
	}
	for i := range a {
		b := a
		if b[i] ^= 0x80; Equal(a, b) {
			t.Errorf("octet %d makes no difference", i)
		}
	}
}

func FuzzSum(f *testing.F) {
	f.Add([]byte("abc"))
	f.Fuzz(func(t *testing.T, data []byte) {
		before := bytes.Clone(data)
		if got, want := Sum(data), sha256.Sum256(data); got != want {
			t.Errorf("%x, not %x", got, want)
		}
		if !bytes.Equal(before, data) {
			t.Error("the octets were changed")
		}
	})
}
