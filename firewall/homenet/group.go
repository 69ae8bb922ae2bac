package homenet

import "testing"

// test is one of a group, which gets a home of its own.
type test struct {
	name string
	run  func(t *testing.T, h *Home)
}

func run(t *testing.T, fw Firewall, group ...test) {
	for _, tc := range group {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tc.run(t, New(t, fw))
		})
	}
}
