package dhcp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/internal/dhcp"
	"portcullis/internal/slog"
	"portcullis/portmap"
)

// place is a directory with lease files, and a reader of some of them.
type place struct {
	*dhcp.Reader
	t   *testing.T
	dir string
	log *bytes.Buffer
}

// at makes a reader of files in a new directory.
func at(t *testing.T, names ...string) *place {
	t.Helper()
	p := &place{t: t, dir: t.TempDir(), log: new(bytes.Buffer)}
	var files []string
	for _, name := range names {
		files = append(files, p.path(name))
	}
	p.Reader = dhcp.New(dhcp.Config{Files: files, Log: p.logger()})
	return p
}

func (p *place) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(p.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (p *place) path(name string) string { return filepath.Join(p.dir, name) }

func (p *place) write(name string, lines ...string) {
	p.t.Helper()
	if err := os.WriteFile(p.path(name), []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// look makes the reader look, at a time when nothing can have changed unseen.
func (p *place) look() { p.Look(time.Now().Add(time.Hour)) }

// logged says how many lines of the log have the text.
func (p *place) logged(text string) int { return strings.Count(p.log.String(), text) }

var (
	ten   = netip.MustParseAddr("192.168.1.10")
	slaac = netip.MustParseAddr("2001:db8:1::5054:ff:feab:cd01")
	noon  = time.Unix(evening, 0).Add(-13 * time.Hour)
)

// called checks the name of a device at an address.
func (p *place) called(what string, mac byte, addr netip.Addr, want string) {
	p.t.Helper()
	if got := p.Name(device(mac), addr, noon); got != want {
		p.t.Errorf("%s: %s at %s is called %q, want %q", what, device(mac), addr, got, want)
	}
}

// dnsmasq is a line that says so.
func dnsmasq(mac byte, addr netip.Addr, name string, ends int64) string {
	return fmt.Sprintf("%d %s %s %s *", ends, device(mac), addr, name)
}

// TestNames: who gets which name, from the files of one gateway.
func TestNames(t *testing.T) {
	t.Parallel()
	p := at(t, "four", "six")
	eleven, six, lent := netip.MustParseAddr("192.168.1.11"), netip.MustParseAddr("fd00:77::5"), netip.MustParseAddr("fd00:77::6")
	p.write("four",
		dnsmasq(1, ten, "tv", evening),
		dnsmasq(2, eleven, "*", evening),
		dnsmasq(3, netip.MustParseAddr("192.168.1.12"), "old", evening-86400),
		dnsmasq(4, netip.MustParseAddr("192.168.1.13"), "by-cable", evening),
		dnsmasq(4, netip.MustParseAddr("192.168.1.14"), "by-radio", night),
		dnsmasq(4, netip.MustParseAddr("192.168.1.15"), "first", evening),
	)
	p.write("six", "# br-lan 00030001525400abcd01 1 tv-six 1795482000 5 128 fd00:77::5/128",
		"# br-lan 00030001525400abcd02 1 - 1795482000 6 128 fd00:77::6/128",
		"# br-lan 00030001525400abcd03 1 stale 1795395000 7 128 fd00:77::7/128")
	p.look()
	for what, c := range map[string]struct {
		mac  byte
		addr netip.Addr
		want string
	}{
		"a lease of both":                      {1, ten, "tv"},
		"another device at the address":        {2, ten, ""},
		"the device at another address":        {1, eleven, ""},
		"the device at an address in no lease": {1, netip.MustParseAddr("192.168.1.99"), ""},
		"a lease without a name":               {2, eleven, ""},
		"a lease that is over":                 {3, netip.MustParseAddr("192.168.1.12"), ""},
		"IPv6/a lease of its own":              {1, six, "tv-six"},
		"IPv6/in no lease":                     {1, slaac, "tv"},
		"IPv6/link-local":                      {1, netip.MustParseAddr("fe80::1"), "tv"},
		"IPv6/another device at the address":   {2, six, ""},
		"IPv6/leased without a name":           {2, lent, ""},
		"IPv6/another device, known for IPv4":  {1, lent, ""},
		"IPv6/only a lease that is over":       {3, slaac, ""},
		"IPv6/over, taken by another since":    {1, netip.MustParseAddr("fd00:77::7"), "tv"},
		"IPv6/several names, the last to last": {4, slaac, "by-radio"},
		"unknown device":                       {9, slaac, ""},
	} {
		p.called(what, c.mac, c.addr, c.want)
	}
	if got := p.Name(portmap.MAC{}, ten, noon); got != "" {
		t.Errorf("no MAC, and the name %q", got)
	}
	if got := p.Name(device(1), ten, time.Unix(evening, 0)); got != "" {
		t.Errorf("at the end of its lease it is called %q", got)
	}
	if p.logged("level=WARN") > 0 {
		t.Error(p.log)
	}
}

// TestFilesDisagree: the lease that lasts longer counts, wherever it stands.
func TestFilesDisagree(t *testing.T) {
	t.Parallel()
	p := at(t, "1", "2")
	for _, order := range [][2]string{{"1", "2"}, {"2", "1"}} {
		p.write(order[0], dnsmasq(1, ten, "old", evening))
		p.write(order[1], dnsmasq(2, ten, "new", night))
		p.look()
		p.called("who left", 1, ten, "")
		p.called("who came", 2, ten, "new")
		p.called("who left, by IPv6", 1, slaac, "")
		p.write(order[1], dnsmasq(2, ten, "for-ever", 0))
		p.look()
		p.called("who stays", 2, ten, "for-ever")
	}
}

// TestFollows: however a file changes, the next look sees it, and only then is it
// read.
func TestFollows(t *testing.T) {
	t.Parallel()
	p := at(t, "leases")
	step := func(what, want string, reads int) {
		t.Helper()
		p.log.Reset()
		p.look()
		p.look()
		p.called(what, 1, ten, want)
		if got := p.logged("lease file read"); got != reads {
			t.Errorf("%s: read %d times, want %d", what, got, reads)
		}
	}
	step("no file", "", 0)
	p.write("leases", dnsmasq(1, ten, "tv-1", evening))
	step("it appears", "tv-1", 1)
	info, err := os.Stat(p.path("leases"))
	if err != nil {
		t.Fatal(err)
	}
	p.write("leases", dnsmasq(1, ten, "tv-2", evening))
	if err := os.Chtimes(p.path("leases"), info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	step("rewritten, same size, same time", "tv-2", 1)
	p.write("new", dnsmasq(1, ten, "tv-3", evening))
	if err := os.Rename(p.path("new"), p.path("leases")); err != nil {
		t.Fatal(err)
	}
	step("replaced", "tv-3", 1)
	p.write("leases", "address,hwaddr,expire,hostname", "192.168.1.10,"+device(1).String()+",1795482000,tv-4")
	step("of another format", "tv-4", 1)
	p.write("leases")
	step("empty", "", 1)
	p.write("leases", dnsmasq(1, ten, "tv-5", evening))
	step("full again", "tv-5", 1)
	if err := os.Remove(p.path("leases")); err != nil {
		t.Fatal(err)
	}
	step("gone", "", 1)
	if err := os.RemoveAll(p.dir); err != nil {
		t.Fatal(err)
	}
	step("with its directory", "", 0)
}

// TestSettles: a file that has just been written is read again, because a second
// change within the clock's tick does not show.
func TestSettles(t *testing.T) {
	t.Parallel()
	p := at(t, "leases")
	p.write("leases", dnsmasq(1, ten, "tv", evening))
	var st unix.Stat_t
	if err := unix.Stat(p.path("leases"), &st); err != nil {
		t.Fatal(err)
	}
	written := time.Unix(st.Ctim.Unix())
	for _, c := range []struct {
		after time.Duration
		reads int
	}{{time.Millisecond, 1}, {time.Second, 1}, {10 * time.Second, 1}, {11 * time.Second, 0}, {12 * time.Second, 0}, {-time.Hour, 0}} {
		p.log.Reset()
		p.Look(written.Add(c.after))
		if got := p.logged("lease file read"); got != c.reads {
			t.Errorf("%v after it was written: read %d times, want %d", c.after, got, c.reads)
		}
	}
}

// TestRefused: what is not read is said once, and a good file in its place counts
// again.
func TestRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		make func(p *place, path string) error
		says string
	}{
		"directory": {func(_ *place, path string) error { return os.Mkdir(path, 0o755) }, "not a regular file"},
		"FIFO":      {func(_ *place, path string) error { return unix.Mkfifo(path, 0o644) }, "not a regular file"},
		"symbolic link": {func(p *place, path string) error {
			p.write("good", dnsmasq(1, ten, "tv", evening))
			return os.Symlink(p.path("good"), path)
		}, "not a regular file"},
		"too large": {func(p *place, path string) error {
			p.write("leases", dnsmasq(1, ten, "tv", evening))
			return os.Truncate(path, dhcp.MaxFile+1)
		}, "larger than 1 MiB"},
		"rubbish": {func(p *place, _ string) error { p.write("leases", "hello", "world"); return nil }, "damaged=2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := at(t, "leases")
			if err := c.make(p, p.path("leases")); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				p.look()
				p.called("while it is refused", 1, ten, "")
			}
			if p.logged("level=WARN") != 1 || p.logged(c.says) != 1 {
				t.Errorf("want one line with %q:\n%s", c.says, p.log)
			}
			if err := os.RemoveAll(p.path("leases")); err != nil {
				t.Fatal(err)
			}
			p.write("leases", dnsmasq(1, ten, "tv", evening))
			p.look()
			p.look()
			p.called("when it is good", 1, ten, "tv")
			if p.logged("level=INFO") != 1 {
				t.Errorf("nobody was told that it is good again:\n%s", p.log)
			}
		})
	}
}

// TestChangesMeanwhile: what comes into a file's place between the look and the
// opening is not read, and not waited for.
func TestChangesMeanwhile(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(p *place, path string) error
		want   error
	}{
		"nothing": {func(*place, string) error { return nil }, nil},
		"removed": {func(_ *place, path string) error { return os.Remove(path) }, dhcp.ErrBusy},
		"grown":   {func(_ *place, path string) error { return os.Truncate(path, 100) }, dhcp.ErrBusy},
		"shrunk":  {func(_ *place, path string) error { return os.Truncate(path, 1) }, dhcp.ErrBusy},
		"a FIFO":  {func(_ *place, path string) error { return errors.Join(os.Remove(path), unix.Mkfifo(path, 0o644)) }, dhcp.ErrBusy},
		"a symbolic link": {func(_ *place, path string) error {
			return errors.Join(os.Rename(path, path+"x"), os.Symlink(path+"x", path))
		}, unix.ELOOP},
		"a file of the same size": {func(p *place, path string) error { p.write("other", "old"); return os.Rename(p.path("other"), path) }, dhcp.ErrBusy},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := at(t)
			p.write("leases", "new")
			data, err := dhcp.ReadAfter(p.path("leases"), func() {
				if err := c.change(p, p.path("leases")); err != nil {
					t.Fatal(err)
				}
			})
			if !errors.Is(err, c.want) || err == nil && string(data) != "new\n" {
				t.Errorf("read %q, %v; want %v", data, err, c.want)
			}
		})
	}
}

// TestLargest: exactly as much as is allowed is read.
func TestLargest(t *testing.T) {
	t.Parallel()
	p := at(t, "leases")
	line := dnsmasq(1, ten, "tv", evening)
	p.write("leases", strings.Repeat("\n", dhcp.MaxFile-len(line)-2), line)
	if info, err := os.Stat(p.path("leases")); err != nil || info.Size() != dhcp.MaxFile {
		t.Fatalf("%v, %v", info, err)
	}
	p.look()
	p.called("the last line", 1, ten, "tv")
}

// TestForced: with the format named, no other is read.
func TestForced(t *testing.T) {
	t.Parallel()
	p := at(t)
	p.write("leases", dnsmasq(1, ten, "tv", evening))
	for format, want := range map[dhcp.Format]string{dhcp.Dnsmasq: "tv", dhcp.Kea: "", dhcp.ISC: "", dhcp.Odhcpd: ""} {
		p.Reader = dhcp.New(dhcp.Config{Files: []string{string(format) + ":" + p.path("leases")}, Log: p.logger()})
		p.look()
		p.called(string(format), 1, ten, want)
	}
}

// TestUsualPlaces: some are in /tmp, where anybody could put a file.
func TestUsualPlaces(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("files of other users need root")
		}
		t.Skip("files of other users need root")
	}
	p := at(t)
	p.Reader = dhcp.NewUsual(p.logger(), p.path("leases"))
	p.write("leases", dnsmasq(1, ten, "tv", evening))
	for uid, want := range map[int]string{0: "tv", 453: "tv", 1000: "", 65534: ""} {
		if err := os.Chown(p.path("leases"), uid, uid); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal(err)
			}
			t.Skipf("this user namespace has no user %d: %v", uid, err)
		}
		p.look()
		p.called(fmt.Sprintf("of user %d", uid), 1, ten, want)
		named := dhcp.New(dhcp.Config{Files: []string{p.path("leases")}, Log: p.logger()})
		named.Look(time.Now())
		if got := named.Name(device(1), ten, noon); got != "tv" {
			t.Errorf("of user %d, and named in the configuration: %q", uid, got)
		}
	}
}

// TestKeaCleansUp: what Kea has not written anew stands in files beside.
func TestKeaCleansUp(t *testing.T) {
	t.Parallel()
	const head = "address,hwaddr,valid_lifetime,expire,hostname,state"
	row := func(name, lifetime string) string {
		return fmt.Sprintf("192.168.1.10,%s,%s,1795482000,%s,0", device(1), lifetime, name)
	}
	p := at(t, "kea-leases4.csv")
	for _, step := range []struct{ file, row, want string }{
		{".2", row("oldest", "4000"), "oldest"},
		{".1", row("older", "4000"), "older"},
		{"", "", "older"},
		{"", row("x", "0"), ""}, // deleted
		{"", row("new", "4000"), "new"},
		{"", "", "older"},
		{".completed", row("clean", "4000"), "clean"},
		{".1", row("x", "0"), "clean"}, // does not count beside it
		{"", row("newest", "4000"), "newest"},
	} {
		p.write("kea-leases4.csv"+step.file, head, step.row)
		p.look()
		p.called(fmt.Sprintf("%q with %q", step.file, step.row), 1, ten, step.want)
	}
	if p.logged("level=WARN") > 0 {
		t.Error(p.log)
	}
}

// TestRunWatches: where the kernel tells of files, Run looks when something was done to one.
func TestRunWatches(t *testing.T) {
	t.Parallel()
	for what, do := range map[string]func(p *place) error{
		"a file is written": func(p *place) error { p.write("leases", dnsmasq(1, ten, "radio", evening)); return nil },
		"one comes":         func(p *place) error { p.write("more", dnsmasq(1, ten, "radio", evening)); return nil },
		"one is replaced": func(p *place) error {
			p.write("new", dnsmasq(1, ten, "radio", evening))
			return os.Rename(p.path("new"), p.path("leases"))
		},
		"one comes by another name": func(p *place) error { return os.Rename(p.path("other"), p.path("more")) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			p := at(t, "leases", "more")
			p.write("leases", dnsmasq(2, netip.MustParseAddr("192.168.1.11"), "tv", evening))
			p.write("other", dnsmasq(1, ten, "radio", evening))
			rests := make(chan struct{}, 1)
			p.OnRest(func() {
				select {
				case rests <- struct{}{}:
				default:
				}
			})
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- p.Run(ctx) }()
			<-rests // for half a minute, if nothing is told
			p.write("another's", "")
			if err := do(p); err != nil {
				t.Fatal(err)
			}
			for begun := time.Now(); p.Name(device(1), ten, noon) != "radio"; time.Sleep(time.Millisecond) {
				if time.Since(begun) > 20*time.Second {
					t.Fatal("the name does not follow")
				}
			}
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
}

// TestRun: a name follows its file within a moment, and the reader ends when told.
func TestRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := at(t, "leases")
		p.Poll()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- p.Run(ctx) }()
		for _, name := range []string{"tv", "radio"} {
			p.write("leases", dnsmasq(1, ten, name, evening))
			time.Sleep(dhcp.Every + time.Millisecond)
			synctest.Wait()
			p.called("after "+dhcp.Every.String(), 1, ten, name)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// TestNeverWaits: names can be asked for by many while files change.
func TestNeverWaits(t *testing.T) {
	t.Parallel()
	p := at(t, "leases")
	p.write("leases", dnsmasq(1, ten, "tv", evening))
	p.look()
	var asking sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		asking.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if got := p.Name(device(1), ten, noon); got != "tv" && got != "radio" {
						t.Errorf("called %q", got)
						return
					}
				}
			}
		})
	}
	for i := range 100 {
		p.write("new", dnsmasq(1, ten, []string{"tv", "radio"}[i%2], evening))
		if err := os.Rename(p.path("new"), p.path("leases")); err != nil {
			t.Fatal(err)
		}
		p.look()
	}
	close(stop)
	asking.Wait()
}

func BenchmarkName(b *testing.B) {
	r := dhcp.New(dhcp.Config{Files: []string{"testdata/dnsmasq.leases"}, Log: slog.New(slog.DiscardHandler)})
	r.Look(time.Now())
	for b.Loop() {
		if r.Name(device(1), slaac, noon) == "" {
			b.Fatal("no name")
		}
	}
}
