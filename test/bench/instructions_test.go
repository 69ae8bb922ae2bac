package main

import "testing"

// TestInstructions: a tenth more than is recorded is too much, and so is what is not recorded.
func TestInstructions(t *testing.T) {
	t.Parallel()
	was := Instructions{Arch: "amd64", Each: []Instruction{{"a", 1000}, {"b", 1000}}}
	for _, c := range []struct {
		now  Instructions
		want string // "" means that it is let pass
	}{
		{Instructions{Arch: "amd64", Each: []Instruction{{"a", 1100}, {"b", 500}}}, ""},
		{Instructions{Arch: "amd64", Each: []Instruction{{"a", 1101}, {"b", 500}}}, "a: 1,101 instructions, 1,000 are recorded"},
		{Instructions{Arch: "amd64", Each: []Instruction{{"a", 1000}}}, "b: it was not counted"},
		{Instructions{Arch: "amd64", Each: []Instruction{{"a", 1000}, {"b", 1000}, {"c", 1}}}, "c: nothing is recorded"},
		{Instructions{Arch: "arm64", Each: was.Each}, "what is recorded is of amd64, and this is arm64"},
	} {
		got := ""
		if err := c.now.more(was); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%+v: %q, want %q", c.now, got, c.want)
		}
	}
}
