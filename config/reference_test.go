package config_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"portcullis/config"
)

const (
	referencePath = "../etc/portcullis.toml"
	manPath       = "../etc/man/portcullis.toml.5"
)

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// setting is one "key = value" line of a TOML text, or of the man page.
type setting struct{ key, value string } // key is "table.key"

var (
	tableLine   = regexp.MustCompile(`^\[+([a-z]+)\]+$`)
	settingLine = regexp.MustCompile(`^([a-z0-9_]+) = (.*)$`)
)

// settings lists the lines of a TOML text that set a key.
func settings(text string) []setting {
	var all []setting
	table := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if m := tableLine.FindStringSubmatch(line); m != nil {
			table = m[1]
		} else if m := settingLine.FindStringSubmatch(line); m != nil {
			all = append(all, setting{table + "." + m[1], m[2]})
		}
	}
	return all
}

// TestReference: the reference file holds each key at its default, and nothing
// else that is not a comment.
func TestReference(t *testing.T) {
	t.Parallel()
	text := read(t, referencePath)
	got, err := config.Parse(referencePath, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(config.Default(), got, sameConfig); diff != "" {
		t.Errorf("the reference file is not the default, -want +got:\n%s", diff)
	}
	if diff := cmp.Diff(bare(string(config.Effective(config.Default()))), bare(text)); diff != "" {
		t.Errorf("what the defaults print and what the reference file has beside comments, -want +got:\n%s", diff)
	}
}

// bare returns a text without comments and empty lines.
func bare(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if line != "\n" && !strings.HasPrefix(line, "#") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// TestReferenceExamples: with the examples in the place of the defaults the
// reference file is valid too, and shows every key of a rule.
func TestReferenceExamples(t *testing.T) {
	t.Parallel()
	text := examples(read(t, referencePath))
	c, err := config.Parse("examples.toml", []byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if len(c.Rules) != 2 {
		t.Errorf("%d rules among the examples, want 2", len(c.Rules))
	}
	have := make(map[string]bool)
	for _, s := range settings(text) {
		have[s.key] = true
	}
	for _, key := range config.Keys() {
		if !have[key] {
			t.Errorf("the reference file lacks %s", key)
		}
	}
}

// examples puts each "#key = value" in the place of the same key's default.
func examples(text string) string {
	var out []string
	for line := range strings.Lines(text) {
		example, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), "#")
		if !ok || example == "" || strings.HasPrefix(example, " ") {
			out = append(out, strings.TrimRight(line, "\n"))
			continue
		}
		if m := settingLine.FindStringSubmatch(example); m != nil {
			if last := len(out) - 1; strings.HasPrefix(out[last], m[1]+" = ") {
				out = out[:last]
			}
		}
		out = append(out, example)
	}
	return strings.Join(out, "\n") + "\n"
}

var (
	manTable = regexp.MustCompile(`^\.Ss (?:Bq )+([a-z]+)$`)
	manKey   = regexp.MustCompile(`^\.It Ic ([a-z0-9_]+)(?: No = (.*))?$`)
)

// TestManPage: the man page has each key under its table, in the order of the
// file, with the default that holds.
func TestManPage(t *testing.T) {
	t.Parallel()
	var got []setting
	table := ""
	for line := range strings.Lines(read(t, manPath)) {
		line = strings.TrimSpace(line)
		if m := manTable.FindStringSubmatch(line); m != nil {
			table = m[1]
		} else if m := manKey.FindStringSubmatch(line); m != nil {
			got = append(got, setting{table + "." + m[1], manValue(m[2])})
		}
	}
	defaults := make(map[string]string)
	for _, s := range settings(string(config.Effective(config.Default()))) {
		defaults[s.key] = s.value
	}
	var want []setting
	for _, key := range config.Keys() {
		want = append(want, setting{key, defaults[key]})
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(setting{})); diff != "" {
		t.Errorf("keys of %s, -want +got:\n%s", manPath, diff)
	}
}

// manValue turns the macros of a default into TOML: "Qq Pa /x" into "/x".
func manValue(s string) string {
	words := strings.Fields(s)
	if len(words) == 0 {
		return ""
	}
	value := words[len(words)-1]
	switch {
	case words[0] == "Qq" && len(words) == 1:
		return `""`
	case words[0] == "Qq":
		return `"` + value + `"`
	case words[0] == "Bq" && len(words) == 1:
		return "[]"
	}
	return value
}

// TestManPageLint: mandoc has nothing to say but that the other page is not
// installed on this machine.
func TestManPageLint(t *testing.T) {
	t.Parallel()
	mandoc, err := exec.LookPath("mandoc")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("mandoc is not installed")
		}
		t.Skip("mandoc is not installed")
	}
	out, err := exec.Command(mandoc, "-Tlint", manPath).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	for line := range bytes.Lines(out) {
		if !bytes.Contains(line, []byte("referenced manual not found")) {
			t.Errorf("%s", bytes.TrimSpace(line))
		}
	}
}

// TestManPageExample: the example of the man page is valid.
func TestManPageExample(t *testing.T) {
	t.Parallel()
	_, rest, ok := strings.Cut(read(t, manPath), ".Bd -literal -offset indent\n")
	text, _, ended := strings.Cut(rest, ".Ed\n")
	if !ok || !ended {
		t.Fatal("no example found")
	}
	c, err := config.Parse("example.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Rules) != 2 {
		t.Errorf("%d rules, want 2", len(c.Rules))
	}
}
