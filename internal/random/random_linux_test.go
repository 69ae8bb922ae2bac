package random

import "testing"

// More than the kernel gives at once without a pause for signals (256), and no word twice.
func TestFill(t *testing.T) {
	b := make([]byte, 1<<16)
	Fill(b)
	var seen [256]int
	for _, x := range b {
		seen[x]++
	}
	for x, n := range seen { // 256 of each are to be expected, with a deviation of 16
		if n == 0 {
			t.Errorf("octet %#x never comes", x)
		}
	}
	words := map[string]bool{}
	for range 1000 {
		words[Text()] = true
	}
	if len(words) != 1000 {
		t.Errorf("%d words of 1000", len(words))
	}
}
