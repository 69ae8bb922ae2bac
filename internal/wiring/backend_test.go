package wiring_test

import (
	"testing"

	"portcullis/config"
	"portcullis/internal/slog"
	"portcullis/internal/wiring"
)

// TestUnknownBackend: a word that the configuration takes and nobody opens is an error,
// and no other backend.
func TestUnknownBackend(t *testing.T) {
	t.Parallel()
	var c config.Config
	c.Firewall.Backend = "pf"
	log := slog.New(slog.DiscardHandler)
	if b, name, err := wiring.Firewall(t.Context(), log, c); err == nil {
		t.Errorf("opened %v, %q", b, name)
	}
	if b, err := wiring.FirewallIn(t.Context(), log, c, "pf", 0); err == nil {
		t.Errorf("opened %v in a namespace", b)
	}
}
