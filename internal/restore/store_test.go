package restore_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/internal/journal"
	"portcullis/internal/restore"
	"portcullis/internal/slog"
	"portcullis/portmap"
)

// lines is a log.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// disk is a journal in memory.
type disk struct {
	mu      sync.Mutex // guards what follows
	ended   []string
	over    []uint64
	asked   int               // what has run out
	settled bool              // nothing can run out unforeseen
	id      *journal.Identity // nil: there is none
	epochs  journal.Epochs

	written int // what is not a mapping's

	broken error // of every write; ends Run
}

func (d *disk) Record(_ context.Context, changes []portmap.Change) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range changes {
		if c.New == nil {
			d.ended = append(d.ended, strconv.FormatUint(c.Old.ID, 10))
		}
	}
	return d.broken
}

func (d *disk) endings() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.ended, " ")
}

func (d *disk) runsOut(ids ...uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.over = ids
}

func (d *disk) Overdue() ([]uint64, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked++
	over := d.over
	d.over = nil
	return over, !d.settled
}

func (d *disk) Look() {}

// settles has nothing run out from now on that was not said to.
func (d *disk) settles() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.settled = true
}

// askedFor returns how often somebody wanted to know what has run out.
func (d *disk) askedFor() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked
}

func (d *disk) Resize(int) {}

func (d *disk) KeepEpochs(e journal.Epochs) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.written++
	d.epochs = e
	return d.broken
}

func (d *disk) Identity() (journal.Identity, error) {
	if d.id == nil {
		return journal.NewIdentity(), d.broken
	}
	return *d.id, nil
}

// kept is what was written last, and how many times something was.
func (d *disk) kept() (bootID uint32, e journal.Epochs, written int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.id != nil {
		bootID = d.id.BootID
	}
	return bootID, d.epochs, d.written
}

func (d *disk) HasIdentity() bool { return d.id != nil }

func (d *disk) Answers() ([]byte, error)         { return nil, fs.ErrNotExist }
func (d *disk) SaveAnswers([]byte) error         { return errors.ErrUnsupported }
func (d *disk) SetAnswersAside() (string, error) { return "", errors.ErrUnsupported }

func (d *disk) SaveIdentity(id journal.Identity) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.written++
	if d.broken == nil {
		d.id = &id
	}
	return d.broken
}

func (d *disk) Run(ctx context.Context) error {
	if d.broken != nil {
		return d.broken
	}
	<-ctx.Done()
	return ctx.Err()
}

func (d *disk) Close() error { return nil }

// after is a rule for BOOTIDs.
func after(previous uint32, _ time.Time) uint32 { return previous + 1 }

// TestRecorded: the owner hears once that mappings cannot be kept, and once that they
// can be again.
func TestRecorded(t *testing.T) {
	t.Parallel()
	log := new(lines)
	s := restore.NewStore(slog.New(slog.NewTextHandler(log, nil)), new(disk))
	for range 2 {
		for _, err := range []error{nil, nil, errors.New("disk is full"), errors.New("disk is full"), nil, nil} {
			s.Recorded(err)
		}
	}
	log.told(t, `level=ERROR msg="cannot save mappings for a restart" err="disk is full"`, 2)
	log.told(t, `level=INFO msg="saving mappings for a restart again"`, 2)
	if n := strings.Count(log.String(), "\n"); n != 4 {
		t.Errorf("%d lines\n%s", n, log)
	}
}

// TestStore: what the engine and the servers want kept goes to the journal, whose errors
// come back or are told; without one nothing fails.
func TestStore(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	log := new(lines)
	logger := slog.New(slog.NewTextHandler(log, nil))
	ended := []portmap.Change{{Old: &portmap.Mapping{ID: 7}}}
	none := restore.NewStore(logger, nil)
	if err := none.Record(t.Context(), ended); err != nil {
		t.Errorf("without a journal: %v", err)
	}
	none.KeepEpochs(journal.Epochs{})
	if log.String() != "" {
		t.Errorf("without a journal: %s", log)
	}
	d := &disk{broken: broken}
	s := restore.NewStore(logger, d)
	if err := s.Record(t.Context(), ended); !errors.Is(err, broken) || d.endings() != "7" {
		t.Errorf("ended %q: %v", d.endings(), err)
	}
	began := journal.Epochs{V4: time.Unix(1, 0), V6: time.Unix(2, 0)}
	s.KeepEpochs(began)
	log.told(t, "cannot save the PCP epochs", 1)
	if d.epochs != began {
		t.Errorf("the epochs are %v", d.epochs)
	}
}

// TestOpen: a directory that another process uses is an error; one that cannot be used
// is none, and there is no journal.
func TestOpen(t *testing.T) {
	t.Parallel()
	log := new(lines)
	logger := slog.New(slog.NewTextHandler(log, nil))
	dir := filepath.Join(t.TempDir(), "state")
	first, _, err := restore.Open(journal.Config{Dir: dir, Log: logger})
	if err != nil || first == nil {
		t.Fatalf("journal %v, error %v", first, err)
	}
	if j, _, err := restore.Open(journal.Config{Dir: dir, Log: logger}); !errors.Is(err, journal.ErrLocked) || j != nil {
		t.Errorf("a second time: journal %v, error %v", j, err)
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	log.told(t, "state.dir is unusable", 0)
	if j, _, err := restore.Open(journal.Config{Dir: "/dev/null/state", Log: logger}); err != nil || j != nil {
		t.Errorf("of no directory: journal %v, error %v", j, err)
	}
	log.told(t, "state.dir is unusable", 1)
}

// openedIdentity opens the identity of a daemon in a directory.
func openedIdentity(t *testing.T, dir string) (*restore.Identity, restore.Journal, *lines) {
	t.Helper()
	log := new(lines)
	logger := slog.New(slog.NewTextHandler(log, nil))
	j, _, err := restore.Open(journal.Config{Dir: dir, Log: logger})
	if err != nil {
		t.Fatal(err)
	}
	if j != nil {
		t.Cleanup(func() { _ = j.Close() })
	}
	return restore.NewIdentity(logger, j, after), j, log
}

// TestUnsafeStateDirectory: from a directory that others can write to, no path is
// taken that they know (abuse case D5), and nothing is written there.
func TestUnsafeStateDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const planted = `{"uuid":"00000000-0000-4000-8000-000000000001","path":"00112233445566778899aabb","boot_id":7}`
	file := filepath.Join(dir, "identity.json")
	if err := os.WriteFile(file, []byte(planted), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil { // #nosec G302 -- the fault that is tested
		t.Fatal(err)
	}
	i, _, log := openedIdentity(t, dir)
	if !strings.Contains(log.String(), "not safe") || strings.Contains(planted, i.Path()) || strings.Contains(planted, i.UUID()) {
		t.Errorf("took the path %s, the UUID %s; logged %s", i.Path(), i.UUID(), log)
	}
	i.NextBootID(0)
	i.Keep()
	if now, err := os.ReadFile(file); err != nil || string(now) != planted {
		t.Errorf("the file is %s, %v", now, err)
	}
}

// TestURLsOfTheLastRun: what a control point has found stays where it is, and the
// BOOTID tells that there was a start.
func TestURLsOfTheLastRun(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	first, j, _ := openedIdentity(t, dir)
	boot := first.NextBootID(0)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	second, _, _ := openedIdentity(t, dir)
	if second.Path() != first.Path() || second.UUID() != first.UUID() || second.NextBootID(0) <= boot {
		t.Errorf("path %s, then %s; UUID %s, then %s", first.Path(), second.Path(), first.UUID(), second.UUID())
	}
}

// TestBootID: each is greater than every one before, of any server and any run.
func TestBootID(t *testing.T) {
	t.Parallel()
	i := restore.NewIdentity(slog.New(slog.DiscardHandler), &disk{id: &journal.Identity{BootID: 41}}, after)
	for _, c := range []struct{ last, want uint32 }{{0, 42}, {42, 43}, {7, 44}, {99, 100}} {
		if got := i.NextBootID(c.last); got != c.want {
			t.Errorf("after %d: %d, want %d", c.last, got, c.want)
		}
	}
}

// TestIdentityNotKept: one that cannot be read or written is told of, and is another one
// at the next start; it is not missed while the disk is broken.
func TestIdentityNotKept(t *testing.T) {
	t.Parallel()
	log := new(lines)
	d := &disk{broken: errors.New("broken")}
	i := restore.NewIdentity(slog.New(slog.NewTextHandler(log, nil)), d, after)
	if i.UUID() == "" || i.Path() == "" {
		t.Errorf("the identity is %q, %q", i.UUID(), i.Path())
	}
	log.told(t, "cannot load the UPnP identity", 1)
	i.NextBootID(0)
	log.told(t, "cannot save the UPnP identity", 1)
	i.Keep()
	log.told(t, "identity was removed", 0)
	d.broken = nil
	i.NextBootID(0) // it can be kept again
	d.id = nil
	i.Keep()
	log.told(t, "identity was removed", 1)
	if d.id == nil || d.id.UUID != i.UUID() {
		t.Errorf("kept is %+v", d.id)
	}
}

// TestKeepIdentity: an identity that was removed is told of once and written anew; one
// that was never written, or may not be, is not missed.
func TestKeepIdentity(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		mode  os.FileMode
		saved bool
		lines int
	}{
		"removed":             {0o700, true, 1},
		"never written":       {0o700, false, 0},
		"an unsafe directory": {0o777, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := os.Chmod(dir, c.mode); err != nil { // whatever the umask is
				t.Fatal(err)
			}
			i, _, log := openedIdentity(t, dir)
			if c.saved {
				i.NextBootID(0)
			}
			file := filepath.Join(dir, "identity.json")
			if err := os.Remove(file); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			for range 3 {
				i.Keep()
			}
			log.told(t, "identity was removed", c.lines)
			if _, err := os.Stat(file); (err == nil) != (c.lines > 0) {
				t.Errorf("the file: %v", err)
			}
		})
	}
}

// TestWrittenSeldom: whoever owns the front cannot have the disk written without end; what
// is written in the end is the newest.
func TestWrittenSeldom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := slog.New(slog.DiscardHandler)
		d, e := &disk{id: new(journal.Identity)}, new(disk)
		i, s := restore.NewIdentity(log, d, after), restore.NewStore(log, e)
		began := time.Now()
		for n := range 10_000 {
			if got := i.NextBootID(0); got != uint32(n+1) {
				t.Fatalf("%d after %d", got, n)
			}
			s.KeepEpochs(journal.Epochs{V4: began.Add(time.Duration(n) * time.Second)})
		}
		const least, most = 100, 200 // what a start on many LANs takes, and what is too much
		_, _, was := d.kept()
		if _, _, epochs := e.kept(); was < least || was > most || epochs < least || epochs > most {
			t.Errorf("written %d and %d times", was, epochs)
		}
		keeps := func(bootID uint32, v4 time.Time, more int) {
			t.Helper()
			id, _, written := d.kept()
			if _, epochs, _ := e.kept(); id != bootID || !epochs.V4.Equal(v4) || written > was+more {
				t.Errorf("kept are %d and %v, written %d times more", id, epochs.V4, written-was)
			}
		}
		time.Sleep(time.Minute) // of the bubble's
		keeps(10_000, began.Add(9999*time.Second), 1)
		for range 10_000 {
			i.NextBootID(0)
			s.KeepEpochs(journal.Epochs{V4: began})
		}
		i.Flush()
		s.Flush()
		keeps(20_000, began, 20)
		time.Sleep(time.Hour)
		keeps(20_000, began, 20)
	})
}
