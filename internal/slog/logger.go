package slog

import (
	"context"
	"slices"
	"strconv"
	"time"
)

// Level says how much a line matters.
type Level int

// The levels that have names.
const (
	LevelDebug Level = -4
	LevelInfo  Level = 0
	LevelWarn  Level = 4
	LevelError Level = 8
)

// Leveler knows a level.
type Leveler interface{ Level() Level }

// Level makes it a Leveler.
func (l Level) Level() Level { return l }

// String returns its name, or how far above the next one with a name it is.
func (l Level) String() string {
	name, base := "DEBUG", LevelDebug
	switch {
	case l >= LevelError:
		name, base = "ERROR", LevelError
	case l >= LevelWarn:
		name, base = "WARN", LevelWarn
	case l >= LevelInfo:
		name, base = "INFO", LevelInfo
	}
	switch over := int(l - base); {
	case over > 0:
		return name + "+" + strconv.Itoa(over)
	case over < 0:
		return name + strconv.Itoa(over)
	}
	return name
}

// Record is one line, as it is handed to a Handler.
type Record struct {
	Time    time.Time
	Message string
	Level   Level
	attrs   []Attr
}

// NewRecord returns one without attributes.
func NewRecord(t time.Time, level Level, message string) Record {
	return Record{Time: t, Level: level, Message: message}
}

// Add adds attributes, as Logger.Info takes them.
func (r *Record) Add(args ...any) { r.attrs = appendArgs(r.attrs, args) }

// AddAttrs adds attributes.
func (r *Record) AddAttrs(attrs ...Attr) { r.attrs = append(r.attrs, attrs...) }

// Attrs calls f with each attribute until it returns false.
func (r Record) Attrs(f func(Attr) bool) {
	for _, a := range r.attrs {
		if !f(a) {
			return
		}
	}
}

// Clone returns one that shares nothing with r.
func (r Record) Clone() Record {
	r.attrs = slices.Clone(r.attrs)
	return r
}

// Handler is where lines go.
type Handler interface {
	// Enabled reports whether lines of a level are wanted.
	Enabled(context.Context, Level) bool
	// Handle takes a line that is. It may be called from everywhere at once.
	Handle(context.Context, Record) error
	// WithAttrs returns one whose lines have these attributes first.
	WithAttrs([]Attr) Handler
}

// DiscardHandler writes nothing.
var DiscardHandler Handler = discard{}

type discard struct{}

func (discard) Enabled(context.Context, Level) bool  { return false }
func (discard) Handle(context.Context, Record) error { return nil }
func (d discard) WithAttrs([]Attr) Handler           { return d }

// Logger makes lines.
type Logger struct{ handler Handler }

// New returns a logger of lines that go to h.
func New(h Handler) *Logger { return &Logger{h} }

// Handler returns where its lines go.
func (l *Logger) Handler() Handler { return l.handler }

// With returns one whose lines have these attributes first.
func (l *Logger) With(args ...any) *Logger {
	if len(args) == 0 {
		return l
	}
	return &Logger{l.handler.WithAttrs(appendArgs(nil, args))}
}

// Debug logs a line with attributes: keys and values in turn, or Attrs.
func (l *Logger) Debug(message string, args ...any) { l.log(LevelDebug, message, args) }

// Info does so.
func (l *Logger) Info(message string, args ...any) { l.log(LevelInfo, message, args) }

// Warn does so.
func (l *Logger) Warn(message string, args ...any) { l.log(LevelWarn, message, args) }

// Error does so.
func (l *Logger) Error(message string, args ...any) { l.log(LevelError, message, args) }

// Log does so.
func (l *Logger) Log(_ context.Context, level Level, message string, args ...any) {
	l.log(level, message, args)
}

// LogAttrs does so, of attributes alone, which cost less.
func (l *Logger) LogAttrs(ctx context.Context, level Level, message string, attrs ...Attr) {
	if l.handler.Enabled(ctx, level) {
		_ = l.handler.Handle(ctx, Record{Time: time.Now(), Level: level, Message: message, attrs: attrs}) // nobody could be told
	}
}

func (l *Logger) log(level Level, message string, args []any) {
	if ctx := context.Background(); l.handler.Enabled(ctx, level) {
		l.LogAttrs(ctx, level, message, appendArgs(make([]Attr, 0, len(args)), args)...)
	}
}

// appendArgs appends attributes from keys and values in turn, or Attrs.
func appendArgs(attrs []Attr, args []any) []Attr {
	for len(args) > 0 {
		switch key := args[0].(type) {
		case Attr:
			attrs, args = append(attrs, key), args[1:]
			continue
		case string:
			if len(args) > 1 {
				attrs, args = append(attrs, Any(key, args[1])), args[2:]
				continue
			}
		}
		attrs, args = append(attrs, Any("!BADKEY", args[0])), args[1:]
	}
	return attrs
}
