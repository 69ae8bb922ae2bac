package process

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// lastScore has the kernel end a process before all others where memory is short (proc(5),
// oom_score_adj).
const lastScore = "1000"

// OpenScore opens what says how soon the kernel ends this process where memory is short. It
// is called before the sandbox closes.
func OpenScore() (*os.File, error) { return os.OpenFile("/proc/self/oom_score_adj", os.O_RDWR, 0) }

// offer has the kernel end this process first where memory is short, until the function that
// it returns is called: what is started meanwhile stays so. A front cannot say it of itself,
// because a file that it could write is one too many, and the warden not of another process,
// because Landlock keeps it from /proc.
func (p *parent) offer() (back func() error, err error) {
	if p.score == nil {
		return func() error { return nil }, nil
	}
	before, err := io.ReadAll(io.NewSectionReader(p.score, 0, 16))
	if err == nil {
		err = p.setScore(lastScore)
	}
	if err != nil {
		return nil, err
	}
	return func() error { return p.setScore(strings.TrimSpace(string(before))) }, nil
}

func (p *parent) setScore(s string) error {
	if _, err := p.score.WriteAt([]byte(s), 0); err != nil {
		return fmt.Errorf("who is ended where memory is short: %w", err)
	}
	return nil
}
