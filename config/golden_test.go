package config_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"portcullis/config"
)

var update = flag.Bool("update", false, "write the goldens in testdata from what Parse gives")

const (
	inputFile = "portcullis.toml"
	wantFile  = "effective.toml" // of a good file
	errorFile = "errors.txt"     // of a bad one
)

// TestGolden holds each file of testdata: the input, then either the effective
// configuration or the exact text of all errors.
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
	got := txtar.File{Name: wantFile}
	c, err := config.Parse(inputFile, input.Data)
	var all config.Errors
	switch {
	case errors.As(err, &all):
		got = txtar.File{Name: errorFile, Data: []byte(err.Error() + "\n")}
	case err != nil:
		t.Fatalf("Parse gave %T, want config.Errors: %v", err, err)
	default:
		got.Data = config.Effective(c)
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
