package slog

import (
	"math"
	"strconv"
	"time"
)

// Kind says what a Value is.
type Kind int

// The kinds that are not boxed, and that which is.
const (
	KindAny Kind = iota
	KindBool
	KindDuration
	KindFloat64
	KindInt64
	KindString
	KindTime
	KindUint64
)

// Value is what an attribute says.
type Value struct {
	kind Kind
	num  uint64
	text string
	any  any // of KindAny; of KindTime a time.Time
}

// Attr is one word of a line.
type Attr struct {
	Key   string
	Value Value
}

// String returns an attribute of a text.
func String(key, text string) Attr { return Attr{key, Value{kind: KindString, text: text}} }

// Int returns an attribute of a number.
func Int(key string, n int) Attr { return Int64(key, int64(n)) }

// Int64 returns an attribute of a number.
func Int64(key string, n int64) Attr {
	return Attr{key, Value{kind: KindInt64, num: uint64(n)}} // #nosec G115 -- and back
}

// Uint64 returns an attribute of a number.
func Uint64(key string, n uint64) Attr { return Attr{key, Value{kind: KindUint64, num: n}} }

// Bool returns an attribute of a truth.
func Bool(key string, is bool) Attr {
	v := Value{kind: KindBool}
	if is {
		v.num = 1
	}
	return Attr{key, v}
}

// Duration returns an attribute of a time that something takes.
func Duration(key string, d time.Duration) Attr {
	return Attr{key, Value{kind: KindDuration, num: uint64(d)}} // #nosec G115 -- and back
}

// Time returns an attribute of a moment.
func Time(key string, t time.Time) Attr { return Attr{key, Value{kind: KindTime, any: t.Round(0)}} }

// Any returns an attribute of what there is no other for.
func Any(key string, v any) Attr {
	switch v := v.(type) {
	case string:
		return String(key, v)
	case int:
		return Int(key, v)
	case int64:
		return Int64(key, v)
	case int32:
		return Int64(key, int64(v))
	case int16:
		return Int64(key, int64(v))
	case int8:
		return Int64(key, int64(v))
	case uint:
		return Uint64(key, uint64(v))
	case uint64:
		return Uint64(key, v)
	case uint32:
		return Uint64(key, uint64(v))
	case uint16:
		return Uint64(key, uint64(v))
	case uint8:
		return Uint64(key, uint64(v))
	case float64:
		return Attr{key, Value{kind: KindFloat64, num: math.Float64bits(v)}}
	case bool:
		return Bool(key, v)
	case time.Duration:
		return Duration(key, v)
	case time.Time:
		return Time(key, v)
	case Value:
		return Attr{key, v}
	}
	return Attr{key, Value{any: v}}
}

// Kind returns what it is.
func (v Value) Kind() Kind { return v.kind }

// Int64 returns the number that it is.
func (v Value) Int64() int64 { return int64(v.num) } // #nosec G115 -- as it came

// Uint64 returns the number that it is.
func (v Value) Uint64() uint64 { return v.num }

// Bool reports whether it is true.
func (v Value) Bool() bool { return v.num == 1 }

// Duration returns the time that it is.
func (v Value) Duration() time.Duration { return time.Duration(v.num) } // #nosec G115 -- as it came

// String returns any value as a text.
func (v Value) String() string {
	if v.kind == KindString {
		return v.text
	}
	return string(v.appendText(nil))
}

func (v Value) time() time.Time {
	t, _ := v.any.(time.Time)
	return t
}

func (v Value) float() float64 { return math.Float64frombits(v.num) }

// appendPlain appends what both forms have in common, and reports whether it is that.
func (v Value) appendPlain(b []byte) ([]byte, bool) {
	switch v.kind {
	case KindInt64:
		return strconv.AppendInt(b, v.Int64(), 10), true
	case KindUint64:
		return strconv.AppendUint(b, v.num, 10), true
	case KindBool:
		return strconv.AppendBool(b, v.Bool()), true
	case KindFloat64:
		return strconv.AppendFloat(b, v.float(), 'g', -1, 64), true
	}
	return b, false
}
