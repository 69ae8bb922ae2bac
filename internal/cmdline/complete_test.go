package cmdline_test

import (
	"strings"
	"testing"

	"portcullis/internal/cmdline"
)

func TestComplete(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ line, want string }{
		{"", "run list add delete explain version help"},
		{"l", "list"},
		{"--json l", "list"},
		{"x", ""},
		{"-", "--config --json --sort --all"},
		{"list -", "--config --json --sort"},
		{"list --json --", "--config --sort"},
		{"list --c", "--config"},
		{"list --config ", ":files"},
		{"list --config=", ":files"},
		{"list --config = ", ":files"}, // as bash has it
		{"list --sort ", "id port"},
		{"list --sort p", "port"},
		{"list --sort = p", "port"},
		{"list --sort=p", "--sort=port"},
		{"list --frob=p", ""},
		{"list ", ""},
		{"add ", "tcp udp"},
		{"add tcp ", ""},
		{"delete t", "tcp"},
		{"delete --json ", "tcp udp"},
		{"explain 80 ", ":files"},
		{"explain 80 x ", ":files"},
		{"frobnicate ", ""},
		{"help ", "run list add delete explain version help"},
		{"help list ", ""},
	} {
		words := strings.Split(c.line, " ")
		found, files := cmdline.Complete(table, words[:len(words)-1], words[len(words)-1])
		var got []string
		for _, w := range found {
			got = append(got, w.Text)
		}
		if files {
			got = append(got, ":files")
		}
		if text := strings.Join(got, " "); text != c.want {
			t.Errorf("%q: %s, want %s", c.line, text, c.want)
		}
	}
}
