package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"portcullis/config"
)

// seeds adds the inputs of all goldens and the reference file.
func seeds(f *testing.F, add func(string)) {
	f.Helper()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		add(string(archive.Files[0].Data))
	}
	reference, err := os.ReadFile(referencePath)
	if err != nil {
		f.Fatal(err)
	}
	add(string(reference))
	for _, text := range tomlForms {
		add(text)
	}
}

// tomlForms are corners of the syntax, for the scan of the lines.
var tomlForms = []string{
	"a = 1",
	"a.b.\"c.d\" . 'e' = 1 # x = 2\n",
	"[a]\n[ b . \"c]\" ]\n[[d]]\n[[ d ]]#[x]\ne=1",
	"a = [\n1, # ]\n[2,\n3], {b = 4, c = [5]},\n]\nd = 1",
	"a = { b = { c = 1 }, d.e = 2 }\nf = {}\ng = []\n",
	"a = \"\"\nb = ''\nc = \"\"\"\"\"\"\nd = ''''''\ne = 1",
	"a = \"\\\"#=\\\\\"\nb = '\\'\nc = \"\"\"x\\\"\"\"y\n\"\"\"\"\"\nd = '''\n''''z'''''\ne = 1\n",
	"a = \"\"\"\\\n   x\"\"\"\nb = 1979-05-27 07:32:00\nc = -1e+9\nd = inf\n",
	"a = {\n b = 1, # }\n c = 2,\n}\nd = 1\n",
	"\ufeffa = 1\r\nb = [\r\n\"x\"\r\n]\r\n",
	"\"\" = 1\n'' . a = 1\n",
	"[a.b.c.d.e.f.g.h.i]",
	"a = ]\nb = 1 ]\n, }\n[x\n\"y\nc = [ 1 2 ]\nd = [[",
	"a = [[[[[[[[[1]]]]]]]]]",
}

// FuzzParse: no text panics; what is accepted prints as a text that is
// accepted and means the same; what is refused gives lines of the text.
func FuzzParse(f *testing.F) {
	seeds(f, func(text string) { f.Add([]byte(text)) })
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := config.Parse("p.toml", data)
		if err != nil {
			checkErrors(t, data, err)
			return
		}
		text := config.Effective(c)
		again, err := config.Parse("effective.toml", text)
		if err != nil {
			t.Fatalf("the effective configuration is refused: %v\n%s", err, text)
		}
		if diff := cmp.Diff(c, again, sameConfig); diff != "" {
			t.Errorf("the effective configuration differs, -want +got:\n%s", diff)
		}
	})
}

func checkErrors(t *testing.T, data []byte, err error) {
	t.Helper()
	var all config.Errors
	if !errors.As(err, &all) || len(all) == 0 {
		t.Fatalf("Parse gave %T: %v", err, err)
	}
	last, lines := 1, 1+strings.Count(string(data), "\n")
	for _, e := range all {
		if e.Line < last || e.Line > lines {
			t.Errorf("line %d after line %d of %d: %s", e.Line, last, lines, e)
		}
		last = e.Line
		if !utf8.ValidString(e.Text) || strings.ContainsFunc(e.Text, unicode.IsControl) {
			t.Errorf("an error with raw bytes of the file: %q", e.Text)
		}
	}
}

// FuzzKeyLines holds our scan against the library: for each valid text the
// same keys, in the same order, none above the one before it.
func FuzzKeyLines(f *testing.F) {
	seeds(f, func(text string) { f.Add(text) })
	f.Fuzz(func(t *testing.T, text string) {
		if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
			return // refused before
		}
		lines, err := config.KeyLines(text)
		if err != nil {
			return // too deep, and so is the library kept from it
		}
		keys, err := config.TOMLKeys(text)
		if err != nil {
			return
		}
		if len(lines) != len(keys) {
			t.Fatalf("%d lines %v for %d keys %v", len(lines), lines, len(keys), keys)
		}
		source := strings.Split(text, "\n")
		last := 1
		for i, line := range lines {
			if line < last {
				t.Fatalf("key %v stands on line %d, after line %d", keys[i], line, last)
			}
			last = line
			if name := keys[i][len(keys[i])-1]; isBare(name) && !strings.Contains(source[line-1], name) && !strings.Contains(source[line-1], "\\") {
				t.Errorf("line %d, %q, has no key %q", line, source[line-1], name)
			}
		}
	})
}

func isBare(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9')
	})
}
