package metrics

import (
	"bytes"
	"math"
	"slices"
	"strconv"
	"strings"
)

// ContentType is that of a Text.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// Text is what is to be written. The zero value is empty, and ready.
type Text struct {
	out  bytes.Buffer
	name string // of the family
}

// Kind is what a metric is.
type Kind string

// The kinds.
const (
	Counter Kind = "counter" // only grows; its name ends in _total
	Gauge   Kind = "gauge"
	spread  Kind = "histogram"
)

// Family begins one: help is a sentence without its full stop.
func (t *Text) Family(name string, k Kind, help string) {
	t.name = name
	t.out.WriteString("# HELP " + name + " " + escape(help, false) + ".\n# TYPE " + name + " " + string(k) + "\n")
}

// Sample adds one of the family. labels are names and values by turns.
func (t *Text) Sample(value float64, labels ...string) { t.sample("", value, labels) }

func (t *Text) sample(suffix string, value float64, labels []string) {
	t.out.WriteString(t.name + suffix)
	for i := 0; i+1 < len(labels); i += 2 {
		before := byte(',')
		if i == 0 {
			before = '{'
		}
		t.out.WriteByte(before)
		t.out.WriteString(labels[i] + `="` + escape(labels[i+1], true) + `"`)
	}
	if len(labels) > 1 {
		t.out.WriteByte('}')
	}
	t.out.WriteByte(' ')
	t.out.Write(strconv.AppendFloat(nil, value, 'g', -1, 64))
	t.out.WriteByte('\n')
}

// Histogram adds a family of one.
func (t *Text) Histogram(name, help string, h *Histogram) {
	t.Family(name, spread, help)
	total := uint64(0)
	for i := range h.counts {
		total += h.counts[i].Load()
		le := "+Inf"
		if i < len(bounds) {
			le = strconv.FormatFloat(bounds[i], 'g', -1, 64)
		}
		t.sample("_bucket", float64(total), []string{"le", le})
	}
	t.sample("_sum", math.Float64frombits(h.sum.Load()), nil)
	t.sample("_count", float64(total), nil)
}

// Bytes returns the text.
func (t *Text) Bytes() []byte { return slices.Clip(t.out.Bytes()) }

// escape writes what must not stand as it is in a help text, or in the value of a label.
func escape(s string, quoted bool) string {
	s = strings.ReplaceAll(strings.ReplaceAll(s, `\`, `\\`), "\n", `\n`)
	if quoted {
		s = strings.ReplaceAll(s, `"`, `\"`)
	}
	return strings.ToValidUTF8(s, "\ufffd")
}
