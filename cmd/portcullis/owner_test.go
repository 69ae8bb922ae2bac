package main

import (
	"strings"
	"testing"

	"portcullis/internal/control"
)

// TestStatusOfSandbox: what `status` says of the processes and what they lack.
func TestStatusOfSandbox(t *testing.T) {
	t.Parallel()
	every := strings.Split(strings.Repeat("x,", lastCapability())+"x", ",")
	front := control.Front{PID: 7, User: 8, NoNewPrivs: true, Seccomp: true}
	ended := func(n int) *control.Front {
		f := front
		f.Ended, f.LastEnd = n, "signal 9 (killed)"
		return &f
	}
	for want, s := range map[string]control.Sandbox{
		"sandbox   off: all capabilities\n":                                        {Mode: "off", Capabilities: every, Dumpable: true},
		"sandbox   off: 40 capabilities\n":                                         {Mode: "off", Capabilities: every[:40], Dumpable: true},
		"sandbox   single: CAP_NET_ADMIN, CAP_NET_RAW, not dumpable\n":             {Mode: "single", Capabilities: []string{"CAP_NET_ADMIN", "CAP_NET_RAW"}},
		"front     process 7: user 8, no capability, no new privileges, seccomp\n": {Front: &front},
		", seccomp; 1 has ended: signal 9 (killed)\n":                              {Front: ended(1)},
		", seccomp; 3 have ended, the last: signal 9 (killed)\n":                   {Front: ended(3)},
		"front     not running; 2 have ended, the last: exit status 1\n":           {Front: &control.Front{Ended: 2, LastEnd: "exit status 1"}},
		"\nmissing   Landlock: none\nmissing   front: Landlock: none\n":            {Missing: []string{"Landlock: none", "front: Landlock: none"}},
	} {
		var out strings.Builder
		if err := printStatus(&out, control.Status{Sandbox: s}); err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("%v; want %q in\n%s", err, want, &out)
		}
	}
}
