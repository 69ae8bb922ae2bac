package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

const manPage = "../../etc/man/portcullis.8"

// TestManPage: every command is in the manual, and the manual is well-formed.
func TestManPage(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(manPage)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range commands() {
		if !strings.Contains(string(text), "\n.Cm "+c.name+"\n") || !strings.Contains(string(text), "\n.It Cm "+c.name+"\n") {
			t.Errorf("the manual lacks %q in its synopsis or its list", c.name)
		}
		for _, word := range strings.Fields(c.usage) {
			if flag, ok := strings.CutPrefix(strings.Trim(word, "[]"), "--"); ok && !strings.Contains(string(text), "Fl -"+flag) {
				t.Errorf("the manual lacks --%s of %s", flag, c.name)
			}
		}
	}
	if _, err := exec.LookPath("mandoc"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("mandoc is not installed; test/install does that")
		}
		t.Skip("mandoc is not installed; test/install does that")
	}
	out, err := exec.Command("mandoc", "-Tlint", manPage).CombinedOutput()
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		if line != "" && !strings.Contains(line, "referenced manual not found") && !strings.Contains(line, "mandoc.db") {
			t.Errorf("mandoc: %s (%v)", line, err)
		}
	}
}
