package main

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/time/rate"

	"portcullis/portmap"
)

// The log tells of every change and every refusal, but a host that asks for
// nonsense all day must not fill the disk (abuse case K4).
const (
	refusalsPerSecond = 2
	refusalBurst      = 20
)

// eventLog writes the engine's events to the owner's log.
type eventLog struct {
	log        *slog.Logger
	refusals   *rate.Limiter
	suppressed int
}

func newEventLog(log *slog.Logger) *eventLog {
	return &eventLog{log: log, refusals: rate.NewLimiter(refusalsPerSecond, refusalBurst)}
}

// run logs until the engine or ctx ends.
func (l *eventLog) run(ctx context.Context, w *portmap.Watcher) error {
	defer w.Close()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case ev, open := <-w.C:
			if !open {
				return ctx.Err()
			}
			l.write(ctx, ev)
		}
	}
}

func (l *eventLog) write(ctx context.Context, ev portmap.Event) {
	switch ev.Type {
	case portmap.Granted:
		l.log.LogAttrs(ctx, slog.LevelInfo, "mapping added", mappingAttrs(ev)...)
	case portmap.Renewed:
		l.log.LogAttrs(ctx, slog.LevelDebug, "mapping renewed", mappingAttrs(ev)...)
	case portmap.Deleted, portmap.Expired, portmap.RevokedEvent:
		l.log.LogAttrs(ctx, slog.LevelInfo, "mapping ended", append(mappingAttrs(ev), slog.String("reason", ev.Reason.String()))...)
	case portmap.Denied, portmap.Pending:
		l.refusal(ctx, ev)
	case portmap.Drift:
		if ev.Reason == portmap.FirewallFailed { // of what was put right, driftKeeper has told
			l.log.Warn("the kernel refused a change", "error", ev.Detail)
		}
	case portmap.Resync:
		l.log.Warn("events were lost, the log is not complete")
	}
}

func (l *eventLog) refusal(ctx context.Context, ev portmap.Event) {
	if !l.refusals.AllowN(ev.Time, 1) {
		l.suppressed++
		return
	}
	attrs := append(mappingAttrs(ev), slog.String("reason", ev.Reason.String()), slog.String("detail", ev.Detail))
	if l.suppressed > 0 {
		attrs = append(attrs, slog.Int("not_logged", l.suppressed))
		l.suppressed = 0
	}
	l.log.LogAttrs(ctx, slog.LevelWarn, "request refused", attrs...)
}

// mappingAttrs are the same in every line; what a client wrote is quoted by the
// handler (text) or escaped (JSON), and was capped when it was decoded.
func mappingAttrs(ev portmap.Event) []slog.Attr {
	m := ev.Mapping
	attrs := []slog.Attr{
		slog.String("client", ev.Client.Addr.String()),
		slog.String("mac", ev.Client.MAC.String()),
		slog.String("via", ev.Client.Via.String()),
		slog.String("protocol", m.Transport.String()),
		slog.Int("external_port", int(m.External.Port())),
		slog.String("internal", m.Internal.String()),
		slog.String("description", m.Description),
	}
	if !m.Expires.IsZero() {
		attrs = append(attrs, slog.Duration("lease", m.Left(ev.Time).Round(time.Second)))
	}
	if ev.Client.Name != "" {
		attrs = append(attrs, slog.String("host", ev.Client.Name))
	}
	if ev.Rule != "" {
		attrs = append(attrs, slog.String("rule", ev.Rule))
	}
	return attrs
}
