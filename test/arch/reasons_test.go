package arch

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	caseID   = `[A-L][1-9][0-9]?`
	vectorID = `(?:SSDP|DESC|SOAP|GENA|PMP|PCP|ODD|CHOICE)-[1-9][0-9]?`
)

var (
	anyID = regexp.MustCompile(`\b(?:` + vectorID + `|` + caseID + `)\b`)
	// A test's name may have several, with blanks or slashes between them.
	leadingIDs = regexp.MustCompile(`^(?:(?:` + vectorID + `|` + caseID + `)(?:[ /:,]+|$))+`)
	rowOf      = regexp.MustCompile(`(?m)^\| (` + vectorID + `|` + caseID + `) \|.*$`)
	testName   = regexp.MustCompile("`(Test\\w+)`")
	testFunc   = regexp.MustCompile(`(?m)^func (Test\w+)\(`)
)

// elsewhere are the ways to cite what is not in the repository.
var elsewhere = regexp.MustCompile(`(?i)\bdigest(?:'s|,|:)? (?:section|vector|[0-9])|\b(?:design|style)(?:\.md|:| section| [0-9])|` +
	`\babuse-cases(?:\.md)?,? section|\bissue [0-9]|\bfield notes?\b|\bfaults? [A-Z]?[0-9]|\bpublic report\b|` +
	`\b(?:spec-digest|gateway-ecosystem|incumbent|faults|field-notes|review|packaging|brief)\.md\b`)

// source is one text of the repository: its prose, and for Go the comments; for tests
// also the names of their cases.
type source struct {
	path, prose, names string
}

// sources are the tracked files with words in them.
func sources(t *testing.T) (all []source) {
	t.Helper()
	cmd := exec.Command("git", "ls-files", "-z")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		text, err := os.ReadFile(filepath.Join("../..", path))
		if os.IsNotExist(err) { // deleted, and not committed yet
			continue
		}
		switch {
		case err != nil:
			t.Fatal(err)
		case bytes.IndexByte(text, 0) >= 0: // a picture
		case strings.Contains(path, "testdata/"), strings.Contains(path, "package-lock"), strings.HasSuffix(path, ".sum"), strings.HasSuffix(path, ".svg"):
		case strings.HasSuffix(path, ".go"):
			all = append(all, goSource(t, path, text))
		default:
			all = append(all, source{path: path, prose: string(text)})
		}
	}
	return all
}

func goSource(t *testing.T, path string, text []byte) source {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, text, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	s := source{path: path}
	for _, c := range file.Comments {
		s.prose += c.Text() + "\n"
	}
	if !strings.HasSuffix(path, "_test.go") && !forTests(path) {
		return s
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if value, err := strconv.Unquote(lit.Value); err == nil {
				s.names += leadingIDs.FindString(value) + "\n"
			}
		}
		return true
	})
	return s
}

// forTests reports whether a file is of a package that only tests import.
func forTests(path string) bool {
	return slices.ContainsFunc([]string{"firewall/fwtest/", "firewall/homenet/", "test/"}, func(dir string) bool {
		return strings.Contains("/"+path, "/"+dir)
	})
}

// documented are the rows of the two documents, by their ids.
func documented(t *testing.T) map[string]string {
	t.Helper()
	rows := map[string]string{}
	for _, doc := range []string{"abuse-cases.md", "protocol-notes.md"} {
		text, err := os.ReadFile("../../docs/" + doc)
		if err != nil {
			t.Fatal(err)
		}
		found := rowOf.FindAllStringSubmatch(string(text), -1)
		if len(found) < 80 {
			t.Errorf("%s has %d rows", doc, len(found))
		}
		for _, m := range found {
			if rows[m[1]] != "" {
				t.Errorf("%s has %s twice", doc, m[1])
			}
			rows[m[1]] = m[0]
		}
	}
	return rows
}

// TestReasons: every id in a comment, the name of a test case or a document is a row of
// docs/abuse-cases.md or docs/protocol-notes.md; every row is in a test; and nothing
// cites what the repository does not have.
func TestReasons(t *testing.T) {
	t.Parallel()
	rows, shown := documented(t), map[string]bool{}
	for _, s := range sources(t) {
		test := strings.HasSuffix(s.path, "_test.go") || strings.HasSuffix(s.path, ".go") && forTests(s.path)
		for _, id := range anyID.FindAllString(s.prose+s.names, -1) {
			if rows[id] == "" {
				t.Errorf("%s: %s is in neither docs/abuse-cases.md nor docs/protocol-notes.md", s.path, id)
			}
			shown[id] = shown[id] || test
		}
		if cited := elsewhere.FindString(s.prose); cited != "" {
			t.Errorf("%s: %q cites what is not in the repository: say the reason, or cite an RFC or an id of docs/", s.path, cited)
		}
	}
	for id := range rows {
		if !shown[id] {
			t.Errorf("docs/: no test has %s in a comment or the name of a case", id)
		}
	}
}

// TestCasesAreShown: the tests that docs/abuse-cases.md names exist, and each case is
// named where they are.
func TestCasesAreShown(t *testing.T) {
	t.Parallel()
	where := map[string][]source{}
	var shared string // by the tests of both backends
	for _, s := range sources(t) {
		switch {
		case strings.HasSuffix(s.path, "_test.go"):
			text, err := os.ReadFile(filepath.Join("../..", s.path))
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range testFunc.FindAllSubmatch(text, -1) {
				where[string(m[1])] = append(where[string(m[1])], s)
			}
		case forTests(s.path):
			shared += s.prose + s.names
		}
	}
	for id, row := range documented(t) {
		if !regexp.MustCompile(`^` + caseID + `$`).MatchString(id) {
			continue
		}
		word, named := regexp.MustCompile(`\b`+id+`\b`), shared
		tests := testName.FindAllStringSubmatch(row, -1)
		for _, m := range tests {
			if len(where[m[1]]) == 0 {
				t.Errorf("%s: there is no %s", id, m[1])
			}
			for _, s := range where[m[1]] {
				named += s.prose + s.names
			}
		}
		if len(tests) == 0 || !word.MatchString(named) {
			t.Errorf("%s: none of its tests names it: %s", id, row)
		}
	}
}

var fileName = regexp.MustCompile(`(?:^|[\s("'` + "`" + `])((?:[a-z0-9_-]+/)*[a-z0-9_-]+\.(?:go|md|nft))\b`)

// TestNamedFiles: a file that a comment or a document names is there: in the same package,
// or by its path from the top. A document may leave out the package.
func TestNamedFiles(t *testing.T) {
	t.Parallel()
	all := sources(t)
	exists := func(s source, name string) bool {
		return slices.ContainsFunc(all, func(o source) bool {
			return o.path == name || o.path == filepath.Join(filepath.Dir(s.path), name) ||
				filepath.Base(o.path) == name && strings.HasSuffix(s.path, ".md") // beside its package
		})
	}
	for _, s := range all {
		if s.path == "CHANGELOG.md" { // each line is of its time
			continue
		}
		for _, m := range fileName.FindAllStringSubmatch(s.prose, -1) {
			if m[1] != "doc.go" && !exists(s, m[1]) {
				t.Errorf("%s names %s, which is not there", s.path, m[1])
			}
		}
	}
}
