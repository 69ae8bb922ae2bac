package logging

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode"

	"portcullis/config"
)

// hostile is what a device may write to play with a terminal: a control sequence in eight
// bits and in seven, a text from right to left, and a letter that nobody sees.
const hostile = "a\u009b2J\x1b[2J\x7f\u202egnp.exe\u2066\u2028\u200b\U000e0041z \u00e4\u4e2d\U0001f600 <\\u003c>"

// TestEscapeJSON: what a terminal would obey, or what turns the letters around, is escaped
// in JSON, and means the same there.
func TestEscapeJSON(t *testing.T) {
	t.Parallel()
	for _, plain := range []string{"", "{}\n", `{"a":"ä中😀\u003c"}` + "\n"} {
		if got := EscapeJSON([]byte(plain)); string(got) != plain {
			t.Errorf("%s became %s", plain, got)
		}
	}
	text, err := json.Marshal(map[string]string{"description": hostile})
	if err != nil {
		t.Fatal(err)
	}
	text = EscapeJSON(text)
	if i := strings.IndexFunc(string(text), func(r rune) bool { return !unicode.IsGraphic(r) }); i >= 0 {
		t.Errorf("%q is in %q", string(text)[i:], text)
	}
	var read map[string]string
	if err := json.Unmarshal(text, &read); err != nil || read["description"] != hostile {
		t.Errorf("%v; it means %q", err, read["description"])
	}
}

// TestHostileText: no format of the log has what a terminal would obey.
func TestHostileText(t *testing.T) {
	t.Parallel()
	for _, format := range []config.Format{config.FormatText, config.FormatJSON, config.FormatSyslog} {
		var out bytes.Buffer
		New(&out, config.Log{Format: format}).Info("mapping added", "description", hostile)
		if i := strings.IndexFunc(strings.TrimSuffix(out.String(), "\n"), func(r rune) bool { return !unicode.IsGraphic(r) }); i >= 0 {
			t.Errorf("%s: %q is in %q", format, out.String()[i:], out.String())
		}
	}
}
