package leasefile_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"portcullis/internal/leasefile"
	"portcullis/internal/slog"
	"portcullis/portmap"
)

// house is a table of mappings, and the files that show it.
type house struct {
	t      *testing.T
	table  *portmap.Table
	file   string
	waits  []portmap.Mapping
	closed []uint64
	fails  error // of closing one
	log    strings.Builder
	*leasefile.Keeper
}

func newHouse(t *testing.T) *house {
	h := &house{t: t, table: portmap.NewTable(), file: filepath.Join(t.TempDir(), "run", "leases")}
	h.start()
	return h
}

// start is a start of the daemon, with the mappings that there are.
func (h *house) start(change ...func(*leasefile.Config)) {
	cfg := leasefile.Config{
		Log: slog.New(slog.NewTextHandler(&h.log, nil)), File: h.file, File6: h.file + "6",
		Snapshot: func() *portmap.Table { return h.table },
		Waiting:  func() []portmap.Mapping { return h.waits },
		Delete: func(_ context.Context, id uint64) error {
			if h.fails != nil {
				return h.fails
			}
			h.closed = append(h.closed, id)
			h.end(id)
			h.waits = slices.DeleteFunc(h.waits, func(m portmap.Mapping) bool { return m.ID == id })
			return nil
		},
	}
	for _, c := range change {
		c(&cfg)
	}
	h.Keeper = leasefile.New(cfg)
}

// turn makes a turn of the Keeper, some seconds after the files were written.
func (h *house) turn() time.Duration { return h.Turn(h.t.Context(), time.Now().Add(5*time.Second)) }

func (h *house) open(id uint64, port uint16, change ...func(*portmap.Mapping)) {
	host := netip.AddrPortFrom(netip.MustParseAddr("192.168.1.20"), port)
	now := time.Now()
	m := portmap.Mapping{
		ID: id, Transport: portmap.TCP, Internal: host, ExternalPort: port, Description: "game",
		Client:  portmap.Client{Addr: host.Addr(), Interface: "br-lan", Via: portmap.ViaUPnP},
		Claims:  portmap.Vias(0).With(portmap.ViaUPnP),
		Created: now, Expires: now.Add(time.Hour),
	}
	for _, c := range change {
		c(&m)
	}
	h.table = h.table.Commit(portmap.Change{Event: portmap.Granted, New: &m})
	h.Dirty()
}

func (h *house) end(id uint64) {
	for m := range h.table.All() {
		if m.ID == id {
			h.table = h.table.Commit(portmap.Change{Event: portmap.Deleted, Old: &m})
			return
		}
	}
}

// three opens three mappings and has them written.
func (h *house) three() {
	for i := range uint16(3) {
		h.open(uint64(i+1), 6000+i)
	}
	h.turn()
	h.wants(6000, 6001, 6002)
}

func (h *house) lines() []string {
	h.t.Helper()
	text, err := os.ReadFile(h.file)
	if err != nil {
		h.t.Fatal(err)
	}
	return strings.SplitAfter(strings.TrimSuffix(string(text), "\n"), "\n")
}

// wants compares the ports of the file.
func (h *house) wants(ports ...int) {
	h.t.Helper()
	var want, got []string
	for _, p := range ports {
		want = append(want, fmt.Sprint("TCP:", p))
	}
	for _, l := range h.lines() {
		if l != "" {
			got = append(got, strings.Join(strings.SplitN(l, ":", 3)[:2], ":"))
		}
	}
	if !slices.Equal(got, want) {
		h.t.Errorf("the file has %q, want %q", got, want)
	}
}

// wantsClosed compares what was closed since the last time.
func (h *house) wantsClosed(ids ...uint64) {
	h.t.Helper()
	if !slices.Equal(h.closed, ids) {
		h.t.Errorf("closed are %v, want %v\n%s", h.closed, ids, &h.log)
	}
	h.closed = nil
}

// rename writes a file as `sed -i` does; write as an editor that keeps the file does.
func (h *house) rename(text string) {
	h.t.Helper()
	next := h.file + ".sed"
	if err := errors.Join(os.WriteFile(next, []byte(text), 0o644), os.Rename(next, h.file)); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) write(text string) {
	h.t.Helper()
	if err := os.WriteFile(h.file, []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// without returns the file without some lines, from 0.
func (h *house) without(gone ...int) string {
	var b strings.Builder
	for i, l := range h.lines() {
		if !slices.Contains(gone, i) {
			b.WriteString(strings.TrimSuffix(l, "\n") + "\n")
		}
	}
	return b.String()
}

// TestLines: the forms that readers of miniupnpd's files know; what a device has chosen can
// neither begin a field or a line nor mean something to a page.
func TestLines(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	via := func(v portmap.Via) func(*portmap.Mapping) {
		return func(m *portmap.Mapping) { m.Client.Via, m.Nonce = v, portmap.Nonce{1, 2, 3} }
	}
	calls := func(text string) func(*portmap.Mapping) {
		return func(m *portmap.Mapping) { m.Description = text }
	}
	h.open(9, 6009, calls("a:b\nTCP:1:2.3.4.5:6:7:x<img src='y'>\xff\u202e"))
	h.open(2, 6002, via(portmap.ViaPCP))
	h.open(3, 6003, via(portmap.ViaNATPMP), func(m *portmap.Mapping) { m.Transport = portmap.UDP })
	h.open(4, 6004, func(m *portmap.Mapping) { m.Expires = time.Time{} })
	h.open(5, 6005, calls(strings.Repeat("ä", 200)))
	h.open(6, 6006, func(m *portmap.Mapping) { m.Disabled = true })
	h.open(7, 6007, func(m *portmap.Mapping) { m.Suspended = time.Now() })
	pin := func(m *portmap.Mapping) {
		m.Kind, m.Internal, m.Number = portmap.Pinhole6, netip.MustParseAddrPort("[2001:db8::20]:6008"), 77
		m.Remotes = []portmap.Remote{{Prefix: netip.MustParsePrefix("2001:db8:5::7/128"), Port: 53}}
	}
	h.open(8, 6008, pin, calls("a;b: c"))
	now := time.Now()
	h.Turn(t.Context(), now)
	end := now.Add(time.Hour).Unix()
	want := fmt.Sprintf(`TCP:6002:192.168.1.20:6002:%d:PCP MAP 000000000000000000000000
UDP:6003:192.168.1.20:6003:%d:NAT-PMP 6003 udp
TCP:6004:192.168.1.20:6004:0:game
TCP:6005:192.168.1.20:6005:%d:%s
TCP:6009:192.168.1.20:6009:%d:a_b_TCP_1_2.3.4.5_6_7_x_img src=_y____
`, end, end, end, strings.Repeat("ä", 80), end)
	want6 := fmt.Sprintf("TCP;2001:db8::20;6008;2001:db8:5::7;53;77;%d;a_b_ c\n", end)
	for file, want := range map[string]string{h.file: want, h.file + "6": want6} {
		got, err := os.ReadFile(file)
		// A second may have begun meanwhile.
		if fixed := strings.ReplaceAll(string(got), fmt.Sprint(end-1), fmt.Sprint(end)); err != nil || fixed != want {
			t.Errorf("%v\n%s\nwant\n%s", err, got, want)
		}
	}
}

// TestBound: there are no more lines than a page has rows for.
func TestBound(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for i := range uint16(leasefile.Most + 10) {
		h.open(uint64(i+1), 10000+i)
	}
	h.turn()
	if l := h.lines(); len(l) != leasefile.Most || !strings.HasPrefix(l[0], "TCP:10000:") {
		t.Errorf("there are %d lines, the first is %q", len(l), l[0])
	}
}

// TestDeleted: lines that are taken out close their mappings, and no other; however the file
// was written, and whether it was written again meanwhile.
func TestDeleted(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		delete func(*house)
		closed []uint64
		left   []int
	}{
		"one by sed":            {func(h *house) { h.rename(h.without(1)) }, []uint64{2}, []int{6000, 6002}},
		"one by an editor":      {func(h *house) { h.write(h.without(0)) }, []uint64{1}, []int{6001, 6002}},
		"two":                   {func(h *house) { h.rename(h.without(0, 2)) }, []uint64{1, 3}, []int{6001}},
		"all":                   {func(h *house) { h.rename("") }, []uint64{1, 2, 3}, nil},
		"without the last end":  {func(h *house) { h.rename(strings.TrimSuffix(h.without(1), "\n")) }, []uint64{2}, []int{6000, 6002}},
		"none, it is the same":  {func(h *house) { h.rename(h.without()) }, nil, []int{6000, 6001, 6002}},
		"of the version before": {func(h *house) { old := h.without(1); h.open(4, 6003); h.turn(); h.rename(old) }, []uint64{2}, []int{6000, 6002, 6003}},
		"and one more has come": {func(h *house) { h.rename(h.without(1)); h.open(4, 6003) }, []uint64{2}, []int{6000, 6002, 6003}},
	} {
		for _, running := range []bool{true, false} {
			if name == "of the version before" && !running {
				continue // the daemon has written before it ended, and then nobody reads the version before
			}
			t.Run(fmt.Sprintf("%s, running %v", name, running), func(t *testing.T) {
				t.Parallel()
				h := newHouse(t)
				h.three()
				c.delete(h)
				if !running {
					h.start()
				}
				h.turn()
				h.wantsClosed(c.closed...)
				h.wants(c.left...)
				h.turn()
				h.wantsClosed()
			})
		}
	}
}

// TestSaysNothing: what is no deletion of lines closes nothing and opens nothing, and is
// written over.
func TestSaysNothing(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(*house){
		"the file is removed":            func(h *house) { os.Remove(h.file) },
		"a line is added":                func(h *house) { h.rename(h.without() + "TCP:22:192.168.1.1:22:0:x\n") },
		"a line is another":              func(h *house) { h.rename(strings.Replace(h.without(1), "6002", "22", 1)) },
		"the order is another":           func(h *house) { l := h.lines(); h.rename(l[1] + l[0]) },
		"an empty line":                  func(h *house) { h.rename("\n" + h.without(1)) },
		"somebody else's":                func(h *house) { h.rename("\x00\xff") },
		"endless":                        func(h *house) { h.rename(strings.Repeat("x\n", leasefile.MaxFile)) },
		"a directory":                    func(h *house) { os.Remove(h.file); os.Mkdir(h.file, 0o755) },
		"a link":                         func(h *house) { os.Remove(h.file); os.Symlink("/dev/null", h.file) },
		"a pipe":                         func(h *house) { os.Remove(h.file); syscall.Mkfifo(h.file, 0o666) },
		"another user's":                 func(h *house) { h.rename(h.without(1)); os.Chown(h.file, 12345, 0) },
		"anybody's":                      func(h *house) { h.rename(h.without(1)); os.Chmod(h.file, 0o666) },
		"its copy is gone":               func(h *house) { os.Remove(h.file + ".written"); h.rename(h.without(1)); h.start() },
		"its copy is of another run":     func(h *house) { h.copyOf("another"); h.rename(h.without(1)); h.start() },
		"its copy is torn":               func(h *house) { h.tear(); h.rename(h.without(1)); h.start() },
		"its mapping is another now":     func(h *house) { h.rename(h.without(1)); h.end(2); h.start(); h.open(2, 7000) },
		"a mapping came and was not yet": func(h *house) { h.open(4, 6003); h.start(); h.end(4) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name == "another user's" && os.Geteuid() != 0 {
				t.Skip("only root can make it")
			}
			h := newHouse(t)
			h.three()
			do(h)
			h.turn()
			h.wantsClosed()
			if name == "a directory" { // which is in nobody's way but ours
				h.turn()
				if !strings.Contains(h.log.String(), "lease file") {
					t.Error("nobody is told")
				}
				return
			}
			h.turn()
			if name == "its mapping is another now" {
				h.wants(6000, 7000, 6002)
				return
			}
			h.wants(6000, 6001, 6002)
			h.rename(h.without(0))
			h.turn()
			h.wantsClosed(1)
		})
	}
}

// copyOf has the copy be of another run of the machine.
func (h *house) copyOf(boot string) {
	text, _ := os.ReadFile(h.file + ".written")
	os.WriteFile(h.file+".written", []byte(strings.Replace(string(text), leasefile.BootID(), boot, 1)), 0o644)
}

func (h *house) tear() {
	text, _ := os.ReadFile(h.file + ".written")
	os.WriteFile(h.file+".written", text[:len(text)-5], 0o644)
}

// TestBeingWritten: a file that somebody is writing is neither read nor replaced.
func TestBeingWritten(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.three()
	whole := h.without(1)
	h.write("") // and will go on
	h.open(4, 6003)
	if again := h.Turn(t.Context(), time.Now()); again > time.Second {
		t.Errorf("it is looked at again in %v", again)
	}
	h.wantsClosed()
	h.write(whole)
	h.turn()
	h.wantsClosed(2)
	h.wants(6000, 6002, 6003)
}

// TestTaken: whoever writes the file while we do is not written over.
func TestTaken(t *testing.T) {
	t.Parallel()
	for name, meanwhile := range map[string]func(path string){
		"a file where there was none": func(path string) { os.WriteFile(path, []byte("theirs"), 0o644) },
		"another file":                func(path string) { os.WriteFile(path+".x", []byte("theirs"), 0o644); os.Rename(path+".x", path) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "leases")
			if name == "another file" {
				os.WriteFile(path, []byte("ours"), 0o644)
			}
			err := leasefile.Replace(path, []byte("next"), func() { meanwhile(path) })
			if text, _ := os.ReadFile(path); !errors.Is(err, leasefile.ErrTaken) || string(text) != "theirs" {
				t.Errorf("%v; there is %q", err, text)
			}
			if _, err := os.Stat(path + ".new"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("what was not written is left: %v", err)
			}
		})
	}
	path := filepath.Join(t.TempDir(), "leases")
	os.WriteFile(path, []byte("ours"), 0o644)
	if err := leasefile.Replace(path, []byte("next"), func() { os.Remove(path) }); err != nil {
		t.Errorf("where it has been removed: %v", err)
	}
}

// TestMistaken: a path at which there is something else is told of, and that is let be.
func TestMistaken(t *testing.T) {
	t.Parallel()
	for name, there := range map[string]func(path string) error{
		"a file":      func(path string) error { return os.WriteFile(path, []byte("config upnpd\n"), 0o644) },
		"a link":      func(path string) error { return os.Symlink("/dev/null", path) },
		"a directory": func(path string) error { return os.Mkdir(path, 0o755) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			if err := there(h.file); err != nil {
				t.Fatal(err)
			}
			before, err := os.Lstat(h.file)
			if err != nil {
				t.Fatal(err)
			}
			h.open(1, 6000)
			h.turn()
			h.turn()
			after, err := os.Lstat(h.file)
			if err != nil || !os.SameFile(before, after) || strings.Count(h.log.String(), "that is no lease file") != 1 {
				t.Errorf("%v\n%s", err, &h.log)
			}
			if err := os.Remove(h.file); err != nil {
				t.Fatal(err)
			}
			h.turn()
			h.wants(6000)
		})
	}
	h := newHouse(t)
	h.write("UDP:53:192.168.1.9:53:0:of miniupnpd\n")
	h.start()
	h.turn()
	if h.wantsClosed(); h.lines()[0] != "" {
		t.Errorf("miniupnpd's own file is %q", h.lines())
	}
}

// TestTriedAgain: what cannot be closed is tried again, and a file that cannot be written is
// told of once.
func TestTriedAgain(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.three()
	h.rename(h.without(1))
	h.fails = errors.New("busy")
	h.turn()
	h.wantsClosed()
	h.fails = nil
	h.turn()
	h.wantsClosed(2)

	dir := filepath.Dir(h.file)
	os.Rename(dir, dir+"-gone")
	for range 3 {
		h.Dirty()
		h.turn()
	}
	os.Rename(dir+"-gone", dir)
	h.turn()
	if log := h.log.String(); strings.Count(log, "cannot write the lease file") != 1 || strings.Count(log, "is written again") != 1 {
		t.Errorf("the log has\n%s", log)
	}
}

// TestWaits: what waits for its LAN is closed where it waits, so that no later run need know
// of it; and what is neither there nor waits is forgotten.
func TestWaits(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.three()
	h.rename(h.without(0, 1))
	h.end(2)
	for m := range h.table.All() {
		h.waits = append(h.waits, m)
	}
	table := h.table
	h.table = portmap.NewTable()
	h.start()
	h.turn()
	h.wantsClosed(1)
	if len(h.waits) != 1 || h.waits[0].ID != 3 {
		t.Errorf("there wait %v", h.waits)
	}
	h.start()
	h.table = table
	h.open(2, 6001) // as a mapping that nobody has deleted
	h.turn()
	h.wantsClosed()
}

// TestShownRarely: where rules are to follow the file, both are written every three seconds at
// most, and together.
func TestShownRarely(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	shown := 0
	h.start(func(c *leasefile.Config) { c.Show = func(context.Context, []portmap.Mapping) { shown++ } })
	now := time.Now().Add(5 * time.Second)
	h.open(1, 6000)
	h.Turn(t.Context(), now)
	h.open(2, 6001)
	for i := range 3 {
		if again := h.Turn(t.Context(), now.Add(time.Duration(i)*time.Second)); again > 3*time.Second || again <= 0 {
			t.Errorf("it is looked at again in %v", again)
		}
		h.wants(6000)
	}
	if shown != 1 {
		t.Errorf("rules were shown %d times", shown)
	}
	h.Turn(t.Context(), now.Add(3*time.Second))
	if h.wants(6000, 6001); shown != 2 {
		t.Errorf("rules were shown %d times", shown)
	}
}
