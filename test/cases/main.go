package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "cases:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) > 1 && args[0] == "-record" {
		return recorded(args[1], args[2:])
	}
	cases, err := readDocument(document)
	if err != nil {
		return err
	}
	where, err := findTests(".")
	if err != nil {
		return err
	}
	shown := newResults()
	if len(args) == 0 {
		p := printer{os.Stderr, map[[2]string][]string{}}
		err = goTest(named(cases, where), func(e event) { shown.take(e); p.take(e) })
	}
	for _, name := range args {
		f, e := os.Open(name)
		if e != nil {
			return e
		}
		err = errors.Join(err, events(f, shown.take), f.Close())
	}
	if failed := report(os.Stdout, cases, where, shown); len(failed) > 0 {
		err = errors.Join(fmt.Errorf("not proved: %s", strings.Join(failed, ", ")), err)
	}
	return err
}

// recorded runs go test and keeps what it has shown in a file.
func recorded(path string, args []string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	r, err := record(path)
	if err != nil {
		return err
	}
	p := printer{os.Stdout, map[[2]string][]string{}}
	err = goTest(args, func(e event) { r.take(e); p.take(e) })
	return errors.Join(err, r.close())
}

// named are the arguments of go test that run the tests of the cases.
func named(cases []abuseCase, where tests) []string {
	names, packages := map[string]bool{}, map[string]bool{}
	for _, c := range cases {
		for _, name := range c.tests {
			for _, key := range where.find(c.id, name) {
				packages[key[0]], names[key[1]] = true, true
			}
		}
	}
	args := []string{"-count=1", "-parallel", "8", "-timeout", "900s", "-run", "^(" + strings.Join(slices.Sorted(maps.Keys(names)), "|") + ")$"}
	return append(args, slices.Sorted(maps.Keys(packages))...)
}
