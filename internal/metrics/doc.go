// Package metrics writes numbers in the text format of Prometheus.
//
// Owns: Text (what is written, one family of metrics after the other), Histogram.
//
// May import: the standard library.
//
// Never: knows what is counted, or who reads it. A library of others that does the same
// adds 74 kB to the program (VictoriaMetrics/metrics) or 2.1 MB (Prometheus' own), which
// checks our text in tests instead.
package metrics
