package main

import (
	"errors"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const manPage = "../../etc/man/portcullis.8"

// mandoc runs it, and returns what it prints.
func mandoc(t *testing.T, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("mandoc"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("mandoc is not installed; test/install does that")
		}
		t.Skip("mandoc is not installed; test/install does that")
	}
	out, err := exec.Command("mandoc", args...).CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out)
}

var (
	overstruck = regexp.MustCompile(`.\x08`)
	macro      = regexp.MustCompile(`(?:^|\s)(?:Ar|Bq|Cm|Dl|Em|Fl|Ic|Li|Nm|Ns|Op|Pa|Po|Pq|Ql|Qq|Xr) \S+`)
)

// rendered is a manual as its reader sees it.
func rendered(t *testing.T, page string) string {
	t.Helper()
	return overstruck.ReplaceAllString(mandoc(t, "-Tascii", "-Owidth=200", page), "")
}

// TestManPage: the synopsis that the reader sees has every form of every command, as
// "portcullis help COMMAND" prints it; each command and each option has its description; and
// mandoc has no complaint.
func TestManPage(t *testing.T) {
	t.Parallel()
	_, synopsis, _ := strings.Cut(rendered(t, manPage), "\nSYNOPSIS\n")
	synopsis, text, _ := strings.Cut(synopsis, "\nDESCRIPTION\n")
	var got, want []string
	for _, line := range strings.Split(strings.TrimSpace(synopsis), "\n") {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	for _, c := range commands() {
		for _, line := range c.Usage() {
			want = append(want, strings.ReplaceAll(strings.ToLower(line), "...", " ..."))
		}
		if !regexp.MustCompile(`\n     ` + c.Name + ` +\S`).MatchString(text) {
			t.Errorf("the manual does not describe %q", c.Name)
		}
		for _, o := range c.Options {
			if !strings.Contains(text, "\n     "+strings.ToLower(o.String())+" ") && !strings.Contains(text, "\n     "+strings.ToLower(o.String())+"\n") {
				t.Errorf("the manual does not describe %q", o)
			}
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the synopsis is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, line := range strings.Split(strings.TrimSpace(mandoc(t, "-Tlint", manPage)), "\n") {
		if line != "" && !strings.Contains(line, "referenced manual not found") && !strings.Contains(line, "mandoc.db") {
			t.Errorf("mandoc: %s", line)
		}
	}
}

// TestManualsRender: no macro is left in what the reader of a manual sees.
func TestManualsRender(t *testing.T) {
	t.Parallel()
	for _, page := range []string{manPage, "../../etc/man/portcullis.toml.5"} {
		if left := macro.FindAllString(rendered(t, page), -1); left != nil {
			t.Errorf("%s shows %q", page, left)
		}
	}
}
