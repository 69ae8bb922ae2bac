package config_test

import (
	"testing"

	"portcullis/config"
)

// TestLineOf: the line of each key and element in forms of TOML that people
// write.
func TestLineOf(t *testing.T) {
	t.Parallel()
	const text = `# the first line
lan.interfaces = [ "a", # ]
  "b",
  """
c""", 'd' ]
[upnp] # [x]
http_port = 1 # = 2
friendly_name = """
[log]
"""
"events" = false
[[rule]]
name = "one"
clients = [["x"], { y = 1 },
  "z"]
[[rule]]

  clients = [
  ]
  name = "two"
[log]
level = "info"`
	for path, want := range map[string]int{
		"lan":               2,
		"lan.interfaces":    2,
		"lan.interfaces#0":  2,
		"lan.interfaces#1":  3,
		"lan.interfaces#2":  4,
		"lan.interfaces#3":  5,
		"upnp":              6,
		"upnp.http_port":    7,
		"upnp.events":       11,
		"rule":              12,
		"rule[0]":           12,
		"rule[0].name":      13,
		"rule[0].clients#0": 14,
		"rule[0].clients#1": 14,
		"rule[0].clients#2": 15,
		"rule[1]":           16,
		"rule[1].clients":   18,
		"rule[1].name":      20,
		"log":               21,
		"log.level":         22,
	} {
		if got, ok := config.LineOf(text, path); !ok || got != want {
			t.Errorf("%s: line %d (%t), want %d", path, got, ok, want)
		}
	}
	for _, path := range []string{"rule[2]", "rule[1].clients#0", "lan.interfaces#4", "log.format"} {
		if got, ok := config.LineOf(text, path); ok {
			t.Errorf("%s: line %d, want none", path, got)
		}
	}
}
