package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
	"unicode"

	"portcullis/internal/control"
)

// evil is a text of a device that a terminal would obey, or that turns letters around.
const evil = "tv\x1b[2J\u009b2J\u202egnp\r\n\u2066"

// TestTextIsHarmless: no command prints what a terminal would obey, whatever a device has
// written, neither for people nor as JSON.
func TestTextIsHarmless(t *testing.T) {
	t.Parallel()
	asker := control.Asker{Address: "192.168.1.9", Host: evil, Interface: "br-lan"}
	m := control.Mapping{Protocol: "udp", InternalIP: "192.168.1.9", ClientHost: evil, Description: evil, Via: "upnp"}
	verdict := control.Verdict{Action: "deny", Why: evil}
	event := control.Event{Event: "denied", Client: &asker, Mapping: &m, Why: evil}
	pending := control.Pending{ClientHost: evil, Description: evil, Vendor: evil}
	approval := control.Approval{ClientHost: evil, Description: evil, ClientIP: "192.168.1.9"}
	refused := []control.RefusedDevice{{Client: asker, Refused: []control.Refused{{Description: evil, Verdict: verdict}}}}
	reloaded := control.Reloaded{Revoked: []control.Revoked{{Mapping: m, Why: evil}}}
	explained := control.Explained{Client: asker, Verdict: verdict}
	allowed := control.Explained{Client: asker, Verdict: control.Verdict{Action: "allow", Why: evil}, Note: evil}
	var out bytes.Buffer
	for name, print := range map[string]func() error{
		"list":      func() error { return printMappings(&out, []control.Mapping{m}, 0) },
		"events":    func() error { out.WriteString(eventLine(&event)); return nil },
		"pending":   func() error { return printPending(&out, []control.Pending{pending}, "", time.Now()) },
		"approve":   func() error { out.WriteString(answerLine(&approval)); return nil },
		"refused":   func() error { return printRefused(&out, refused, written{}, time.Now()) },
		"status":    func() error { return printStatus(&out, control.Status{LastRefused: &event}) },
		"explain":   func() error { return printExplained(&out, explained, written{}) },
		"explain 2": func() error { return printExplained(&out, allowed, written{}) },
		"reload":    func() error { return printReloaded(&out, reloaded) },
		"JSON":      func() error { return printJSON(&out, []any{m, event, pending, approval, refused, reloaded, explained}) },
	} {
		out.Reset()
		if err := print(); err != nil || out.Len() == 0 {
			t.Errorf("%s: %v", name, err)
		}
		if i := strings.IndexFunc(out.String(), func(r rune) bool { return r != '\n' && !unicode.IsGraphic(r) }); i >= 0 {
			t.Errorf("%s prints %q", name, out.String()[i:])
		}
	}
}
