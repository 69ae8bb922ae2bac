package main

import (
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
)

// report prints the cases and returns the ids of those that are not proved.
func report(w io.Writer, cases []abuseCase, where tests, r *results) (failed []string) {
	unchanged, times := 0, 0
	for _, c := range cases {
		shown, missing := c.tested(where, r)
		proofs := c.proofs(where, r)
		times += len(proofs)
		var proof string
		switch {
		case len(proofs) > 0:
			unchanged++
			proof = told(proofs)
		case c.otherwise != "":
			proof = c.otherwise
		default:
			missing = append(missing, "no test shows that nothing changed")
		}
		fmt.Fprintf(w, "%-4s%s\n", c.id, c.answer)
		if len(missing) > 0 {
			failed = append(failed, c.id)
			fmt.Fprintf(w, "    FAILED: %s\n", strings.Join(missing, "; "))
		}
		if proof != "" {
			fmt.Fprintf(w, "    %s\n", proof)
		}
		if len(shown) > 0 {
			fmt.Fprintf(w, "    ok: %s\n", strings.Join(shown, ", "))
		}
	}
	fmt.Fprintf(w, "%d cases; nothing changed in %d of them, compared %d times; the others are proved otherwise.\n", len(cases), unchanged, times)
	return failed
}

// tested lists which tests of a case passed, and what is wrong with the others.
func (c abuseCase) tested(where tests, r *results) (shown, missing []string) {
	for _, name := range c.tests {
		in := where.find(c.id, name)
		if len(in) == 0 {
			missing = append(missing, "there is no "+name)
		}
		for _, key := range in {
			text := key[1]
			if len(in) > 1 {
				text = path.Base(key[0]) + "." + text
			}
			switch o, ran := r.tests[key]; {
			case !ran:
				missing = append(missing, text+" did not run")
			case o.state == "fail":
				missing = append(missing, text+" failed")
			case o.state == "skip":
				missing = append(missing, text+" was skipped, or a part of it")
			case !o.ended:
				missing = append(missing, text+" did not end")
			default:
				shown = append(shown, text)
			}
		}
	}
	return shown, missing
}

// proofs lists the comparisons that its tests have made for the case.
func (c abuseCase) proofs(where tests, r *results) (all []proof) {
	for _, name := range c.tests {
		for _, key := range where.find(c.id, name) {
			for _, l := range r.proofs[key] {
				if slices.Contains(l.cases, c.id) {
					all = append(all, l.proof)
				}
			}
		}
	}
	return all
}

// told says how often nothing changed, and what the fullest world of them had.
func told(all []proof) string {
	most := slices.MaxFunc(all, func(a, b proof) int {
		return a.mappings + a.elements + a.flows + a.journal - b.mappings - b.elements - b.flows - b.journal
	})
	same := func(n int) string { return fmt.Sprintf("%d=%d", n, n) }
	return fmt.Sprintf("nothing changed (%dx): mappings %s, elements %s, flows %s, journal %s", len(all),
		same(most.mappings), same(most.elements), same(most.flows), same(most.journal))
}
