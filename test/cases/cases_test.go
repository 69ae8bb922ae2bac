package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// pages is a document with a case of each kind.
const pages = "# Cases\n\n| id | threat | answer | test |\n|---|---|---|---|\n" +
	"| B1 | a threat | 606 | `TestOne` |\n" +
	"| B2 | another, \\| and `x` | 402 or 606 | `TestOne`, `TestTwo` |\n" +
	"| E1 | a flood | 20 a second | `TestFlood` |\n\n" +
	"| what is shown instead | cases |\n|---|---|\n" +
	"| bounds: and others are served | E1 |\n"

// world has the tests of pages, and one of the same name that is of no case.
var world = tests{
	"TestOne":   {{"portcullis/a", map[string]bool{"B1": true, "B2": true}}, {"portcullis/other", nil}},
	"TestTwo":   {{"portcullis/b", map[string]bool{"B2": true}}},
	"TestFlood": {{"portcullis/nft", nil}, {"portcullis/iptables", nil}},
}

const good = `{"Action":"output","Package":"portcullis/a","Test":"TestOne/v1/B1/x","Output":"    x_test.go:5: unchanged: mappings 2=2, elements 6=6, flows 1=1, journal 2=2 \n"}
{"Action":"output","Package":"portcullis/a","Test":"TestOne/B1_x","Output":"    x_test.go:5: unchanged: mappings 0=0, elements 0=0, flows 0=0, journal 0=0 \n"}
{"Action":"pass","Package":"portcullis/a","Test":"TestOne/v1"}
{"Action":"pass","Package":"portcullis/a","Test":"TestOne"}
{"Action":"output","Package":"portcullis/b","Test":"TestTwo","Output":"    x_test.go:7: unchanged: mappings 1=1, elements 3=3, flows 0=0, journal 1=1 B2 C3\n"}
{"Action":"pass","Package":"portcullis/b","Test":"TestTwo"}
{"Action":"pass","Package":"portcullis/nft","Test":"TestFlood"}
{"Action":"pass","Package":"portcullis/iptables","Test":"TestFlood"}
`

const printed = `B1  606
    nothing changed (2x): mappings 2=2, elements 6=6, flows 1=1, journal 2=2
    ok: TestOne
B2  402 or 606
    nothing changed (1x): mappings 1=1, elements 3=3, flows 0=0, journal 1=1
    ok: TestOne, TestTwo
E1  20 a second
    bounds: and others are served
    ok: nft.TestFlood, iptables.TestFlood
3 cases; nothing changed in 2 of them, compared 3 times; the others are proved otherwise.
`

func TestReport(t *testing.T) {
	if got, failed := reported(t, good); got != printed || len(failed) > 0 {
		t.Errorf("failed: %q (-want +got):\n%s", failed, cmp.Diff(printed, got))
	}
}

// TestReportFails: a case fails when one of its tests did, was skipped or did not run,
// and when it lacks its proof, whatever else passed.
func TestReportFails(t *testing.T) {
	without := func(part string) string {
		var kept []string
		for _, line := range strings.SplitAfter(good, "\n") {
			if !strings.Contains(line, part) {
				kept = append(kept, line)
			}
		}
		return strings.Join(kept, "")
	}
	instead := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	for name, x := range map[string]struct {
		log    string
		failed []string
		says   string
	}{
		"failed":             {instead(`pass","Package":"portcullis/b`, `fail","Package":"portcullis/b`), []string{"B2"}, "TestTwo failed"},
		"skipped":            {instead(`pass","Package":"portcullis/b`, `skip","Package":"portcullis/b`), []string{"B2"}, "TestTwo was skipped"},
		"a part skipped":     {instead(`pass","Package":"portcullis/a","Test":"TestOne/v1`, `skip","Package":"portcullis/a","Test":"TestOne/v1`), []string{"B1", "B2"}, "TestOne was skipped, or a part of it"},
		"died":               {without(`"Test":"TestOne"}`), []string{"B1", "B2"}, "TestOne did not end"},
		"did not run":        {without("portcullis/iptables"), []string{"E1"}, "iptables.TestFlood did not run"},
		"nothing ran":        {"", []string{"B1", "B2", "E1"}, "TestOne did not run"},
		"no proof":           {without("unchanged:"), []string{"B1", "B2"}, "no test shows that nothing changed"},
		"another's proof":    {instead(" B2 C3", " C3"), []string{"B2"}, "no test shows that nothing changed"},
		"another package's":  {strings.ReplaceAll(good, "portcullis/a", "portcullis/other"), []string{"B1", "B2"}, "TestOne did not run"},
		"failed, and a twin": {good + `{"Action":"fail","Package":"portcullis/a","Test":"TestOne/v2"}` + "\n", []string{"B1", "B2"}, "TestOne failed"},
	} {
		got, failed := reported(t, x.log)
		if !slices.Equal(failed, x.failed) || !strings.Contains(got, "FAILED: ") || !strings.Contains(got, x.says) {
			t.Errorf("%s: failed: %q, want %q and %q:\n%s", name, failed, x.failed, x.says, got)
		}
	}
}

func reported(t *testing.T, log string) (string, []string) {
	t.Helper()
	cases, err := parseDocument(pages)
	if err != nil {
		t.Fatal(err)
	}
	// Through a file, as make test has it.
	path := filepath.Join(t.TempDir(), "log")
	r, err := record(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := events(strings.NewReader(log), r.take); err != nil {
		t.Fatal(err)
	}
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
	kept, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	shown, out := newResults(), &bytes.Buffer{}
	if err := events(bytes.NewReader(kept), shown.take); err != nil {
		t.Fatal(err)
	}
	failed := report(out, cases, world, shown)
	return out.String(), failed
}

// TestDocumentRefused: a document that says too little, or two things, is no ground to
// pass.
func TestDocumentRefused(t *testing.T) {
	for name, text := range map[string]string{
		"no cases":                   "# Cases\n",
		"no test":                    strings.Replace(pages, "`TestFlood`", "none", 1),
		"otherwise, and no case":     strings.Replace(pages, "served | E1 |", "served | E2 |", 1),
		"otherwise, in two ways":     pages + "| silence | E1 |\n",
		"otherwise, twice in a line": strings.Replace(pages, "served | E1 |", "served | E1, E1 |", 1),
		"a row of another form":      strings.Replace(pages, "| 606 |", "| 606 | more |", 1) + "| B4 | a | b |\n",
		"a case twice":               strings.Replace(pages, "| B2 |", "| B1 |", 1),
	} {
		if cases, err := parseDocument(text); err == nil {
			t.Errorf("%s: %+v", name, cases)
		}
	}
}

// TestEveryCase: each row of the document is a case, and the tests that it names are
// there; what is printed is complete.
func TestEveryCase(t *testing.T) {
	cases, err := readDocument("../../" + document)
	if err != nil {
		t.Fatal(err)
	}
	if len(cases) < 100 {
		t.Errorf("%d cases", len(cases))
	}
	where, err := findTests("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		for _, name := range c.tests {
			if len(where[name]) == 0 {
				t.Errorf("%s: there is no %s", c.id, name)
			}
		}
	}
}

// TestPrinter: a run looks as go test shows it: no word of what passed, all of what failed.
func TestPrinter(t *testing.T) {
	log := `{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"TestOK"}
{"Action":"output","Package":"p","Test":"TestOK","Output":"=== RUN   TestOK\n"}
{"Action":"output","Package":"p","Test":"TestOK","Output":"    said\n"}
{"Action":"output","Package":"p","Test":"TestOK","Output":"--- PASS: TestOK\n"}
{"Action":"pass","Package":"p","Test":"TestOK"}
{"Action":"output","Package":"p","Test":"TestBad","Output":"    wrong\n"}
{"Action":"output","Package":"p","Test":"TestBad","Output":"--- FAIL: TestBad\n"}
{"Action":"fail","Package":"p","Test":"TestBad"}
{"Action":"output","Package":"p","Test":"TestHangs","Output":"    waits\n"}
{"Action":"output","Package":"p","Test":"TestDies","Output":"panic: x\n"}
{"Action":"output","Package":"p","Test":"TestLast","Output":"    said\n"}
{"Action":"output","Package":"p","Test":"TestLast","Output":"--- PASS: TestLast (0.30s)\n"}
{"Action":"output","Package":"p","Test":"TestLast","Output":"panic: test timed out after 1s\n"}
{"Action":"pass","Package":"p","Test":"TestLast"}
{"Action":"output","Package":"p","Output":"PASS\n"}
{"Action":"output","Package":"p","Output":"FAIL\tp\t0.1s\n"}
{"Action":"fail","Package":"p"}
{"ImportPath":"q","Action":"build-output","Output":"q.go:1: no\n"}
`
	out := &bytes.Buffer{}
	p := printer{out, map[[2]string][]string{}}
	if err := events(strings.NewReader(log), p.take); err != nil {
		t.Fatal(err)
	}
	want := "    wrong\n--- FAIL: TestBad\nFAIL\tp\t0.1s\npanic: x\n    waits\npanic: test timed out after 1s\nq.go:1: no\n"
	if out.String() != want {
		t.Errorf("(-want +got):\n%s", cmp.Diff(want, out.String()))
	}
}
