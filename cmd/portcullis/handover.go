package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"portcullis/internal/daemon"
)

// untilHandover ends ctx with daemon.ErrRestart when SIGUSR2 comes. A supervisor that
// restarts the daemon sends it in place of SIGTERM, which does not tell a restart from a
// stop; systemd does so with RestartKillSignal=. Before the daemon runs the signal would
// end the process at once, as it ends any other command.
func untilHandover(ctx context.Context) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR2)
	go func() {
		select {
		case <-signals:
			cancel(daemon.ErrRestart)
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		cancel(nil)
	}
}
