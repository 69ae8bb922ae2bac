package main

import (
	"strings"
	"testing"
)

// TestOfDaemon: which processes are a daemon's, whatever its program is called.
func TestOfDaemon(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]bool{
		"portcullis /usr/sbin/portcullis run --config x":       true,
		"portcullis (deleted) /usr/sbin/portcullis run":        true,
		"portcullis portcullis front":                          true,
		"portcullis portcullis miniupnpd -D":                   true,
		"portcullis miniupnpd -D -f x":                         true,
		"portcullis miniupnpd background miniupnpd /pid -D":    true,
		"miniupnpd miniupnpd background miniupnpd /pid -D":     true,
		"miniupnpd miniupnpd front":                            true,
		"miniupnpd /usr/sbin/miniupnpd -f /etc/miniupnpd.conf": false, // which may be miniupnpd
		"portcullis portcullis cleanup":                        false,
		"portcullis portcullis":                                false,
		"bash bash run":                                        false,
	} {
		program, args, _ := strings.Cut(strings.Replace(line, " (deleted)", "+", 1), " ")
		if got := ofDaemon(strings.Replace(program, "+", " (deleted)", 1), strings.Fields(args)); got != want {
			t.Errorf("%s: %t", line, got)
		}
	}
}
