package incumbent

import (
	"fmt"
	"strings"
	"time"

	"portcullis/config"
)

// Text returns a Plan as TOML: the keys that are not the default's, and above each the notes
// that belong to it.
func (p Plan) Text(from string) []byte {
	comments := map[string][]string{"": {"From " + from + ", by `portcullis import`."}}
	for _, n := range p.Notes {
		comments[n.Key] = append(comments[n.Key], n.String())
	}
	return config.Brief(p.Config, comments)
}

// String returns the note with its line and its kind.
func (n Note) String() string {
	if n.Line == 0 {
		return n.of("")
	}
	return n.of(fmt.Sprintf("line %d: ", n.Line))
}

// In returns the note with the file before it.
func (n Note) In(file string) string {
	if n.Line == 0 {
		return n.of(file + ": ")
	}
	return n.of(fmt.Sprintf("%s:%d: ", file, n.Line))
}

func (n Note) of(place string) string { return place + string(n.Kind) + ": " + n.Text }

// LeaseText returns what becomes of leases, as comments: the mappings of a client are its
// own, and it asks for them again. What never asks again can be opened by hand, with the
// commands that stand here; a lease that ends gets no longer one.
func LeaseText(f *File, now time.Time) (text []byte, notes []Note) {
	var b strings.Builder
	fmt.Fprintf(&b, "# From %s: what was open. Clients ask again for what they need; for what\n# does not, these commands open the same, as yours and not the client's.\n", printable(f.Name))
	for _, l := range f.leases {
		line, why := l.command(now)
		if why != "" {
			notes = append(notes, Note{f.Name, l.line, "", NoCounterpart, why})
			continue
		}
		b.WriteString("# " + line + "\n")
	}
	return []byte(b.String()), notes
}
