package policy_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"portcullis/portmap"
)

// TestDocumentedTiers: docs/abuse-cases.md lists the ports that these tests do.
func TestDocumentedTiers(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/abuse-cases.md")
	if err != nil {
		t.Fatal(err)
	}
	_, lists, _ := strings.Cut(string(text), "\nTier 0:\n")
	zero, one, _ := strings.Cut(lists, "\nTier 1 is ")
	one, _, _ = strings.Cut(one, "\nConsoles ")
	for name, c := range map[string]struct {
		document string
		want     []row
	}{"Tier 0": {zero, tier0}, "Tier 1": {one, tier1}} {
		if diff := cmp.Diff(expand(t, c.want), expand(t, documented(t, c.document))); diff != "" {
			t.Errorf("%s (-want +documented):\n%s", name, diff)
		}
	}
}

// documented reads the second column of a table: "TCP 593, 600-602; UDP 67; 80", the
// last for both.
func documented(t *testing.T, table string) (rows []row) {
	t.Helper()
	for _, line := range strings.Split(table, "\n") {
		cells := strings.Split(line, "|")
		if len(cells) != 4 || strings.HasPrefix(cells[1], "---") || strings.TrimSpace(cells[2]) == "ports" {
			continue
		}
		for _, part := range strings.Split(cells[2], ";") {
			r := row{on: both()}
			part = strings.TrimSpace(part)
			if rest, ok := strings.CutPrefix(part, "TCP and UDP "); ok {
				part = rest
			} else if rest, ok := strings.CutPrefix(part, "TCP "); ok {
				part, r.on = rest, []portmap.Transport{tcp}
			} else if rest, ok := strings.CutPrefix(part, "UDP "); ok {
				part, r.on = rest, []portmap.Transport{udp}
			}
			for _, field := range strings.Split(part, ", ") {
				var first, last uint16
				if n, err := fmt.Sscanf(field, "%d-%d", &first, &last); n == 1 {
					last = first
				} else if err != nil {
					t.Fatalf("%q: %v", field, err)
				}
				r.ports = append(r.ports, span(first, last))
			}
			rows = append(rows, r)
		}
	}
	return rows
}
