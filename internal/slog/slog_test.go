package slog

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"
)

// times are what differs from line to line.
var times = regexp.MustCompile(`^(time=|\{"time":")[^ ,"]+`)

// args are attributes of every kind that the program has.
func args() []any {
	var none *net
	return []any{
		"text", "a", "words", "a b", "none", "", "quoted", `a"=\`, "backslash", `\d`, "hostile", "\u009b\u202e\x1b\xff\u2028中 <&>", "key \x00", 1,
		"int", -1, "int8", int8(-8), "int32", int32(32), "int64", int64(-64), "uint", uint(1), "uint8", uint8(8), "uint16", uint16(16), "uint32", uint32(32), "uint64", ^uint64(0),
		"yes", true, "no", false, "half", 0.5, "span", 90 * time.Second, "at", time.Date(2026, 11, 30, 14, 0, 0, 123456789, time.UTC),
		"err", errors.New("it is so"), "addr", netip.MustParseAddr("192.0.2.1"), "list", []string{"a", "b c"}, "of", net("n"), "nil", nil, "nowhere", none, "struct", struct{ A, B int }{1, 2},
		"map", map[string]int{"b": 1, "a": 2}, 7, "odd",
	}
}

// net is a type of a text, as the configuration has them.
type net string

func (n *net) MarshalText() ([]byte, error) { return []byte("text of " + *n), nil }

// TestLinesAlike: both forms of a line are those of log/slog.
func TestLinesAlike(t *testing.T) {
	t.Parallel()
	for name, make := range map[string]func(w, x io.Writer) (*Logger, *slog.Logger){
		"text": func(w, x io.Writer) (*Logger, *slog.Logger) {
			return New(NewTextHandler(w, nil)), slog.New(slog.NewTextHandler(x, nil))
		},
		"JSON": func(w, x io.Writer) (*Logger, *slog.Logger) {
			return New(NewJSONHandler(w, nil)), slog.New(slog.NewJSONHandler(x, nil))
		},
	} {
		var got, want bytes.Buffer
		ours, theirs := make(&got, &want)
		all := args()
		for _, n := range []int{0, 1, 2, len(all)} {
			ours.Info("a line", all[:n]...)
			theirs.Info("a line", all[:n]...)
			ours.With(all[:n]...).With("x", 1).Warn("", all[:n]...)
			theirs.With(all[:n]...).With("x", 1).Warn("", all[:n]...)
		}
		ours.Debug("not wanted")
		for _, l := range []int{-5, -4, -1, 0, 3, 4, 7, 8, 127} {
			ours.Log(t.Context(), max(0, Level(l)), "x", "level", Level(l).String())
			theirs.Log(t.Context(), max(0, slog.Level(l)), "x", "level", slog.Level(l).String())
		}
		ours.LogAttrs(t.Context(), LevelError, "attributes", String("a", "b"), Int("n", 1), Uint64("u", 2), Bool("t", true), Duration("d", 3), Time("at", time.Time{}))
		theirs.LogAttrs(t.Context(), slog.LevelError, "attributes", slog.String("a", "b"), slog.Int("n", 1), slog.Uint64("u", 2), slog.Bool("t", true), slog.Duration("d", 3), slog.Time("at", time.Time{}))
		a, b := strings.Split(got.String(), "\n"), strings.Split(want.String(), "\n")
		if len(a) != len(b) {
			t.Fatalf("%s: %d lines, want %d", name, len(a), len(b))
		}
		for i := range a {
			if x, y := times.ReplaceAllString(a[i], "$1"), times.ReplaceAllString(b[i], "$1"); x != y {
				t.Errorf("%s:\n%s\n%s", name, x, y)
			}
		}
	}
}

// TestTime: a line begins with the time, to the millisecond, or without it with the level.
func TestTime(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 30, 14, 0, 0, 5_999_999, time.FixedZone("", -3600))
	for want, make := range map[string]func(io.Writer) Handler{
		"time=2026-11-30T14:00:00.005-01:00 level=INFO msg=x\n":                          func(w io.Writer) Handler { return NewTextHandler(w, nil) },
		`{"time":"2026-11-30T14:00:00.005999999-01:00","level":"INFO","msg":"x"}` + "\n": func(w io.Writer) Handler { return NewJSONHandler(w, nil) },
		"level=INFO msg=x\n":                func(w io.Writer) Handler { return NewTextHandler(w, &HandlerOptions{NoTime: true}) },
		`{"level":"INFO","msg":"x"}` + "\n": func(w io.Writer) Handler { return NewJSONHandler(w, &HandlerOptions{NoTime: true}) },
	} {
		var out bytes.Buffer
		if err := make(&out).Handle(t.Context(), NewRecord(at, LevelInfo, "x")); err != nil || out.String() != want {
			t.Errorf("%v; %q, want %q", err, out.String(), want)
		}
	}
}

// TestRecord: a copy is one's own, and attributes are passed on until somebody has enough.
func TestRecord(t *testing.T) {
	t.Parallel()
	r := NewRecord(time.Time{}, LevelInfo, "x")
	r.Add("a", 1, String("b", "2"))
	clone := r.Clone()
	r.attrs[0].Key = "changed"
	clone.AddAttrs(Bool("c", true))
	var keys []string
	clone.Attrs(func(a Attr) bool {
		keys = append(keys, a.Key+"="+a.Value.String())
		return true
	})
	if got := strings.Join(keys, " "); got != "a=1 b=2 c=true" {
		t.Error(got)
	}
	n := 0
	clone.Attrs(func(Attr) bool { n++; return false })
	if n != 1 {
		t.Errorf("%d attributes behind the last that was wanted", n-1)
	}
}

// TestDiscard: nothing is made that nobody wants.
func TestDiscard(t *testing.T) {
	t.Parallel()
	log := New(DiscardHandler).With("a", 1)
	if log.Handler().Enabled(context.Background(), LevelError) {
		t.Error("lines are made")
	}
	log.Error("x")
	if err := log.Handler().Handle(t.Context(), Record{}); err != nil {
		t.Error(err)
	}
}
