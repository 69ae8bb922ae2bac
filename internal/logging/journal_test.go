package logging

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"portcullis/config"
	"portcullis/internal/slog"
)

// write logs a line of each level.
func write(log *slog.Logger) {
	log = log.With("interface", "br-lan")
	log.Debug("a")
	log.Info("b", "time", "its own")
	log.Warn("c\nd")
	log.Error("e")
}

// TestJournal: where standard error is the journal, each line has its priority, and none a
// time; elsewhere it is as it was.
func TestJournal(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "journal"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	for _, c := range []struct {
		stream, want string
		format       config.Format
	}{
		{fmt.Sprintf("%d:%d", st.Dev, st.Ino), "<7>level=DEBUG msg=a interface=br-lan\n<6>level=INFO msg=b interface=br-lan time=\"its own\"\n" +
			"<4>level=WARN msg=\"c\\nd\" interface=br-lan\n<3>level=ERROR msg=e interface=br-lan\n", config.FormatText},
		{fmt.Sprintf("%d:%d", st.Dev, st.Ino), `<7>{"level":"DEBUG","msg":"a","interface":"br-lan"}` + "\n" + `<6>{"level":"INFO","msg":"b","interface":"br-lan","time":"its own"}` + "\n" +
			`<4>{"level":"WARN","msg":"c\nd","interface":"br-lan"}` + "\n" + `<3>{"level":"ERROR","msg":"e","interface":"br-lan"}` + "\n", config.FormatJSON},
		{fmt.Sprintf("%d:%d", st.Dev, st.Ino+1), "time=", config.FormatText},
		{"", `{"time":"`, config.FormatJSON},
	} {
		t.Setenv("JOURNAL_STREAM", c.stream)
		if err := file.Truncate(0); err != nil {
			t.Fatal(err)
		}
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		write(New(file, config.Log{Level: config.LevelDebug, Format: c.format}))
		text, err := os.ReadFile(file.Name())
		if err != nil {
			t.Fatal(err)
		}
		if got := string(text); strings.HasPrefix(c.want, "<") && got != c.want || !strings.HasPrefix(got, c.want) {
			t.Errorf("JOURNAL_STREAM=%s: %s", c.stream, got)
		}
		if said, journal := AsError(file, "a\nb"), strings.HasPrefix(c.want, "<"); journal && said != "<3>a\n<3>b" || !journal && said != "a\nb" {
			t.Errorf("JOURNAL_STREAM=%s: an error is %q", c.stream, said)
		}
	}
}

// TestSyslog: by logger(1) each line gets to syslog with its priority.
func TestSyslog(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("logger"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("logger is not installed; test/install does that")
		}
		t.Skip("logger is not installed; test/install does that")
	}
	socket := filepath.Join(t.TempDir(), "log")
	syslog, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	defer syslog.Close()
	var out bytes.Buffer
	write(New(&out, config.Log{Level: config.LevelDebug, Format: config.FormatSyslog}))
	cmd := exec.Command("logger", "--prio-prefix", "--tag", "portcullis", "--priority", "daemon.info", "--socket", socket)
	cmd.Stdin = &out
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	const daemon = 3 << 3
	for _, want := range []struct {
		priority int
		text     string
	}{{7, "level=DEBUG msg=a"}, {6, "level=INFO msg=b"}, {4, `level=WARN msg="c\nd"`}, {3, "level=ERROR msg=e"}} {
		if err := syslog.SetReadDeadline(time.Now().Add(15 * time.Second)); err != nil {
			t.Fatal(err)
		}
		packet := make([]byte, 4096)
		n, err := syslog.Read(packet)
		if line := string(packet[:n]); err != nil || !strings.HasPrefix(line, fmt.Sprintf("<%d>", daemon|want.priority)) || !strings.Contains(line, "portcullis") || !strings.Contains(line, want.text) {
			t.Errorf("%v; %q, want priority %d and %s", err, line, want.priority, want.text)
		}
	}
}
