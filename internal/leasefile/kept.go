package leasefile

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"
)

// version is what a file held, and since when.
type version struct {
	lines []line
	since time.Time // by the file system's clock, as files have theirs
}

// versions are how many of a file are known: a deletion may have been made of one before the
// newest.
const versions = 4

// slack bounds how much later than it was read a file is written that somebody has taken
// lines out of. A file that is newer by more than that was made of what came after.
const slack = 5 * time.Second

// goneFrom returns the lines that were taken out of what was written, the newest first, to
// become what is there since at. It is not ok where anything else was done. Where it may have
// been made of several versions, a line is gone if it is from all of these: so one that has
// come meanwhile stays.
func goneFrom(written []version, there string, at time.Time) (gone []line, ok bool) {
	for i, v := range written {
		if i > 0 && at.After(written[i-1].since.Add(slack)) {
			break
		}
		these, may := missing(v.lines, there)
		switch {
		case !may:
		case !ok:
			gone, ok = these, true
		default:
			gone = both(gone, these)
		}
	}
	return gone, ok
}

// both returns the lines of mappings that are in two lists.
func both(a, b []line) (both []line) {
	in := make(map[uint64]bool, len(b))
	for _, l := range b {
		in[l.id] = true
	}
	for _, l := range a {
		if in[l.id] {
			both = append(both, l)
		}
	}
	return both
}

// header begins a copy of what was written; behind it stands the run of the machine, and
// since when each version was there.
const header = "portcullis lease file 2 "

// maxCopy bounds a copy: each version has other lines at most, with the ID before them.
const maxCopy = versions * (maxFile + Most*32)

// keep writes down what a file has held, the newest first, for the next run of the daemon. A
// line has the numbers of its versions, its ID and its text.
func keep(path, boot string, written []version) error {
	var b bytes.Buffer
	b.WriteString(header + boot)
	in := map[line]string{}
	var all []line
	for i, v := range written {
		fmt.Fprintf(&b, " %d", v.since.UnixNano())
		for _, l := range v.lines {
			if in[l] == "" {
				all = append(all, l)
			}
			in[l] += strconv.Itoa(i)
		}
	}
	b.WriteByte('\n')
	sort.SliceStable(all, func(i, j int) bool { return all[i].id < all[j].id })
	for _, l := range all {
		fmt.Fprintf(&b, "%s %d %s\n", in[l], l.id, l.text)
	}
	next := path + writtenSuffix + newSuffix
	if err := create(next, b.Bytes()); err != nil {
		return err
	}
	return os.Rename(next, path+writtenSuffix)
}

// kept returns what the last run wrote into a file, nil where that is not known.
func kept(path, boot string) []version {
	text, _, err := read(path+writtenSuffix, maxCopy)
	if err != nil || boot == "" {
		return nil
	}
	first, rest, whole := strings.Cut(text, "\n")
	first, ours := strings.CutPrefix(first, header+boot)
	if !whole || !ours || !strings.HasSuffix(text, "\n") {
		return nil
	}
	written := []version{}
	for _, word := range strings.Fields(first) {
		nanos, err := strconv.ParseInt(word, 10, 64)
		if err != nil || len(written) == versions {
			return nil
		}
		written = append(written, version{since: time.Unix(0, nanos)})
	}
	for one := range strings.Lines(rest) {
		if keptLine(written, strings.TrimSuffix(one, "\n")) != nil {
			return nil
		}
	}
	return written
}

// errNotKept means that a copy is not one of ours.
var errNotKept = errors.New("no line of a copy")

// keptLine puts a line of a copy in its versions.
func keptLine(written []version, one string) error {
	in, rest, _ := strings.Cut(one, " ")
	number, text, whole := strings.Cut(rest, " ")
	id, err := strconv.ParseUint(number, 10, 64)
	if err != nil || !whole {
		return errNotKept
	}
	for _, c := range []byte(in) {
		i := int(c) - '0'
		if i < 0 || i >= len(written) || len(written[i].lines) == Most {
			return errNotKept
		}
		written[i].lines = append(written[i].lines, line{id, text})
	}
	return nil
}

// bootID returns the name of this run of the machine, "" where it is not known.
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}
