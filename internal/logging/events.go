package logging

import (
	"context"
	"time"

	"golang.org/x/time/rate"

	"portcullis/internal/slog"
	"portcullis/portmap"
)

// The log has every change and every refusal, but a program that asks
// for the same all day must not fill the disk (abuse case K4): each device has a line
// a minute for each reason, which has the number that it stands for.
const (
	refusalEvery = time.Minute
	refusalTick  = time.Second
	maxRefusals  = 256 // of them are remembered; the rest share what lines there are

	refusalsPerSecond = 2 // lines in all
	refusalBurst      = 20
)

// refusalKey is what refusals are counted by.
type refusalKey struct {
	device portmap.Device
	reason portmap.Reason
}

// refusals are those of one key since the last line about them.
type refusals struct {
	next time.Time // when there may be another line
	last portmap.Event
	n    int
}

// Events writes the engine's events to the owner's log.
type Events struct {
	log     *slog.Logger
	budget  *rate.Limiter
	refused map[refusalKey]*refusals
	others  refusals // of keys that there was no room for
}

// NewEvents returns Events. Run must be called.
func NewEvents(log *slog.Logger) *Events {
	return &Events{
		log: log, budget: rate.NewLimiter(refusalsPerSecond, refusalBurst),
		refused: make(map[refusalKey]*refusals),
	}
}

// Run logs until the engine or ctx ends.
func (l *Events) Run(ctx context.Context, w *portmap.Watcher) error {
	defer w.Close()
	return l.follow(ctx, w.C)
}

func (l *Events) follow(ctx context.Context, events <-chan portmap.Event) error {
	tick := time.NewTicker(refusalTick)
	defer tick.Stop()
	defer l.rest()
	for ticks := true; ; {
		if due := len(l.refused) > 0 || l.others.n > 0; due != ticks {
			if ticks = due; due {
				tick.Reset(refusalTick)
			} else {
				tick.Stop()
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case now := <-tick.C:
			l.tell(ctx, now)
		case ev, open := <-events:
			if !open {
				return ctx.Err()
			}
			l.write(ctx, ev)
		}
	}
}

func (l *Events) write(ctx context.Context, ev portmap.Event) {
	switch ev.Type {
	case portmap.Granted:
		l.log.LogAttrs(ctx, slog.LevelInfo, "mapping added", mappingAttrs(ev)...)
	case portmap.Renewed:
		l.log.LogAttrs(ctx, slog.LevelDebug, "mapping renewed", mappingAttrs(ev)...)
	case portmap.Suspended:
		l.log.LogAttrs(ctx, slog.LevelInfo, "mapping suspended", append(mappingAttrs(ev), slog.String("reason", ev.Reason.String()))...)
	case portmap.Resumed:
		l.log.LogAttrs(ctx, slog.LevelInfo, "mapping resumed", mappingAttrs(ev)...)
	case portmap.Deleted, portmap.Expired, portmap.RevokedEvent:
		l.log.LogAttrs(ctx, slog.LevelInfo, "mapping ended", append(mappingAttrs(ev), slog.String("reason", ev.Reason.String()))...)
	case portmap.Denied, portmap.Pending:
		l.refusal(ctx, ev)
	case portmap.Approved, portmap.Refused, portmap.Withdrawn:
		l.log.LogAttrs(ctx, slog.LevelInfo, "owner answered", append(mappingAttrs(ev), answerAttrs(ev)...)...)
	case portmap.Drift:
		if ev.Reason == portmap.FirewallFailed { // what was put right has been told
			l.log.Warn("kernel refused a change", "err", ev.Detail)
		}
	case portmap.Resync:
		l.log.Warn("events were lost; the log is incomplete")
	}
}

// refusal counts one, and logs it where its key has not been logged for a minute.
func (l *Events) refusal(ctx context.Context, ev portmap.Event) {
	key := refusalKey{ev.Client.ID().Device(), ev.Reason}
	r := l.refused[key]
	if r == nil {
		if r = new(refusals); len(l.refused) < maxRefusals {
			l.refused[key] = r
		} else {
			r = &l.others
		}
	}
	r.last = ev
	r.n++
	l.tellOne(ctx, r, ev.Time)
}

// tell logs what is due, and forgets whom nothing was refused for a minute.
func (l *Events) tell(ctx context.Context, now time.Time) {
	for key, r := range l.refused {
		if r.n == 0 && !now.Before(r.next) {
			delete(l.refused, key)
		} else if r.n > 0 {
			l.tellOne(ctx, r, now)
		}
	}
	if l.others.n > 0 {
		l.tellOne(ctx, &l.others, now)
	}
}

// rest logs at the end how many refusals there was no line for.
func (l *Events) rest() {
	n := l.others.n
	for _, r := range l.refused {
		n += r.n
	}
	if n > 0 {
		l.log.Warn("more requests refused before the stop", "refused", n)
	}
}

func (l *Events) tellOne(ctx context.Context, r *refusals, now time.Time) {
	if now.Before(r.next) || !l.budget.AllowN(now, 1) {
		return
	}
	l.line(ctx, r.last, r.n-1)
	r.n = 0
	if r != &l.others {
		r.next = now.Add(refusalEvery)
	}
}

// line logs one refusal, and how many others it stands for.
func (l *Events) line(ctx context.Context, ev portmap.Event, others int) {
	attrs := append(mappingAttrs(ev), slog.String("reason", ev.Reason.String()), slog.String("detail", ev.Detail))
	if others > 0 {
		attrs = append(attrs, slog.Int("more_like_this", others))
	}
	l.log.LogAttrs(ctx, slog.LevelWarn, "request refused", attrs...)
}

// answerAttrs are what the owner has said.
func answerAttrs(ev portmap.Event) []slog.Attr {
	attrs := []slog.Attr{slog.String("answer", ev.Type.String()), slog.Uint64("number", ev.Answer.ID)}
	switch {
	case ev.Answer.Once:
		attrs = append(attrs, slog.Bool("once", true))
	case !ev.Answer.Until.IsZero():
		attrs = append(attrs, slog.Time("until", ev.Answer.Until))
	}
	if ev.Answer.Port == 0 {
		attrs = append(attrs, slog.Bool("device", true))
	}
	return attrs
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
		slog.Int("external_port", int(m.ExternalPort)),
		slog.String("internal", m.Internal.String()),
		slog.String("description", m.Description),
	}
	if !m.Expires.IsZero() {
		attrs = append(attrs, slog.Duration("lease", m.Left(ev.Time).Round(time.Second)))
	}
	if m.Endless {
		attrs = append(attrs, slog.Bool("endless", true))
	}
	if ev.Client.Name != "" {
		attrs = append(attrs, slog.String("host", ev.Client.Name))
	}
	if ev.Rule != "" {
		attrs = append(attrs, slog.String("rule", ev.Rule))
	}
	return attrs
}
