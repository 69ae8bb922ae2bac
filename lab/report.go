package lab

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
)

// Reporter shows the steps.
type Reporter struct {
	out    io.Writer
	asJSON bool
	steps  []Step
}

// NewReporter reports to out, as a table or as one JSON object at the end.
func NewReporter(out io.Writer, asJSON bool) *Reporter { return &Reporter{out: out, asJSON: asJSON} }

// Step takes a step.
func (r *Reporter) Step(s Step) { r.steps = append(r.steps, s) }

// Wrong counts the steps that did not go as they must.
func (r *Reporter) Wrong() int {
	wrong := 0
	for _, s := range r.steps {
		if !s.OK {
			wrong++
		}
	}
	return wrong
}

// Finish prints the report.
func (r *Reporter) Finish() error {
	if r.asJSON {
		e := json.NewEncoder(r.out)
		e.SetIndent("", "  ")
		return e.Encode(struct {
			OK    bool   `json:"ok"`
			Steps []Step `json:"steps"`
		}{r.Wrong() == 0 && len(r.steps) > 0, r.steps})
	}
	w := tabwriter.NewWriter(r.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "WHO\tASKS\tANSWER\tPACKET\tAS IT MUST BE")
	for _, s := range r.steps {
		ok := "yes"
		if !s.OK {
			ok = "NO"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", s.Who, s.Asks, s.Answer, s.Packet, ok)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(r.out, "\n%d steps, %d went wrong\n", len(r.steps), r.Wrong())
	return err
}
