package control_test

import (
	"testing"

	"portcullis/internal/control"
)

// TestEffective: the daemon says what it runs, and takes no other.
func TestEffective(t *testing.T) {
	t.Parallel()
	socket, _ := serve(t, "")
	got, err := control.NewClient(socket).Effective(t.Context())
	if want := "[lan]\ninterfaces = [\"br-lan\"]\n"; err != nil || got.TOML != want {
		t.Errorf("got %q, %v", got.TOML, err)
	}
	if code, _ := raw(t, socket, "POST", "/v1/configuration", ""); code != 405 {
		t.Errorf("it was written to: %d", code)
	}
}
