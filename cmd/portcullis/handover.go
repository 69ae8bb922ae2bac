package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
)

// errHandover is why a daemon ends whose successor is about to start. A supervisor
// that restarts it sends SIGUSR2 in place of SIGTERM, which does not tell a restart
// from a stop; systemd does so with RestartKillSignal=.
var errHandover = errors.New("making way for the next run")

// untilHandover ends ctx with that cause when the signal comes. Before the daemon
// runs the signal would end the process at once, as it ends any other command.
func untilHandover(ctx context.Context) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR2)
	go func() {
		select {
		case <-signals:
			cancel(errHandover)
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		cancel(nil)
	}
}

// handedOver says whether ctx has ended for a successor.
func handedOver(ctx context.Context) bool { return errors.Is(context.Cause(ctx), errHandover) }
