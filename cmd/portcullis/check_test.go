package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestCheckWarns: what will not work is on standard error and no error; JSON has all of it.
func TestCheckWarns(t *testing.T) {
	t.Parallel()
	path := file(t, "[control]\ngroup = \"nobody-has-this\"\n[[rule]]\nname = \"web\"\naction = \"allow\"\nexternal_ports = [\"443\"]\n")
	code, out, errs := call(t, "check", "--config", path)
	for _, want := range []string{path + ":2: warning: control.group: ", path + ":6: warning: the rule \"web\" names 443 outside only: "} {
		if !strings.Contains(errs, want) {
			t.Errorf("says %q, want %q", errs, want)
		}
	}
	if code != 0 || !strings.Contains(out, "http_port = 5000") || strings.Contains(out, "warning") {
		t.Errorf("exit %d, prints %q", code, out)
	}
	if code, out, _ = call(t, "check", "--live", "--config", path); code != 0 || !strings.Contains(out, "\nthe firewall is ") || strings.Contains(out, "http_port") {
		t.Errorf("exit %d, live %q", code, out)
	}
	code, out, errs = call(t, "check", "--json", "--live", "--config", path)
	var got checked
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != 0 || errs != "" {
		t.Fatalf("exit %d, %v: %s%s", code, err, out, errs)
	}
	if len(got.Errors) != 0 || len(got.Warnings) != 2 || got.Warnings[1].Line != 6 || got.Warnings[1].Remedy == "" || got.Live == nil || got.File != path {
		t.Errorf("prints %s", out)
	}
}

// TestCheckJSONErrors: the errors of a file have their lines, and the exit code is the same.
func TestCheckJSONErrors(t *testing.T) {
	t.Parallel()
	code, out, errs := call(t, "check", "--json", "--config", file(t, "[log]\nlevel = \"x\"\nformat = \"y\"\n"))
	var got checked
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != 1 || errs != "" {
		t.Fatalf("exit %d, %v: %s%s", code, err, out, errs)
	}
	if len(got.Errors) != 2 || got.Errors[1].Line != 3 || !strings.HasPrefix(got.Errors[1].What, `log.format: "y" is unknown`) || !strings.Contains(out, `"warnings": []`) {
		t.Errorf("prints %s", out)
	}
	if code, out, _ = call(t, "check", "--json", "--config", "/nowhere/x.toml"); code != 1 || !strings.Contains(out, "no such file") {
		t.Errorf("exit %d, prints %s", code, out)
	}
}
