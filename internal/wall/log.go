package wall

import (
	"context"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"portcullis/internal/slog"
)

// What fronts that are owned can add to the log, all of them together: so many records at
// once, and so many a second, and so many octets.
const (
	recordsAtOnce  = 1000
	recordsASecond = 50
	octetsAtOnce   = 256 << 10
	octetsASecond  = 16 << 10
	recordOverhead = 100    // octets of a line beside what the front says
	fromKey        = "from" // is "front" in what crossed
	leftOutKey     = "left_out"
)

// handler is the front's log: its records cross the wall.
type handler struct {
	client *Client
	attrs  []slog.Attr
}

// Enabled implements slog.Handler.
func (h *handler) Enabled(_ context.Context, l slog.Level) bool {
	return l >= slog.Level(h.client.set.LogLevel)
}

// WithAttrs implements slog.Handler.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	more := *h
	more.attrs = append(more.attrs[:len(more.attrs):len(more.attrs)], attrs...)
	return &more
}

// Handle implements slog.Handler.
func (h *handler) Handle(_ context.Context, r slog.Record) error {
	b := &Record{Level: int8(max(-128, min(127, r.Level))), Message: cut(r.Message, maxLine)}
	for _, a := range h.attrs {
		b.add(a)
	}
	r.Attrs(func(a slog.Attr) bool {
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
	v := a.Value
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

// Log writes what fronts say into the owner's log, as much as there may be. One is for all
// fronts: one that ends leaves its successor what it has left. It is safe for concurrent
// use.
type Log struct {
	log             *slog.Logger
	records, octets *rate.Limiter

	mu     sync.Mutex // guards what follows
	left   int        // records out since the last that was written
	unsaid leftOut    // of the network, as the owner was told last
}

// NewLog returns one that writes to the owner's log.
func NewLog(log *slog.Logger) *Log {
	return &Log{
		log:     log,
		records: rate.NewLimiter(recordsASecond, recordsAtOnce), octets: rate.NewLimiter(octetsASecond, octetsAtOnce),
	}
}

func (l *Log) write(b *Record) {
	ctx, level, out := context.Background(), slog.Level(b.Level), l.log.Handler()
	if !out.Enabled(ctx, level) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.records.Allow() || !l.octets.AllowN(time.Now(), b.octets()) {
		l.left++
		return
	}
	r := slog.NewRecord(time.Now(), level, b.Message)
	for i := range b.Attrs {
		r.AddAttrs(b.Attrs[i].attr())
	}
	r.AddAttrs(slog.String(fromKey, "front"))
	if l.left > 0 {
		r.AddAttrs(slog.Int(leftOutKey, l.left))
		l.left = 0
	}
	_ = out.Handle(ctx, r) // as slog.Logger does
}

// octets returns about how many a line has that says it, with its signs quoted.
func (b *Record) octets() int {
	n := recordOverhead + len(strconv.QuoteToASCII(b.Message))
	for i := range b.Attrs {
		n += recordOverhead/4 + len(strconv.QuoteToASCII(b.Attrs[i].Key)) + len(strconv.QuoteToASCII(b.Attrs[i].Text))
	}
	return n
}

// leftOut is what of the network a message has no room for.
type leftOut struct{ lans, addresses int }

// tell says what of the network is not served, once for as long as it is the same.
func (l *Log) tell(left leftOut) {
	l.mu.Lock()
	said := l.unsaid
	l.unsaid = left
	l.mu.Unlock()
	if left != said && left != (leftOut{}) {
		l.log.Warn("not all of the network is served", "lans_left_out", left.lans, "addresses_left_out", left.addresses)
	}
}
