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
		{"list --config ", "FILE of list"},
		{"list --config=", "FILE of list"},
		{"list --config = ", "FILE of list"}, // as bash has it
		{"list --sort ", "id port"},
		{"list --sort p", "port"},
		{"list --sort = p", "port"},
		{"--sort = port --config = f delete ", "tcp udp ID of delete"},
		{"list --sort=p", "--sort=port"},
		{"list --frob=p", ""},
		{"list ", ""},
		{"add ", "tcp udp"},
		{"add tcp ", "PORT of add tcp"},
		{"delete t", "tcp ID of delete"},
		{"delete --json ", "tcp udp ID of delete"},
		{"delete 7 ", "ID PORT of delete 7"},
		{"explain 80 ", "FILE of explain 80"},
		{"explain 80 x ", "FILE of explain 80 x"},
		{"frobnicate ", ""},
		{"help ", "run list add delete explain version help"},
		{"help list ", ""},
	} {
		words := strings.Split(c.line, " ")
		found, at := cmdline.Complete(table, words[:len(words)-1], words[len(words)-1])
		var got []string
		for _, w := range found {
			got = append(got, w.Text)
		}
		if len(at.Values) > 0 {
			got = append(append(append(got, at.Values...), "of", at.Command), at.Args...)
		}
		if text := strings.Join(got, " "); text != c.want {
			t.Errorf("%q: %s, want %s", c.line, text, c.want)
		}
	}
}
