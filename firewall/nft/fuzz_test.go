package nft_test

import (
	"testing"

	"portcullis/firewall/nft"
)

// What the kernel tells of other programs' rules and sets is read without
// trusting its shape.
func FuzzForeignRule(f *testing.F) {
	f.Add([]byte{}, []byte{})
	f.Add(nft.SampleRule(), nft.SampleElements())
	f.Fuzz(func(t *testing.T, rule, elements []byte) {
		for _, c := range nft.ReadForeign(rule, elements) {
			if c == "" {
				t.Error("a claim without ports")
			}
		}
	})
}
