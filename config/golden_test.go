package config_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"portcullis/config"
)

var update = flag.Bool("update", false, "write the goldens in testdata from what Parse gives")

const (
	inputFile = "portcullis.toml"
	wantFile  = "effective.toml" // of a good file: what is not the default
	errorFile = "errors.txt"     // of a bad one
)

// TestGolden holds each file of testdata: the input, then either what the effective
// configuration has beside the defaults, or the exact text of all errors. The
// defaults themselves are those of the reference file, see TestReference.
func TestGolden(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	bad := 0
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txtar")
		if strings.HasPrefix(name, "bad-") {
			bad++
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			golden(t, file, strings.HasPrefix(name, "bad-"))
		})
	}
	if bad < 25 {
		t.Errorf("%d files of testdata hold errors, want at least 25", bad)
	}
}

func golden(t *testing.T, file string, wantErr bool) {
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(archive.Files) == 0 || archive.Files[0].Name != inputFile {
		t.Fatalf("%s must begin with %q", file, inputFile)
	}
	input := archive.Files[0]
	if strings.HasSuffix(file, "ok-windows-lines.txtar") && !strings.HasPrefix(string(input.Data), "\ufeff[log]\r\n") {
		t.Fatalf("%s has lost its byte order mark or its CR LF", file)
	}
	got := txtar.File{Name: wantFile}
	c, err := config.Parse(inputFile, input.Data)
	var all config.Errors
	switch {
	case errors.As(err, &all):
		got = txtar.File{Name: errorFile, Data: []byte(listed(err.Error()) + "\n")}
	case err != nil:
		t.Fatalf("Parse gave %T, want config.Errors: %v", err, err)
	default:
		got.Data = []byte(changed(string(config.Effective(c))))
	}
	if wantErr != (err != nil) {
		t.Errorf("the name of the file and the outcome differ; error: %v", err)
	}
	if *update {
		archive.Files = []txtar.File{input, got}
		if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if len(archive.Files) != 2 || archive.Files[1].Name != got.Name {
		t.Fatalf("the second file must be %q; got:\n%s", got.Name, got.Data)
	}
	if diff := cmp.Diff(string(archive.Files[1].Data), string(got.Data)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// listed puts "[keys of policy]" for a list of all keys of a table, and "[tables]" for
// that of all tables, so that a new key changes no golden. TestUnknownKey has one
// list as it is.
func listed(errs string) string {
	var tables []string
	keys := make(map[string][]string)
	for _, key := range config.Keys() {
		table, name, _ := strings.Cut(key, ".")
		if keys[table] == nil {
			tables = append(tables, table)
		}
		keys[table] = append(keys[table], name)
	}
	errs = strings.ReplaceAll(errs, ": "+strings.Join(tables, ", "), ": [tables]")
	for _, table := range tables {
		if len(keys[table]) > 1 {
			errs = strings.ReplaceAll(errs, strings.Join(keys[table], ", "), "[keys of "+table+"]")
		}
	}
	return errs
}

// changed returns the lines of an effective configuration that set a key to another
// value than the default, under their headers.
func changed(text string) string {
	defaults := settings(string(config.Effective(config.Default())))
	var b strings.Builder
	var header, table string
	for line := range strings.Lines(text) {
		if m := tableLine.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			header, table = line, m[1]
			continue
		}
		m := settingLine.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil || slices.Contains(defaults, setting{table + "." + m[1], m[2]}) {
			continue
		}
		b.WriteString(header + line)
		header = ""
	}
	return b.String()
}

// TestGoldenHasAll: among the goldens there is another value than the default of
// each key.
func TestGoldenHasAll(t *testing.T) {
	t.Parallel()
	have := make(map[string]bool)
	for _, file := range []string{"testdata/ok-other-values.txtar", "testdata/ok-rules.txtar", "testdata/ok-device.txtar"} {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range settings(string(archive.Files[1].Data)) {
			have[s.key] = true
		}
	}
	for _, key := range config.Keys() {
		if !have[key] {
			t.Errorf("no golden has another value than the default of %s", key)
		}
	}
}
