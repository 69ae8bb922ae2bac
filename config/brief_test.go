package config_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"portcullis/config"
)

// TestBrief: what differs from the default is written, with each comment at its place, and
// is read as it was meant, whatever the comments say.
func TestBrief(t *testing.T) {
	t.Parallel()
	c, err := config.Parse("c.toml", []byte("[lan]\ninterfaces = [\"br-lan\"]\n[[rule]]\nname = \"a\\\"b\"\naction = \"deny\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	got := string(config.Brief(c, map[string][]string{
		"": {"from\n[lan]\x1b\xff"}, "lan.interfaces": {"one", "two"}, "rule[0]": {"of the rule"},
		"wan.interface": {"as it is by default"}, "rule[2]": {"b"}, "rule[1]": {"a"},
	}))
	const want = `# from?[lan]??
# a
# b

[lan]
# one
# two
interfaces = ["br-lan"]

[wan]
# as it is by default
interface = ""

# of the rule
[[rule]]
name = "a\"b"
action = "deny"
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	again, err := config.Parse("again.toml", []byte(got))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(config.Effective(c)), string(config.Effective(again))); diff != "" {
		t.Errorf("-meant +read:\n%s", diff)
	}
}
