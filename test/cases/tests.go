package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// tests are all tests of the module, by name, and where each is.
type tests map[string][]place

// place is a package with a test, and the cases that its file speaks of.
type place struct {
	pkg   string // import path
	cases map[string]bool
}

const module = "portcullis"

var (
	testFunc = regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	anyCase  = regexp.MustCompile(`\b[A-Z][1-9][0-9]?\b`)
)

// findTests reads every file with tests below the top of the module.
func findTests(top string) (tests, error) {
	found := tests{}
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			_, another := os.Stat(filepath.Join(path, "go.mod"))
			if path != top && (another == nil || d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".")) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		code, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(top, filepath.Dir(path))
		if err != nil {
			return err
		}
		p := place{module + "/" + filepath.ToSlash(dir), map[string]bool{}}
		for _, id := range anyCase.FindAllString(string(code), -1) {
			p.cases[id] = true
		}
		for _, m := range testFunc.FindAllStringSubmatch(string(code), -1) {
			found[m[1]] = append(found[m[1]], p)
		}
		return nil
	})
	return found, err
}

// find returns the package and name of each test of a name that is of a case: its file
// says so. Where none does, as where the backends share their tests, it is all of them.
func (all tests) find(id, name string) (keys [][2]string) {
	for _, p := range all[name] {
		if p.cases[id] {
			keys = append(keys, [2]string{p.pkg, name})
		}
	}
	if keys != nil {
		return keys
	}
	for _, p := range all[name] {
		keys = append(keys, [2]string{p.pkg, name})
	}
	return keys
}
