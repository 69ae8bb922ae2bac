package logging

import (
	"context"
	"io"
	"sync"
	"time"

	"portcullis/config"
	"portcullis/internal/slog"
)

// A bridge that is made anew without end, or a cable with a loose contact, would have
// each of its changes fill a screen. What is said of them is bounded: so many lines at
// once, and then one a minute, which says how many were left out and what the last of
// them was, until a minute has passed in quiet.
const (
	calmLines = 60
	calmEvery = time.Minute
)

// repeated are the lines that changes of the network bring, by their messages. No other
// line is ever left out.
var repeated = map[string]bool{
	"serving a LAN":                              true,
	"a LAN is no longer served":                  true,
	"every LAN is served":                        true,
	"waiting for a LAN":                          true,
	"cannot serve a LAN interface":               true,
	"discovery announced":                        true,
	"discovery withdrawn":                        true,
	"announcement not sent":                      true,
	"IPv6 network left the LAN":                  true,
	"WAN changed":                                true,
	"IPv6 WAN changed":                           true,
	"network no longer fits the configuration":   true,
	"not all of the network is served":           true,
	"cannot update the firewall for the network": true,
	"mappings may not work":                      true,
	"replies leave by the WAN again":             true,
	"interface chosen":                           true,
	"network warning":                            true,
}

// calmHandler leaves out lines of a network that keeps changing.
type calmHandler struct {
	slog.Handler
	calm *calm
}

// calm is what the handlers of all loggers have in common.
type calm struct {
	out slog.Handler // the first of them, without attributes

	mu      sync.Mutex
	lines   int         // guarded by mu; since the last quiet minute
	latest  time.Time   // guarded by mu; of the last line, said or left out
	left    int         // guarded by mu; out since the last summary
	last    slog.Record // guarded by mu; of these
	pending *time.Timer // guarded by mu; the next summary, nil: none is due
}

// New returns the owner's log. In the journal, and in the format that is for syslog, each
// line begins with its priority, and the time is not ours to write.
func New(w io.Writer, c config.Log) *slog.Logger {
	opts := &slog.HandlerOptions{Level: c.Level}
	if c.Format == config.FormatSyslog || InJournal(w) {
		opts.NoTime = true
		w = prioritised{w}
	}
	if c.Format == config.FormatJSON {
		return slog.New(newCalmHandler(slog.NewJSONHandler(escaping{w}, opts)))
	}
	return slog.New(newCalmHandler(slog.NewTextHandler(w, opts)))
}

func newCalmHandler(h slog.Handler) *calmHandler { return &calmHandler{h, &calm{out: h}} }

// Handle implements slog.Handler.
func (h *calmHandler) Handle(ctx context.Context, r slog.Record) error {
	if repeated[r.Message] && !h.Enabled(ctx, slog.LevelDebug) && !h.calm.room(r) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h *calmHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &calmHandler{h.Handler.WithAttrs(attrs), h.calm}
}

// room reports whether there may be another line, and takes note of one that is left
// out.
func (c *calm) room(r slog.Record) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.pending == nil && now.Sub(c.latest) >= calmEvery {
		c.lines = 0
	}
	c.latest = now
	if c.lines < calmLines {
		c.lines++
		return true
	}
	c.left++
	c.last = r.Clone()
	if c.pending == nil {
		c.pending = time.AfterFunc(calmEvery, c.summary)
	}
	return false
}

// summary logs how many lines were left out, and the last one.
func (c *calm) summary() {
	c.mu.Lock()
	left, last := c.left, c.last
	c.left, c.pending = 0, nil
	c.mu.Unlock()
	r := slog.NewRecord(time.Now(), slog.LevelWarn, "network keeps changing; log lines suppressed")
	r.Add("lines", left, "last", last.Message)
	last.Attrs(func(a slog.Attr) bool {
		r.AddAttrs(a)
		return true
	})
	_ = c.out.Handle(context.Background(), r) // as with every line, nobody hears of a failure
}
