package main

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"

	"portcullis/internal/control"
)

// column is one of a list.
type column struct {
	head    string
	leftOut int // which is left out first where there is no room; 0: it never is
	text    func(*control.Mapping) string
}

// grid is a list as a terminal shows it.
type grid struct {
	columns []column
	rows    [][]string // the first has the heads
	widths  []int
	width   int // of the terminal; 0: of none
}

// gap is between two columns.
const gap = 2

// newGrid returns a list without the columns in which nothing is.
func newGrid(all []column, list []control.Mapping) *grid {
	g := &grid{rows: make([][]string, len(list)+1)}
	for _, c := range all {
		cells, something := make([]string, len(list)+1), c.leftOut == 0
		cells[0] = c.head
		for i := range list {
			cells[i+1] = c.text(&list[i])
			something = something || cells[i+1] != ""
		}
		if something {
			g.add(c, cells)
		}
	}
	return g
}

func (g *grid) add(c column, cells []string) {
	width := 0
	for i, text := range cells {
		g.rows[i] = append(g.rows[i], text)
		width = max(width, wide(text))
	}
	g.columns, g.widths = append(g.columns, c), append(g.widths, width)
}

// fit makes lines of at most width, where there is one: the last column gets what is left,
// and where that is less than its head, columns are left out.
func (g *grid) fit(width int) *grid {
	g.width = width
	for width > 0 && len(g.columns) > 1 {
		last := len(g.columns) - 1
		others := 0
		for _, w := range g.widths[:last] {
			others += w + gap
		}
		if room := width - others; room >= min(g.widths[last], wide(g.columns[last].head)) {
			g.widths[last] = min(g.widths[last], room)
			break
		}
		if !g.leaveOut() {
			break
		}
	}
	return g
}

// leaveOut takes away the column that is missed least, and reports whether there was one.
func (g *grid) leaveOut() bool {
	least := -1
	for i, c := range g.columns {
		if c.leftOut > 0 && (least < 0 || c.leftOut < g.columns[least].leftOut) {
			least = i
		}
	}
	if least < 0 {
		return false
	}
	cut := func(list []string) []string { return append(list[:least:least], list[least+1:]...) }
	g.columns = append(g.columns[:least:least], g.columns[least+1:]...)
	g.widths = append(g.widths[:least:least], g.widths[least+1:]...)
	for i := range g.rows {
		g.rows[i] = cut(g.rows[i])
	}
	return true
}

func (g *grid) print(out io.Writer) error {
	w := bufio.NewWriter(out)
	var line []byte
	for _, row := range g.rows {
		line = line[:0]
		for i, text := range row {
			if g.width > 0 {
				text = short(text, g.widths[i])
			}
			line = append(line, text...)
			if i < len(row)-1 {
				for range g.widths[i] - wide(text) + gap {
					line = append(line, ' ')
				}
			}
		}
		line = bytes.TrimRight(line, " ")
		if g.width > 0 {
			line = append(line[:0], short(string(line), g.width)...)
		}
		_, _ = w.Write(append(line, '\n')) // Flush returns the error
	}
	return w.Flush()
}

// short returns as much of a text as there is room for.
func short(text string, room int) string {
	if wide(text) <= room {
		return text
	}
	used := 1 // of the ellipsis
	for i, r := range text {
		if used += cells(r); used > room {
			return text[:i] + "…"
		}
	}
	return text
}

// wide returns how many cells of a terminal a text takes.
func wide(text string) (n int) {
	for _, r := range text {
		n += cells(r)
	}
	return n
}

// firstMark is the first letter that takes no cell of its own.
const firstMark = 0x300

// doubled are the ranges of letters that take two cells: of East Asia, and pictures.
var doubled = []struct{ first, last rune }{
	{0x1100, 0x115f}, {0x2e80, 0xa4cf}, {0xac00, 0xd7a3}, {0xf900, 0xfaff}, {0xfe30, 0xfe6f}, {0xff00, 0xff60}, {0xffe0, 0xffe6},
	{0x1f300, 0x1faff}, {0x20000, 0x3fffd},
}

func cells(r rune) int {
	if r < firstMark { // nearly all
		return 1
	}
	if unicode.In(r, unicode.Mn, unicode.Me) {
		return 0
	}
	for _, d := range doubled {
		if d.first <= r && r <= d.last {
			return 2
		}
	}
	return 1
}

// widthOf returns the width of the terminal that out is, 0 where it is none: what is piped
// is not cut.
func widthOf(out io.Writer) int {
	f, isFile := out.(*os.File)
	if !isFile {
		return 0
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ) // #nosec G115 -- a descriptor
	if err != nil {
		return 0
	}
	if size.Col > 0 {
		return int(size.Col)
	}
	n, err := strconv.Atoi(os.Getenv("COLUMNS"))
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// printable keeps a client's text from playing with the owner's terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsGraphic(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}
