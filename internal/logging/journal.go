package logging

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
)

// Who keeps the log may want each line to begin with its priority, as the kernel writes it
// (sd-daemon(3)): the journal of systemd, which has the time as well, and logger(1) with
// --prio-prefix, which hands it to syslog.

// prefixes are those of syslog(3) for our levels; the words are slog's.
var prefixes = []struct {
	level, text string
}{{"ERROR", errorMark}, {"WARN", "<4>"}, {"INFO", "<6>"}, {"DEBUG", "<7>"}}

const errorMark = "<3>"

// InJournal reports whether what is written to w goes to the journal of systemd, which says
// which file that is (systemd.exec(5), JOURNAL_STREAM).
func InJournal(w io.Writer) bool {
	f, ok := w.(*os.File)
	stream := os.Getenv("JOURNAL_STREAM")
	if !ok || stream == "" {
		return false
	}
	info, err := f.Stat()
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && stream == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// AsError returns text as w should get it that is an error: where that is the journal, each
// line has its priority.
func AsError(w io.Writer, text string) string {
	if !InJournal(w) {
		return text
	}
	return errorMark + strings.ReplaceAll(text, "\n", "\n"+errorMark)
}

// prioritised puts its priority before each line of a handler of slog, which writes a line
// at a time and, without its time, the level first.
type prioritised struct{ w io.Writer }

func (p prioritised) Write(line []byte) (int, error) {
	head := bytes.TrimPrefix(bytes.TrimPrefix(line, []byte("level=")), []byte(`{"level":"`))
	mark := errorMark
	for _, x := range prefixes {
		if bytes.HasPrefix(head, []byte(x.level)) {
			mark = x.text
		}
	}
	if _, err := p.w.Write(append([]byte(mark), line...)); err != nil {
		return 0, err
	}
	return len(line), nil
}
