package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
)

// event is a line of go test -json (go doc test2json).
type event struct {
	Action  string
	Package string  `json:",omitempty"`
	Test    string  `json:",omitempty"`
	Output  string  `json:",omitempty"`
	Elapsed float64 `json:",omitempty"` // seconds, of what has ended
}

// slow is how long a test takes that is named even where it passes: the whole run has a limit.
const slow = 20

// goTest runs go test with arguments and hands each event to f. Its error is that tests
// failed.
func goTest(args []string, f func(event)) error {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	if err := events(out, f); err != nil {
		_, _ = io.Copy(io.Discard, out) // so that it ends, which says more
		_ = cmd.Wait()
		return err
	}
	return cmd.Wait()
}

// events reads them one by one.
func events(r io.Reader, f func(event)) error {
	for dec := json.NewDecoder(r); ; {
		var e event
		switch err := dec.Decode(&e); err {
		case nil:
			f(e)
		case io.EOF:
			return nil
		default:
			return fmt.Errorf("what go test tells: %w", err)
		}
	}
}

// recorder writes down the events that a case depends on.
type recorder struct {
	file *os.File
	w    *bufio.Writer
	err  error
}

func record(path string) (*recorder, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	return &recorder{file: f, w: bufio.NewWriter(f)}, nil
}

func (r *recorder) take(e event) {
	if r.err != nil || e.Test == "" || e.Action != "pass" && e.Action != "fail" && e.Action != "skip" && !proved.MatchString(e.Output) {
		return
	}
	r.err = json.NewEncoder(r.w).Encode(e)
}

func (r *recorder) close() error {
	if r.err == nil {
		r.err = r.w.Flush()
	}
	if err := r.file.Close(); r.err == nil {
		r.err = err
	}
	return r.err
}

// printer shows events as go test shows a run: the packages, and the log of what failed.
type printer struct {
	w    io.Writer
	kept map[[2]string][]string // by package and test, until it, or the package, has passed
}

func (p *printer) take(e event) {
	key := [2]string{e.Package, e.Test}
	switch {
	case e.Action == "output" && e.Test == "" && e.Output == "PASS\n":
	case e.Action == "build-output", e.Action == "output" && e.Test == "":
		fmt.Fprint(p.w, e.Output)
	case e.Action == "output" && !strings.HasPrefix(e.Output, "=== "):
		p.kept[key] = append(p.kept[key], e.Output)
	case e.Action == "pass" && e.Test != "", e.Action == "skip":
		if e.Elapsed >= slow && !strings.Contains(e.Test, "/") {
			fmt.Fprintf(p.w, "%s took %.0f s\n", e.Test, e.Elapsed)
		}
		p.passed(key)
	case e.Action == "fail" && e.Test != "":
		p.show(key)
	case e.Action == "fail":
		for _, key := range p.of(e.Package) { // was running when the process died
			p.show(key)
		}
	case e.Action == "pass":
		for _, key := range p.of(e.Package) {
			delete(p.kept, key)
		}
	}
}

// passed forgets what a test has said, but not what came after its end: whatever the process
// prints is said to be of the test that was named last, a panic too.
func (p *printer) passed(key [2]string) {
	all := p.kept[key]
	end := slices.IndexFunc(all, func(line string) bool { return ended.MatchString(line) })
	if end < 0 || end+1 == len(all) {
		delete(p.kept, key)
		return
	}
	p.kept[key] = all[end+1:]
}

// ended is the last line of a test that has not failed.
var ended = regexp.MustCompile(`^ *--- (PASS|SKIP): `)

// of returns the tests of a package of which there is something.
func (p *printer) of(name string) (keys [][2]string) {
	for key := range p.kept {
		if key[0] == name {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b [2]string) int { return strings.Compare(a[1], b[1]) })
	return keys
}

func (p *printer) show(key [2]string) {
	fmt.Fprint(p.w, strings.Join(p.kept[key], ""))
	delete(p.kept, key)
}

// outcome is what became of a test of the top level, with all that it has below it.
type outcome struct {
	state string // pass, fail, skip: the worst of all
	ended bool   // it has come to its end
}

// proof is one comparison of the world before and after.
type proof struct {
	mappings, elements, flows, journal int // how many there were, as many as before
}

// results is what tests have shown.
type results struct {
	tests  map[[2]string]outcome   // by package and test
	proofs map[[2]string][]located // the same
}

// located is a proof and the cases that it is for.
type located struct {
	proof
	cases []string
}

var (
	proved  = regexp.MustCompile(`unchanged: mappings (\d+)=(\d+), elements (\d+)=(\d+), flows (\d+)=(\d+), journal (\d+)=(\d+) ([A-Z0-9 ]*)\n`)
	leading = regexp.MustCompile(`^([A-Z][1-9][0-9]?)(?:[_:,]|$)`)
)

func newResults() *results {
	return &results{tests: map[[2]string]outcome{}, proofs: map[[2]string][]located{}}
}

func (r *results) take(e event) {
	top, _, below := strings.Cut(e.Test, "/")
	key := [2]string{e.Package, top}
	switch e.Action {
	case "output":
		m := proved.FindStringSubmatch(e.Output)
		if m == nil {
			return
		}
		l := located{cases: strings.Fields(m[9])}
		for _, part := range strings.Split(e.Test, "/") {
			if id := leading.FindStringSubmatch(part); id != nil {
				l.cases = append(l.cases, id[1])
			}
		}
		for i, n := range []*int{&l.mappings, &l.elements, &l.flows, &l.journal} {
			_, _ = fmt.Sscan(m[2+2*i], n) // digits
		}
		r.proofs[key] = append(r.proofs[key], l)
	case "pass", "fail", "skip":
		if e.Test == "" {
			return
		}
		o := r.tests[key]
		if o.state == "" || o.state == "pass" || e.Action == "fail" {
			o.state = e.Action // what is below comes first
		}
		o.ended = o.ended || !below
		r.tests[key] = o
	}
}
