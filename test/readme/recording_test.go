package readme

import (
	"context"
	"fmt"
	"html"
	"os"
	"strings"
	"testing"
	"time"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// etcOf gives the shell an /etc with what programs look for there, to write to.
const etcOf = `mkdir /run/e && cp /etc/passwd /etc/group /etc/nsswitch.conf /run/e && mount -t tmpfs none /etc && cp /run/e/* /etc && mkdir /etc/portcullis`

// heading is a line of the recording that says what happens elsewhere.
func heading(text string) string { return "# " + text }

// record plays how a console gets what was refused to it, and returns what the owner sees.
func record(t *testing.T) (lines []string) {
	t.Helper()
	n, err := lab.New("console")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	sh := newShell(t, n.Gateway)
	must := func(cmd string) string {
		out, status := sh.run(cmd)
		if status != "0" {
			t.Fatalf("$ %s: exit %s\n%s", cmd, status, out)
		}
		return out
	}
	show := func(cmd string) string {
		out := must(cmd)
		lines = append(lines, "$ "+cmd)
		lines = append(lines, strings.Split(strings.TrimSuffix(out, "\n"), "\n")...)
		return out
	}
	must(etcOf + ` && PATH=$PWD/bin:$PATH && echo '# rules' >/etc/portcullis/portcullis.toml`)
	must("portcullis run >/run/log 2>&1 & daemon=$!; until grep -q msg=ready /run/log; do kill -0 $daemon || break; done")
	ask := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		c := lab.NewControlPoint(n.Host("console"))
		if err := c.Find(ctx, lab.IGD1, lab.WANIP1); err != nil {
			log, _ := sh.run("cat /run/log")
			t.Fatal(err, log)
		}
		return c.Add(ctx, lab.Mapping{External: 8080, Internal: 8080, Protocol: "TCP", Description: "Party chat", Lease: 2 * time.Hour})
	}
	lines = append(lines, heading("A console asks for port 8080, which nothing opens without a rule."))
	if ask() == nil {
		t.Fatal("it is not refused")
	}
	text := show("portcullis refused")
	_, rule, found := strings.Cut(text, "[[rule]]")
	rule, _, _ = strings.Cut(rule, "\n  then")
	if !found {
		t.Fatalf("there is no rule in\n%s", text)
	}
	pasted := "[[rule]]" + rule
	must("cat >>/etc/portcullis/portcullis.toml <<'END'\n" + pasted + "\nEND\ntrue")
	lines = append(lines, heading("Its owner pastes the rule."))
	show("portcullis reload")
	lines = append(lines, heading("The console asks again, and a player on the Internet connects."))
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	if arrived := (&testrig.Rig{Network: n}).Passes(t, "TCP", 8080, n.Host("console"), 8080); !arrived {
		t.Fatal("the player does not get through")
	}
	show("portcullis list")
	must("kill -INT $daemon; wait $daemon")
	return lines
}

// TestRecording: docs/recording.svg shows what the program prints today.
func TestRecording(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root")
		}
		t.Skip("needs root for mounts in a namespace of its own")
	}
	same(t, "docs/recording.svg", screen(record(t)))
}

// screen draws a terminal in which the lines appear one after the other.
func screen(lines []string) string {
	const left, top, high, wide = 16, 52, 19, 7.25
	columns := 0
	for _, l := range lines {
		columns = max(columns, len([]rune(l)))
	}
	w, h := int(2*left+wide*float64(columns)), top+high*len(lines)
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-labelledby="t">
<title id="t">A terminal: a console is refused, its owner pastes the rule that is printed, and the console plays</title>
<style>
text { font: 12px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #c9d1d9; white-space: pre; animation: show 1ms both }
.said { fill: #8b949e; font-style: italic } .typed { fill: #fff; font-weight: bold } .no { fill: #ff7b72 }
@keyframes show { from { opacity: 0 } to { opacity: 1 } }
@media (prefers-reduced-motion: reduce) { text { animation: none } }
</style>
<rect width="%d" height="%d" rx="8" fill="#0d1117"/>
<circle cx="20" cy="18" r="5" fill="#ff5f57"/><circle cx="38" cy="18" r="5" fill="#febc2e"/><circle cx="56" cy="18" r="5" fill="#28c840"/>
`, w, h, w, h)
	at := 500 * time.Millisecond
	for i, l := range lines {
		class := ""
		switch {
		case strings.HasPrefix(l, "# "):
			class, l, at = ` class="said"`, l[2:], at+time.Second
		case strings.HasPrefix(l, "$ "):
			class, at = ` class="typed"`, at+time.Second
		case strings.HasPrefix(l, "  refused:"):
			class = ` class="no"`
		}
		at += 150 * time.Millisecond
		if l != "" {
			fmt.Fprintf(&b, "<text x=\"%d\" y=\"%d\"%s style=\"animation-delay: %.2fs\">%s</text>\n", left, top+high*i, class, at.Seconds(), html.EscapeString(l))
		}
	}
	b.WriteString("</svg>\n")
	return b.String()
}
