package wall

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// What an end of the wall that is owned can add to the log: so many records at once, and
// so many a second.
const (
	recordsAtOnce   = 1000
	recordsASecond  = 50
	fromKey         = "from" // is "front" in what crossed
	leftOutKey      = "left_out"
	groupSeparation = "."
)

// handler is the front's log: its records cross the wall.
type handler struct {
	client *Client
	attrs  []slog.Attr
	group  string // before the keys of what comes
}

// Enabled implements slog.Handler.
func (h *handler) Enabled(_ context.Context, l slog.Level) bool {
	return l >= slog.Level(h.client.set.LogLevel)
}

// WithAttrs implements slog.Handler.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	more := *h
	more.attrs = append(more.attrs[:len(more.attrs):len(more.attrs)], attrs...)
	for i := len(h.attrs); i < len(more.attrs); i++ {
		more.attrs[i].Key = h.group + more.attrs[i].Key
	}
	return &more
}

// WithGroup implements slog.Handler.
func (h *handler) WithGroup(name string) slog.Handler {
	more := *h
	more.group += name + groupSeparation
	return &more
}

// Handle implements slog.Handler.
func (h *handler) Handle(_ context.Context, r slog.Record) error {
	b := &Record{Level: int8(max(-128, min(127, r.Level))), Message: cut(r.Message, maxLine)}
	for _, a := range h.attrs {
		b.add(a)
	}
	r.Attrs(func(a slog.Attr) bool {
		a.Key = h.group + a.Key
		b.add(a)
		return true
	})
	return h.client.conn.send(Message{Body: b})
}

// add adds an attribute, if there is room.
func (b *Record) add(a slog.Attr) {
	if len(b.Attrs) == maxAttrs {
		return
	}
	v := a.Value.Resolve()
	x := Attr{Key: cut(a.Key, maxKey)}
	switch v.Kind() {
	case slog.KindInt64:
		x.Kind, x.Number = IntAttr, uint64(v.Int64()) // #nosec G115 -- and back
	case slog.KindUint64:
		x.Kind, x.Number = UintAttr, v.Uint64()
	case slog.KindDuration:
		x.Kind, x.Number = DurationAttr, uint64(v.Duration()) // #nosec G115 -- and back
	case slog.KindBool:
		x.Kind = BoolAttr
		if v.Bool() {
			x.Number = 1
		}
	default:
		x.Text = sentence(v.String())
	}
	b.Attrs = append(b.Attrs, x)
}

// attr returns it as the warden's log has it.
func (a *Attr) attr() slog.Attr {
	switch a.Kind {
	case IntAttr:
		return slog.Int64(a.Key, int64(a.Number)) // #nosec G115 -- and back
	case UintAttr:
		return slog.Uint64(a.Key, a.Number)
	case BoolAttr:
		return slog.Bool(a.Key, a.Number == 1)
	case DurationAttr:
		return slog.Duration(a.Key, time.Duration(a.Number)) // #nosec G115 -- and back
	}
	return slog.String(a.Key, a.Text)
}

// frontLog writes what the front says into the owner's log, as much as there may be.
type frontLog struct {
	out  slog.Handler
	room *rate.Limiter

	mu   sync.Mutex // guards what follows
	left int        // records out since the last that was written
}

func newFrontLog(log *slog.Logger) *frontLog {
	return &frontLog{out: log.Handler(), room: rate.NewLimiter(recordsASecond, recordsAtOnce)}
}

func (l *frontLog) write(b *Record) {
	ctx, level := context.Background(), slog.Level(b.Level)
	if !l.out.Enabled(ctx, level) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.room.Allow() {
		l.left++
		return
	}
	r := slog.NewRecord(time.Now(), level, b.Message, 0)
	for i := range b.Attrs {
		r.AddAttrs(b.Attrs[i].attr())
	}
	r.AddAttrs(slog.String(fromKey, "front"))
	if l.left > 0 {
		r.AddAttrs(slog.Int(leftOutKey, l.left))
		l.left = 0
	}
	_ = l.out.Handle(ctx, r) // as slog.Logger does
}
