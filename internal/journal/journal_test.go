package journal_test

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/internal/journal"
	"portcullis/internal/slog"
	"portcullis/portmap"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func openDir(dir string) (*journal.Journal, journal.Restored, error) {
	return journal.Open(journal.Config{Dir: dir, Log: discard(), MaxMappings: 100, Clock: newFakeClock()})
}

// TestRestart: what was recorded is there again, on the real disk, in a file that
// is nobody else's.
func TestRestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dir := filepath.Join(t.TempDir(), "a", "state")
	j, got, err := openDir(dir)
	if err != nil || len(got.Mappings) != 0 || got.Whole {
		t.Fatalf("a new journal: %+v, %v", got, err)
	}
	a, b, c := w.mapping(1), w.mapping(2), w.mapping(3)
	if err := write(j, []portmap.Mapping{a, b, c}, nil); err != nil {
		t.Fatal(err)
	}
	if err := write(j, nil, []uint64{2, 77}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := openDir(dir); !errors.Is(err, journal.ErrLocked) {
		t.Errorf("opened twice: %v", err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if err := write(j, nil, []uint64{1}); !errors.Is(err, journal.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	j, w.got, err = openDir(dir)
	if err != nil || !w.got.Whole {
		t.Fatalf("%+v, %v", w.got, err)
	}
	defer j.Close()
	w.expect(map[uint64]portmap.Mapping{1: a, 3: c}, 0)
	for name, mode := range map[string]os.FileMode{"": 0o700, journal.JournalFile: 0o600} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%q: %v, %v", name, info.Mode(), err)
		}
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("files: %v, %v", files, err)
	}
}

// TestForm: the form of the file is a promise to the next version.
func TestForm(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	nat, pin := w.mapping(1), w.mapping(2)
	nat.Description, nat.Rule, nat.Client.Name, nat.Disabled = "Plex\nend id=1", "media", "nas", true
	pin = pinhole(pin)
	pin.Expires = time.Time{}
	w.record([]portmap.Mapping{nat, pin})
	w.clock.pass(time.Minute)
	nat.Expires = w.clock.now().Add(time.Hour)
	w.record([]portmap.Mapping{nat}, 2)
	want := strings.TrimLeft(`
X 0/2 360000.123 journal version=3 boot=00000000-0000-4000-8000-000000000000
X 1/2 360000.123 clock wall=2026-05-04T03:02:01.000Z sync=yes
X 2/2 360000.123 put id=1 made=360000.123 end=363600.124 tr=udp in=192.168.1.2:5000 out=:5001 wan="wan0" disabled=yes client=192.168.1.2 mac=02:00:00:00:00:01 via=pcp if="br-lan" name="nas" claims=pcp nonce=0102030405060708090a0b01 rule="media" desc="Plex\nend id=1"
X 3/2 360000.123 put id=2 made=360000.123 end=never tr=tcp in=[2001:db8::20]:443 pinhole=4711 wan="wan0" from=2001:db8:1::/48,2001:db8:2::1/128@53 client=2001:db8::20 mac=02:00:00:00:00:02 via=upnp if="br-lan" claims=upnp
X 4/2 360060.123 end id=2
X 5/2 360060.123 lease id=1 end=363660.124
`, "\n")
	got := regexp.MustCompile(`(?m)^[0-9a-f]{8} `).ReplaceAllString(string(w.disk.names[journal.JournalFile].data), "X ")
	if got != want {
		t.Errorf("the file is\n%s\nwanted\n%s", got, want)
	}
}

// TestUnsafe: what others could have written is not trusted.
func TestUnsafe(t *testing.T) {
	t.Parallel()
	cases := map[string]func(t *testing.T, dir string){
		"directory for all":   func(t *testing.T, dir string) { chmod(t, dir, 0o777) },
		"directory for group": func(t *testing.T, dir string) { chmod(t, dir, 0o770) },
		"file for all":        func(t *testing.T, dir string) { chmod(t, filepath.Join(dir, journal.JournalFile), 0o666) },
		"directory is a link": func(t *testing.T, dir string) { link(t, dir) },
		"file is a link":      func(t *testing.T, dir string) { link(t, filepath.Join(dir, journal.JournalFile)) },
		"file is a FIFO":      func(t *testing.T, dir string) { fifo(t, filepath.Join(dir, journal.JournalFile)) },
		"foreign directory":   func(t *testing.T, dir string) { chown(t, dir) },
		"foreign file":        func(t *testing.T, dir string) { chown(t, filepath.Join(dir, journal.JournalFile)) },
	}
	for name, spoil := range cases {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "state")
			j, _, err := openDir(dir)
			if err != nil || j.Close() != nil {
				t.Fatal(err)
			}
			spoil(t, dir)
			if _, _, err := openDir(dir); !errors.Is(err, journal.ErrUnsafe) {
				t.Errorf("opened: %v", err)
			}
		})
	}
}

// TestFollowsNoLink: a link in the place of the new file does not lead the writer
// away.
func TestFollowsNoLink(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	victim := filepath.Join(t.TempDir(), "victim")
	if err := errors.Join(os.WriteFile(victim, []byte("mine"), 0o600), os.Symlink(victim, filepath.Join(dir, journal.NewFile))); err != nil {
		t.Fatal(err)
	}
	j, _, err := openDir(dir)
	if err != nil || j.Close() != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(victim); err != nil || string(data) != "mine" {
		t.Errorf("the victim holds %q, %v", data, err)
	}
}

func chmod(t *testing.T, path string, mode uint32) {
	t.Helper()
	if err := syscall.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, path string) {
	t.Helper()
	if err := errors.Join(os.Rename(path, path+".real"), os.Symlink(path+".real", path)); err != nil {
		t.Fatal(err)
	}
}

func fifo(t *testing.T, path string) {
	t.Helper()
	if err := errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o600)); err != nil {
		t.Fatal(err)
	}
}

func chown(t *testing.T, path string) {
	t.Helper()
	needRoot(t)
	if err := os.Chown(path, 4711, 4711); err != nil {
		t.Fatal(err)
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("this needs root")
	}
	t.Skip("this needs root")
}

// TestCopiedDescriptor: a child between its fork and its exec has a copy of the
// directory's descriptor; the journal closed, the next one opens all the same.
func TestCopiedDescriptor(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j, _, err := openDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	copies := 0
	for _, entry := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + entry.Name()); err != nil || to != dir {
			continue
		}
		fd, err := strconv.Atoi(entry.Name())
		if err != nil {
			t.Fatal(err)
		}
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = unix.Close(dup) }()
		copies++
	}
	if copies == 0 {
		t.Fatal("no descriptor of the directory")
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j, _, err = openDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestTerms: that a lease has no end, that its mapping is suspended, and which
// protocols have a shorter one outlive the daemon; the shorter ones begin anew, in full
// hours. The file says so, as a promise to the next version.
func TestTerms(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m, now := w.mapping(1), w.clock.now()
	m.Endless, m.Suspended, m.Expires = true, now, now.Add(5*time.Hour)
	m.Claims = m.Claims.With(portmap.ViaUPnP).With(portmap.ViaNATPMP)
	m.Leases.Set(portmap.ViaNATPMP, portmap.Lease{Granted: 90 * time.Minute, Ends: now.Add(90 * time.Minute)})
	m.Leases.Set(portmap.ViaPCP, portmap.Lease{Granted: time.Minute, Ends: now.Add(time.Minute)})
	w.record([]portmap.Mapping{m})
	const form = ` tr=udp in=192.168.1.2:5000 out=:5001 wan="wan0" endless=yes suspended=yes client=192.168.1.2 mac=02:00:00:00:00:01 via=pcp if="br-lan" claims=upnp,natpmp:2,pcp:1 nonce=`
	if text := string(w.disk.names[journal.JournalFile].data); !strings.Contains(text, form) {
		t.Errorf("the file is\n%s", text)
	}
	w.clock.pass(2 * time.Hour)
	w.start()
	now = w.clock.now()
	m.Suspended = now
	m.Leases.Set(portmap.ViaNATPMP, portmap.Lease{Granted: 2 * time.Hour, Ends: now.Add(2 * time.Hour)})
	m.Leases.Set(portmap.ViaPCP, portmap.Lease{Granted: time.Hour, Ends: now.Add(time.Hour)})
	w.expect(table{1: m}, 0)
	w.clock.pass(90 * time.Minute)
	w.start()
	now = w.clock.now()
	m.Suspended = now
	m.Leases.Set(portmap.ViaNATPMP, portmap.Lease{}) // it would end after its mapping
	m.Leases.Set(portmap.ViaPCP, portmap.Lease{Granted: time.Hour, Ends: now.Add(time.Hour)})
	w.expect(table{1: m}, 0)
}

// TestVersion2: a journal that the version before has written is read, with all that it
// says, and written as today's.
func TestVersion2(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/version2.journal")
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	began := w.clock.now()
	w.clock.pass(time.Minute)
	now := w.clock.now()
	w.put(data)
	w.start()
	plex, pin, game := w.mapping(1), pinhole(w.mapping(2)), w.mapping(3)
	plex.Description, plex.Rule, plex.Client.Name, plex.Disabled = "Plex\nend id=1", "media", "nas", true
	pin.Expires = time.Time{}
	game.Endless, game.Suspended, game.Expires = true, now, began.Add(5*time.Hour)
	game.Claims = game.Claims.With(portmap.ViaUPnP).With(portmap.ViaNATPMP)
	game.Leases.Set(portmap.ViaNATPMP, portmap.Lease{Granted: 2 * time.Hour, Ends: now.Add(2 * time.Hour)})
	want := table{1: plex, 2: pin, 3: game}
	for id, m := range want {
		m.WAN, m.Created = "", began
		want[id] = m
	}
	w.expect(want, 0)
	if !w.got.Whole || w.got.Epochs.V6.IsZero() {
		t.Errorf("whole %v, epochs %v", w.got.Whole, w.got.Epochs)
	}
	if head, _, _ := strings.Cut(string(w.file()), "\n"); !strings.Contains(head, "journal version=3 ") {
		t.Errorf("it begins with %q", head)
	}
}

// TestMemoryOfReading: a start reads each line once in memory that is not the line's own, or the
// peak of a start with many mappings is that of their journal. It counts all of the process, and
// so is not parallel to others.
func TestMemoryOfReading(t *testing.T) {
	const mappings, most = 2000, 3200 // octets; it was 3,900 when each line was encoded three times
	w := newWorld(t)
	cfg := journal.Config{Dir: filepath.Join(t.TempDir(), "s"), Log: discard(), MaxMappings: mappings, Clock: w.clock}
	j, _, err := journal.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	all := make([]portmap.Mapping, mappings)
	for i := range all {
		all[i] = w.mapping(uint64(i + 1))
	}
	if err := errors.Join(write(j, all, nil), j.Close()); err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	j, got, err := journal.Open(cfg)
	runtime.ReadMemStats(&after)
	if err != nil || len(got.Mappings) != mappings {
		t.Fatal(len(got.Mappings), err)
	}
	_ = j.Close()
	each := (after.TotalAlloc - before.TotalAlloc) / mappings
	if t.Logf("%d octets a mapping", each); each > most {
		t.Errorf("%d octets for a mapping, and not %d at most", each, most)
	}
}
