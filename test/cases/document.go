package main

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
)

// abuseCase is a row of the document.
type abuseCase struct {
	id, answer string
	tests      []string
	otherwise  string // what shows the case where nothing need be unchanged; "": that must be shown
}

// document is where the cases are.
const document = "docs/abuse-cases.md"

var (
	anyRow    = regexp.MustCompile(`(?m)^\| [A-Z][1-9][0-9]* \|`)
	row       = regexp.MustCompile(`(?m)^\| ([A-Z][1-9][0-9]?) \| .* \| (.*) \| (.*) \|$`)
	testName  = regexp.MustCompile("`(Test\\w+)`")
	otherwise = regexp.MustCompile(`(?m)^\| ([^|]+) \| ((?:[A-Z][1-9][0-9]?(?:, )?)+) \|$`)
)

// readDocument returns the cases in the order of the document.
func readDocument(path string) ([]abuseCase, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parseDocument(string(text))
}

func parseDocument(text string) (all []abuseCase, err error) {
	found := row.FindAllStringSubmatch(text, -1)
	if n := len(anyRow.FindAllString(text, -1)); n != len(found) || n == 0 {
		return nil, fmt.Errorf("%s has %d rows, of which %d can be read", document, n, len(found))
	}
	for _, m := range found {
		c := abuseCase{id: m[1], answer: m[2]}
		for _, name := range testName.FindAllStringSubmatch(m[3], -1) {
			c.tests = append(c.tests, name[1])
		}
		if len(c.tests) == 0 || slices.ContainsFunc(all, func(o abuseCase) bool { return o.id == c.id }) {
			return nil, fmt.Errorf("%s: no test is named, or twice in the table", c.id)
		}
		all = append(all, c)
	}
	for _, m := range otherwise.FindAllStringSubmatch(text, -1) {
		for _, id := range strings.Split(m[2], ", ") {
			i := slices.IndexFunc(all, func(c abuseCase) bool { return c.id == id })
			if i < 0 || all[i].otherwise != "" {
				return nil, fmt.Errorf("%s: proved otherwise, but no case, or twice", id)
			}
			all[i].otherwise = m[1]
		}
	}
	return all, nil
}
