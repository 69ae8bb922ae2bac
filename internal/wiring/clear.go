package wiring

import (
	"context"

	"portcullis/firewall/iptables"
	"portcullis/internal/slog"
)

// Clear removes what a daemon that has ended left in the kernel, whatever it was configured
// by, and returns what that was.
func Clear(ctx context.Context, log *slog.Logger) (gone []string, err error) {
	return iptables.Clear(ctx, log, 0)
}
