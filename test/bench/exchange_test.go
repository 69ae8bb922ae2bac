package main

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

var recordExchanges = flag.Bool("record", false, "write testdata/exchanges.json anew")

const exchangesFile = "testdata/exchanges.json"

// recordedExchanges is how many instructions each exchange of BenchmarkExchange in igd takes.
//
//go:embed testdata/exchanges.json
var recordedExchanges []byte

// exchangesTable prints what is recorded, for docs/performance.md.
func exchangesTable(t *testing.T) func(io.Writer) {
	was := readExchanges(t)
	return func(w io.Writer) {
		fmt.Fprintf(w, "%s, %s, igd alone\tinstructions\t\n", was.Arch, was.Go)
		for _, e := range was.Each {
			fmt.Fprintf(w, "%s\t%s\t\n", e.What, grouped(e.Count))
		}
	}
}

func readExchanges(t *testing.T) (was Instructions) {
	t.Helper()
	if err := json.Unmarshal(recordedExchanges, &was); err != nil {
		t.Fatal(err)
	}
	return was
}

// TestExchanges: a request by UPnP takes no more than a tenth more instructions than are
// recorded, from its octets through HTTP, SOAP, the policy and the engine to those of the answer:
// so nothing on that way gets slower unseen. It is counted where nothing waits for another
// process or the kernel, and so is the same on a busy machine.
func TestExchanges(t *testing.T) {
	was := readExchanges(t)
	if runtime.GOARCH != was.Arch {
		return // nothing is recorded of other processors
	}
	exe := filepath.Join(t.TempDir(), "igd.test")
	if out, err := exec.Command("go", "test", "-c", "-o", exe, "portcullis/igd").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	now := Instructions{Arch: runtime.GOARCH, Go: runtime.Version()}
	for _, e := range was.Each {
		const few, many = 100, 500
		n := (countRun(t, exe, e.What, many) - countRun(t, exe, e.What, few)) / (many - few)
		now.Each = append(now.Each, Instruction{e.What, n})
		if most := int(instructionsMost * float64(e.Count)); !*recordExchanges && n > most {
			t.Errorf("%s takes %s instructions, and %s are recorded; go test ./test/bench -run Exchanges -record records them anew, with a reason in the commit",
				e.What, grouped(n), grouped(e.Count))
		}
	}
	if *recordExchanges {
		if err := now.record(exchangesFile); err != nil {
			t.Fatal(err)
		}
	}
}

// countRun returns how many instructions a run of the benchmark with so many exchanges takes.
func countRun(t *testing.T, exe, what string, times int) (total int) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "count")
	cmd := exec.Command("valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file="+file,
		exe, "-test.run=^$", "-test.bench=^BenchmarkExchange$/^"+what+"$", "-test.benchtime="+strconv.Itoa(times)+"x")
	cmd.Env = append(os.Environ(), "GOGC=off", "GOMAXPROCS=1", "GODEBUG=asyncpreemptoff=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "BenchmarkExchange/"+what) {
		t.Fatalf("%v\n%s", err, out)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(raw) {
		if digits, found := bytes.CutPrefix(line, []byte("summary: ")); found {
			if total, err = strconv.Atoi(strings.TrimSpace(string(digits))); err != nil {
				t.Fatal(err)
			}
		}
	}
	if total == 0 {
		t.Fatalf("valgrind has counted nothing: %s", raw[max(0, len(raw)-200):])
	}
	return total
}
