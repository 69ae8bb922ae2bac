package lab

import (
	"encoding/json"
	"fmt"
	"io"
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
	if err := r.table(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(r.out, "\n%d steps, %d went wrong\n", len(r.steps), r.Wrong())
	return err
}

// table prints a line a step, and under a refusal the sentence that explains it.
// The sentences are outside the columns, which text/tabwriter cannot do.
func (r *Reporter) table() error {
	rows := [][5]string{{"WHO", "ASKS FOR", "ANSWER", "TEST PACKET", "AS EXPECTED"}}
	for _, s := range r.steps {
		ok := "yes"
		if !s.OK {
			ok = "NO"
		}
		rows = append(rows, [5]string{s.Who, s.Asks, s.Answer, s.Packet, ok})
	}
	var width [5]int
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], len(cell))
		}
	}
	for i, row := range rows {
		_, err := fmt.Fprintf(r.out, "%-*s  %-*s  %-*s  %-*s  %s\n", width[0], row[0], width[1], row[1], width[2], row[2], width[3], row[3], row[4])
		if err == nil && i > 0 && r.steps[i-1].Reason != "" {
			_, err = fmt.Fprintf(r.out, "%*s  %s\n", width[0], "", r.steps[i-1].Reason)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
