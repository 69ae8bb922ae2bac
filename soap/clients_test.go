package soap_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"portcullis/soap"
)

// call is a request as a file of testdata has it.
type call struct {
	name, header string
	body         []byte
	want         string // what it means, a line for the action and one for each argument
}

// calls reads the requests of testdata: the habits of control points, one a file.
func calls(t testing.TB) []call {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no requests in testdata: %v", err)
	}
	var all []call
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		part := make(map[string][]byte)
		for _, f := range archive.Files {
			part[f.Name] = f.Data
		}
		if len(part) != 3 || part["soapaction"] == nil || part["body"] == nil || part["want"] == nil {
			t.Fatalf("%s has not the three parts soapaction, body and want", file)
		}
		all = append(all, call{
			name:   strings.TrimSuffix(filepath.Base(file), ".txtar"),
			header: strings.TrimSuffix(string(part["soapaction"]), "\n"),
			body:   part["body"], want: string(part["want"]),
		})
	}
	return all
}

func describe(a *soap.Action) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s\n", a.ServiceType, a.Name)
	for _, arg := range a.Args() {
		fmt.Fprintf(&b, "%s %q\n", arg.Name, arg.Value)
	}
	return b.String()
}

// TestClients: what control points send is understood, whatever the stack that writes
// it (SOAP-34, SOAP-35).
func TestClients(t *testing.T) {
	t.Parallel()
	for _, c := range calls(t) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a, err := soap.Decode(c.header, c.body)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, describe(a)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestTruncated cuts each request at every byte (abuse case G4): no part of it is
// a request but the whole.
func TestTruncated(t *testing.T) {
	t.Parallel()
	for _, c := range append(calls(t), call{name: "plain", header: header, body: []byte(plain)}) {
		t.Run("G4/"+c.name, func(t *testing.T) {
			t.Parallel()
			whole := strings.TrimRight(string(c.body), "\r\n")
			for i := range len(whole) {
				if a, err := soap.Decode(c.header, []byte(whole[:i])); err == nil {
					t.Fatalf("the first %d bytes decode to %+v", i, a)
				}
			}
			if _, err := soap.Decode(c.header, []byte(whole)); err != nil {
				t.Errorf("the whole: %v", err)
			}
		})
	}
}
