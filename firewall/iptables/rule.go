package iptables

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// remark is the comment by which the rule is known.
const remark = "portcullis: what is mapped may pass"

// rule is the one in FORWARD that lets pass what is marked, of one family. It is not
// safe for concurrent use.
type rule struct {
	programs *programs
	mark     uint32
	echo     string // as the program lists it; "": it has not been written
}

// text returns the rule as the program reads it. IPv6 is not translated; there the mark
// alone says that it belongs to a pinhole.
func (r *rule) text() string {
	state := ""
	if r.programs.family == four {
		state = "-m conntrack --ctstate DNAT "
	}
	return fmt.Sprintf("%s-m mark --mark %#x/%#x -m comment --comment %q -j ACCEPT", state, r.mark, r.mark, remark)
}

// tries is how often the rule is written where others write at the same time.
const tries = 3

// keep makes sure that the rule is there, and returns what was wrong with one that had
// been written before.
func (r *rule) keep(ctx context.Context) (lost string, err error) {
	for range tries {
		var there []line
		if there, err = r.programs.forward(ctx); err != nil {
			return lost, err
		}
		if r.echo != "" {
			wrong := r.wrong(there)
			if wrong == "" {
				return lost, nil
			}
			lost = wrong
		}
		if err = r.write(ctx, there, fmt.Sprintf("-I FORWARD 1 %s\n", r.text())); err != nil {
			continue // what was read may be gone
		}
		if there, err = r.programs.forward(ctx); err != nil {
			return lost, err
		}
		if mine := ours(there); len(mine) == 1 {
			r.echo = mine[0].text()
		} else {
			err = fmt.Errorf("%s: the rule that lets mappings pass is there %d times", r.programs.main, len(mine))
		}
	}
	return lost, err
}

// remove takes the rule away.
func (r *rule) remove(ctx context.Context) error {
	var err error
	for range tries {
		var there []line
		if there, err = r.programs.forward(ctx); err != nil || len(ours(there)) == 0 {
			return err
		}
		err = r.write(ctx, there, "")
	}
	return err
}

// write takes away what is there of ours, and adds, in one transaction.
func (r *rule) write(ctx context.Context, there []line, add string) error {
	var script strings.Builder
	script.WriteString("*filter\n")
	for _, l := range ours(there) {
		fmt.Fprintf(&script, "-D FORWARD %s\n", quote(l.words))
	}
	script.WriteString(add + "COMMIT\n")
	return r.programs.restore(ctx, script.String())
}

var drops = []string{"DROP", "REJECT"}

// wrong returns what is wrong with the rule, "" for nothing.
func (r *rule) wrong(there []line) string {
	found := 0
	for _, l := range there {
		switch {
		case l.after("--comment") == remark:
			if found++; found > 1 || l.text() != r.echo {
				return r.programs.main + ": the rule that lets mappings pass was changed"
			}
		case found == 0 && slices.Contains(drops, l.target()):
			return r.programs.main + ": the rule that lets mappings pass came too late"
		}
	}
	if found == 0 {
		return r.programs.main + ": the rule that lets mappings pass was missing"
	}
	return ""
}

// ours returns those that are ours.
func ours(there []line) []line {
	var mine []line
	for _, l := range there {
		if l.after("--comment") == remark {
			mine = append(mine, l)
		}
	}
	return mine
}

// quote joins words for the program to read.
func quote(words []string) string {
	out := make([]string, len(words))
	for i, w := range words {
		if strings.ContainsAny(w, " \"\\") || w == "" {
			w = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(w) + `"`
		}
		out[i] = w
	}
	return strings.Join(out, " ")
}
