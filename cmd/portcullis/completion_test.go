package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMain is also the program that the shells ask, where it is called by its name.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "portcullis" {
		main()
	}
	os.Exit(m.Run())
}

// shells type a line into the real shell and return what it offers: the words for bash and
// fish, for zsh what it shows on a terminal when the tabulator is pressed. $FILE is what the
// shell read from us, $LINE the line.
var shells = map[string]string{
	"bash": `source "$FILE"; set -f; IFS=' ='; words=($LINE); unset IFS
		COMP_WORDS=(); for w in ${LINE//=/ = }; do COMP_WORDS+=("$w"); done
		[ "${LINE%[ =]}" = "$LINE" ] || [ "${LINE%=}" != "$LINE" ] || COMP_WORDS+=("")
		COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); compopt() { :; }
		_portcullis; printf '%s\n' "${COMPREPLY[@]}"`,
	"fish": `source $FILE; complete -C "$LINE"`,
	"zsh": `zmodload zsh/zpty; zpty c zsh -f -i
		zpty -w c "PS1=; autoload -Uz compinit; compinit -D -u; source $FILE; zstyle ':completion:*' list-prompt ''; echo ready-\$((1+1))"
		zpty -r -m c out '*ready-2*'; zpty -w -n c "$LINE"$'\t\t'; zpty -r -m c out "$WANT"; print -r -- "$out"`,
}

// installed are the files that each shell finds by itself, as `make install` places them.
var installed = map[string]string{
	"bash": "bash-completion/completions/portcullis", "zsh": "zsh/site-functions/_portcullis", "fish": "fish/vendor_completions.d/portcullis.fish",
}

// TestCompletionInstalled: `make install` places what the command prints.
func TestCompletionInstalled(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	install := exec.Command("make", "-s", "-C", "../..", "install", "BIN="+self, "DESTDIR="+root, "PREFIX=/usr")
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for shell, file := range installed {
		source := filepath.Join("../../etc/completion", filepath.Base(file))
		_, want, _ := call(t, "completion", shell)
		if *update {
			if err := os.WriteFile(source, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(filepath.Join(root, "usr/share", file)); err != nil || string(got) != want {
			t.Errorf("%s gets %q, %v", shell, got, err)
		}
	}
}

// described is what zsh and fish say of a word in TestCompletion.
var described = map[string]string{"482913": "udp port 3074 of 192.168.77.9, xbox, a"}

// TestCompletion: bash, zsh and fish complete commands, options, and the words and files that
// are values, the daemon's among them.
func TestCompletion(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(self, filepath.Join(dir, "portcullis")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "gateway.toml"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	daemon := shower(t)
	for shell, script := range shells {
		program, err := exec.LookPath(shell)
		if err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatalf("%v; test/install brings it", err)
			}
			t.Logf("%v; test/install brings it", err)
			continue
		}
		_, text, _ := call(t, "completion", shell)
		file := filepath.Join(dir, "of."+shell)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		lines := map[string]string{
			"portcullis --json sta": "status", "portcullis check --config ga": "gateway.toml",
			"portcullis approve --config " + daemon + " ": "482913",
		}
		if shell == "bash" { // the others take a second to begin
			lines["portcullis list --cl"], lines["portcullis list --sort ta"] = "--client", "target"
			lines["portcullis import x ga"] = "gateway.toml"
			lines["portcullis --config="+daemon+" delete 7"] = "7"
			lines["portcullis --config="+daemon+" list --mac "] = "" // what has a colon bash would take for several words
		}
		for line, want := range lines {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			cmd := exec.CommandContext(ctx, program, "-c", script)
			typed := line[strings.LastIndex(line, " ")+1:]
			cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "FILE="+file, "LINE="+line, "HOME="+dir, "TERM=dumb",
				"XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir, "WANT=*"+typed+"*"+strings.TrimPrefix(want, typed)+"*"+described[want]+"*")
			cmd.Dir = dir
			out, err := cmd.CombinedOutput()
			cancel()
			first, _, _ := strings.Cut(string(out), "\n")
			word, does, _ := strings.Cut(first, "\t")
			if shell != "zsh" && word != want || shell == "fish" && !strings.HasPrefix(does, described[want]) || err != nil {
				t.Errorf("%s offers %q for %q, want %q: %v", shell, out, line, want, err)
			}
		}
	}
}
