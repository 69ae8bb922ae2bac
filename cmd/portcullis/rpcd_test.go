package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"portcullis/internal/cmdline"
	"portcullis/internal/control"
	ourjson "portcullis/internal/json"
)

// TestRPCDArguments: what comes by ubus is read as its signature says; the session that rpcd
// adds is nobody's argument.
func TestRPCDArguments(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]rpcArguments{
		"":    {},
		" \n": {},
		`{}`:  {},
		`{"id":7,"for":"2h","device":true,"ubus_rpc_session":"00112233445566778899aabbccddeeff"}`: {ID: "7", For: "2h", Device: true},
		`{"id":"9007199254740991"}`: {ID: "9007199254740991"},
	} {
		m := methodNamed(t, "approve")
		if a, err := m.read(strings.NewReader(text)); err != nil || a != want {
			t.Errorf("%q is %+v, %v", text, a, err)
		}
	}
	for text, want := range map[string]string{
		`[]`:                      "not one JSON object",
		`null`:                    "not one JSON object",
		`{"id":7}{"id":8}`:        "not one JSON object",
		`{"id":7} x`:              "not one JSON object",
		`{"id":{}}`:               "another type",
		`{"id":"$(reboot)"}`:      "another type",
		`{"id":7,"device":"yes"}`: "another type",
		`{"id":7,"all":true}`:     `approve has no argument "all"`,
		`{"id":7,"for":"` + strings.Repeat("x", 5000) + `"}`: "not one JSON object of at most 4096 bytes",
		`{"id":7`:                     "not one JSON object",
		`{"from":-1}`:                 `approve has no argument "from"`,
		`{"id":7,"ID":8,"device":[]}`: `no argument "ID"`,
	} {
		m := methodNamed(t, "approve")
		if a, err := m.read(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q is %+v, %v, want %q", text, a, err, want)
		}
	}
	list := methodNamed(t, "list")
	if _, err := list.read(strings.NewReader(`{"id":7}`)); err == nil {
		t.Error("list takes an id that it does not look at")
	}
	for text, want := range map[ourjson.Number]uint64{"7": 7, "9007199254740991": 9007199254740991, "": 0, "0": 0, "-1": 0, "7.5": 0, "1e3": 0} {
		if id, err := (&rpcArguments{ID: text}).id(); id != want || (err == nil) != (want != 0) {
			t.Errorf("id %q is %d, %v", text, id, err)
		}
	}
}

func methodNamed(t *testing.T, name string) method {
	t.Helper()
	all := methods()
	i := slices.IndexFunc(all, func(m method) bool { return m.name == name })
	if i < 0 {
		t.Fatalf("there is no method %s", name)
	}
	return all[i]
}

// TestRPCDOpen: rpcd need not close what the arguments come by.
func TestRPCDOpen(t *testing.T) {
	t.Parallel()
	in, out := io.Pipe()
	defer out.Close()
	go func() { _, _ = io.WriteString(out, `{"id":7}`) }()
	m := methodNamed(t, "delete")
	if a, err := m.read(in); err != nil || a.ID != "7" {
		t.Errorf("%+v, %v", a, err)
	}
}

// TestRPCDPage: a list of any length is had in answers that rpcd takes.
func TestRPCDPage(t *testing.T) {
	t.Parallel()
	list := make([]control.Mapping, 2000)
	for i := range list {
		list[i] = control.Mapping{ID: uint64(i), Description: strings.Repeat("\u202e", 85)}
	}
	got, asked, from := 0, 0, uint32(0)
	for more := true; more; asked++ {
		answer, err := page("mappings", list, from, nil)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		text, err := ourjson.Marshal(answer)
		if err == nil {
			err = writeJSON(&out, text)
		}
		var part struct {
			Mappings []control.Mapping
			Next     *uint32
		}
		if err != nil || json.Unmarshal(out.Bytes(), &part) != nil || out.Len() > 256<<10 {
			t.Fatalf("%v, %d bytes", err, out.Len())
		}
		for _, m := range part.Mappings {
			if m.ID != uint64(got) {
				t.Fatalf("%d follows %d others", m.ID, got)
			}
			got++
		}
		if more = part.Next != nil; more {
			from = *part.Next
		}
	}
	if got != len(list) || asked < 3 {
		t.Errorf("%d answers have %d", asked, got)
	}
	for _, from := range []uint32{1, 4294967295} {
		if answer, err := page("mappings", list[:1], from, nil); err != nil || len(answer.(map[string]any)["mappings"].([]ourjson.Raw)) != 0 {
			t.Errorf("behind the end: %v, %v", answer, err)
		}
	}
	if answer, err := page("mappings", nil, 0, errors.New("x")); err == nil {
		t.Errorf("an error is %v", answer)
	}
}

// TestRPCDFailure: what goes wrong is an answer, which rpcd has no other place for.
func TestRPCDFailure(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]string{
		&control.Refusal{Failure: control.Failure{Reason: "no-such-mapping", Error: "there is none"}}: "no-such-mapping",
		badArguments{errors.New("id is missing")}:                                                     "bad-request",
		errors.New("portcullis is not running here"):                                                  "",
	} {
		if f := failureOf(err); f.Reason != want || f.Error != err.Error() {
			t.Errorf("%v is %+v", err, f)
		}
	}
}

// TestRPCDPlugin: the file that rpcd starts does nothing but call us, with what it gets as it
// is; and who may call what is said of every method, and of no other.
func TestRPCDPlugin(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := runRPCD(context.Background(), &cmdline.Call{Args: []string{"list"}, Out: &out}); err != nil {
		t.Fatal(err)
	}
	var signatures map[string]map[string]any
	if err := json.Unmarshal(out.Bytes(), &signatures); err != nil || len(signatures) != len(methods()) {
		t.Fatalf("%v\n%s", err, &out)
	}
	var lists map[string]map[string]any
	text, err := os.ReadFile("../../etc/openwrt/acl.d/portcullis.json")
	if err == nil {
		err = json.Unmarshal(text, &lists)
	}
	if err != nil {
		t.Fatal(err)
	}
	calls := func(right string) (names []string) {
		for _, name := range lists["portcullis"][right].(map[string]any)["ubus"].(map[string]any)["portcullis"].([]any) {
			names = append(names, name.(string))
		}
		return names
	}
	read, write := calls("read"), calls("write")
	if all := slices.Sorted(slices.Values(append(slices.Clone(read), write...))); !slices.Equal(all, slices.Sorted(maps.Keys(signatures))) {
		t.Errorf("rights are for %q, methods are %q", all, slices.Sorted(maps.Keys(signatures)))
	}
	for _, name := range read {
		if delete(signatures[name], "from"); len(signatures[name]) > 0 {
			t.Errorf("%s changes something, and is among what only reads", name)
		}
	}

	dir := t.TempDir()
	plugin, err := os.ReadFile("../../etc/openwrt/rpcd/portcullis")
	if err != nil {
		t.Fatal(err)
	}
	// A stand-in of the program says what it got.
	says := "#!/bin/sh\nfor a; do printf '<%s>' \"$a\"; done; cat\n"
	script := strings.ReplaceAll(string(plugin), "/usr/sbin/portcullis", dir+"/portcullis")
	for name, text := range map[string]string{"portcullis": says, "plugin": script} {
		if err := os.WriteFile(dir+"/"+name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("sh", dir+"/plugin", "call", "$(id) x;*")
	cmd.Stdin = strings.NewReader(`{"id":7}`)
	if got, err := cmd.CombinedOutput(); err != nil || string(got) != `<rpcd><call><$(id) x;*>{"id":7}` {
		t.Errorf("it is called with %s, %v", got, err)
	}
}
