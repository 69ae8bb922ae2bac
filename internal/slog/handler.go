package slog

import (
	"context"
	"encoding"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"portcullis/internal/json"
)

// HandlerOptions say what is written.
type HandlerOptions struct {
	Level  Leveler // nil: LevelInfo
	NoTime bool    // lines do not begin with the time
}

// form is how lines look.
type form interface {
	begin(b []byte) []byte
	key(b []byte, key string, first bool) []byte
	value(b []byte, v Value) []byte
	end(b []byte) []byte
}

// handler writes lines, one after another.
type handler struct {
	form
	opts HandlerOptions
	more []byte // attributes of all lines
	mu   *sync.Mutex
	w    io.Writer // guarded by mu
}

// NewTextHandler returns one whose lines are of words, key=value.
func NewTextHandler(w io.Writer, opts *HandlerOptions) Handler {
	return newHandler(textForm{}, w, opts)
}

// NewJSONHandler returns one whose lines are objects.
func NewJSONHandler(w io.Writer, opts *HandlerOptions) Handler {
	return newHandler(jsonForm{}, w, opts)
}

func newHandler(f form, w io.Writer, opts *HandlerOptions) *handler {
	h := &handler{form: f, w: w, mu: new(sync.Mutex)}
	if opts != nil {
		h.opts = *opts
	}
	if h.opts.Level == nil {
		h.opts.Level = LevelInfo
	}
	return h
}

// Enabled implements Handler.
func (h *handler) Enabled(_ context.Context, level Level) bool { return level >= h.opts.Level.Level() }

// WithAttrs implements Handler.
func (h *handler) WithAttrs(attrs []Attr) Handler {
	more := *h
	more.more = slices.Clone(h.more)
	for _, a := range attrs {
		more.more = h.attr(more.more, a)
	}
	return &more
}

func (h *handler) attr(b []byte, a Attr) []byte { return h.value(h.key(b, a.Key, false), a.Value) }

// lines are as many as are made at once.
var lines = sync.Pool{New: func() any { b := make([]byte, 0, 512); return &b }}

// mostKept is how long a line may be that is kept for the next.
const mostKept = 16 << 10

// Handle implements Handler.
func (h *handler) Handle(_ context.Context, r Record) error {
	line, _ := lines.Get().(*[]byte)
	b := h.begin((*line)[:0])
	if !r.Time.IsZero() && !h.opts.NoTime {
		b = h.value(h.key(b, "time", true), Value{kind: KindTime, any: r.Time.Round(0)})
		b = h.key(b, "level", false)
	} else {
		b = h.key(b, "level", true)
	}
	b = h.value(b, Value{kind: KindString, text: r.Level.String()})
	b = h.attr(b, String("msg", r.Message))
	b = append(b, h.more...)
	for _, a := range r.attrs {
		b = h.attr(b, a)
	}
	b = h.end(b)
	h.mu.Lock()
	_, err := h.w.Write(b)
	h.mu.Unlock()
	if *line = b; cap(b) <= mostKept {
		lines.Put(line)
	}
	return err
}

type textForm struct{}

func (textForm) begin(b []byte) []byte { return b }
func (textForm) end(b []byte) []byte   { return append(b, '\n') }

func (textForm) key(b []byte, key string, first bool) []byte {
	if !first {
		b = append(b, ' ')
	}
	return append(appendWord(b, key), '=')
}

func (textForm) value(b []byte, v Value) []byte {
	if b, ok := v.appendPlain(b); ok {
		return b
	}
	if v.kind == KindTime {
		return v.appendText(b)
	}
	return appendWord(b, v.String())
}

// millis is RFC 3339 with milliseconds.
const millis = "2006-01-02T15:04:05.000Z07:00"

func (v Value) appendText(b []byte) []byte {
	if b, ok := v.appendPlain(b); ok {
		return b
	}
	switch v.kind {
	case KindString:
		return append(b, v.text...)
	case KindDuration:
		return append(b, v.Duration().String()...)
	case KindTime:
		return v.time().AppendFormat(b, millis)
	}
	if missing(v.any) {
		return append(b, "<nil>"...)
	}
	if m, ok := v.any.(encoding.TextMarshaler); ok {
		if text, err := m.MarshalText(); err == nil {
			return append(b, text...)
		}
	}
	return fmt.Appendf(b, "%+v", v.any)
}

// missing reports whether it is nil, whose methods may not be called.
func missing(v any) bool {
	r := reflect.ValueOf(v)
	return !r.IsValid() || r.Kind() == reflect.Pointer && r.IsNil()
}

// appendWord appends a text that is one word, or is quoted.
func appendWord(b []byte, s string) []byte {
	if word(s) {
		return append(b, s...)
	}
	return strconv.AppendQuote(b, s)
}

func word(s string) bool {
	for _, r := range s {
		if r == ' ' || r == '"' || r == '=' || r == utf8.RuneError || !strconv.IsPrint(r) {
			return false
		}
	}
	return s != ""
}

type jsonForm struct{}

func (jsonForm) begin(b []byte) []byte { return append(b, '{') }
func (jsonForm) end(b []byte) []byte   { return append(b, '}', '\n') }

func (jsonForm) key(b []byte, key string, first bool) []byte {
	if !first {
		b = append(b, ',')
	}
	return append(json.AppendString(b, key), ':')
}

func (jsonForm) value(b []byte, v Value) []byte {
	switch v.kind {
	case KindString:
		return json.AppendString(b, v.text)
	case KindDuration:
		return strconv.AppendInt(b, v.Int64(), 10)
	case KindTime:
		return append(v.time().AppendFormat(append(b, '"'), time.RFC3339Nano), '"')
	case KindAny:
		return appendAny(b, v.any)
	}
	b, _ = v.appendPlain(b)
	return b
}

// appendAny appends what is no simple value. An error is what it says.
func appendAny(b []byte, v any) []byte {
	if missing(v) {
		return append(b, "null"...)
	}
	if err, ok := v.(error); ok {
		return json.AppendString(b, err.Error())
	}
	out, err := json.AppendPlain(b, v)
	if err != nil {
		return json.AppendString(b, "!ERROR:"+err.Error())
	}
	return out
}
