package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"

	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// confinement, in the environment, makes this program the one that tries what Landlock
// leaves: "off" nothing taken away, "warden", "programs" and "alone" as the daemon's halves
// are confined, "found" only to say that it was started.
const confinement = "PORTCULLIS_TEST_LANDLOCK"

// left is what a confined process has found: of each thing that it tried, what the first
// thread and another said.
type left struct {
	ABI    int
	Failed string
	Errors map[string][2]syscall.Errno
}

// below are the directories of a test: one that holds the state directory, one that holds
// a socket, and one of others.
type below struct{ state, run, other string }

func in(dir string) below {
	return below{filepath.Join(dir, "lib"), filepath.Join(dir, "run"), filepath.Join(dir, "other")}
}

// paths returns what a kind of process may use.
func (b below) paths(how string) Paths {
	switch how {
	case "warden":
		return Paths{Read: true, Write: []string{b.state}, Remove: []string{b.run, b.run + "/nowhere"}, Execute: []string{"/proc/self/exe"}}
	case "programs":
		return Paths{Read: true, Write: []string{b.state}, Remove: []string{b.run}, Files: []string{os.DevNull}}
	}
	return Paths{Alone: true}
}

// tryPaths confines this process, tries, and prints what it has found.
func tryPaths(how string) {
	if how == "found" {
		return
	}
	b := in(os.Getenv("TMPDIR"))
	found := left{Errors: map[string][2]syscall.Errno{}}
	listener, err := abstract()
	asked, answered := make(chan func() error), make(chan error)
	go func() {
		runtime.LockOSThread() // which is there before
		for f := range asked {
			answered <- f()
		}
	}()
	asked <- func() error { return nil }
	err = errors.Join(err, <-answered)
	if err == nil && how != "off" {
		found.ABI, err = confine(b.paths(how), how == "programs")
	}
	if err != nil {
		found.Failed = err.Error()
	}
	try := func(name string, f func() error) {
		var first, second syscall.Errno
		errors.As(f(), &first)
		asked <- f
		errors.As(<-answered, &second)
		found.Errors[name] = [2]syscall.Errno{first, second}
	}
	for name, f := range b.attempts(listener) {
		try(name, f)
	}
	if json.NewEncoder(os.Stdout).Encode(found) != nil {
		os.Exit(3)
	}
}

// attempts are what a process tries; each can be made twice.
func (b below) attempts(listener string) map[string]func() error {
	open := func(name string, flags int) func() error {
		return func() error { return closed(unix.Open(name, flags|unix.O_CLOEXEC, 0)) }
	}
	started := func(name string) func() error {
		return func() error {
			cmd := exec.Command(name)
			cmd.Env = append(os.Environ(), confinement+"=found")
			cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stderr, os.Stderr // exec would open /dev/null
			return cmd.Run()
		}
	}
	return map[string]func() error{
		"read":           open(b.other+"/file", unix.O_RDONLY),
		"list":           open(b.other, unix.O_RDONLY|unix.O_DIRECTORY),
		"write":          open(b.other+"/file", unix.O_WRONLY|unix.O_APPEND),
		"truncate":       func() error { return unix.Truncate(b.other+"/file", 0) },
		"make":           func() error { return made(b.other) },
		"make directory": func() error { return errors.Join(unix.Mkdir(b.other+"/dir", 0o700), unix.Rmdir(b.other+"/dir")) },
		"remove":         func() error { return removed(b.other) },
		"move":           func() error { return moved(b.other+"/file", b.other+"/moved") },
		"move out":       func() error { return moved(b.state+"/file", b.other+"/moved") },
		"write /dev":     open(os.DevNull, unix.O_WRONLY),
		"own: make":      func() error { return made(b.state) },
		"own: directory": func() error { return madeBelow(b.state) },
		"own: FIFO":      func() error { return errors.Join(unix.Mkfifo(b.state+"/fifo", 0o600), unix.Unlink(b.state+"/fifo")) },
		"own: link":      func() error { return errors.Join(unix.Symlink("/etc", b.state+"/link"), unix.Unlink(b.state+"/link")) },
		"run: write":     open(b.run+"/file", unix.O_WRONLY),
		"run: make":      func() error { return made(b.run) },
		"run: remove":    func() error { return removed(b.run) },
		"exec":           started("/bin/true"),
		"exec itself":    started("/proc/self/exe"),
		"TCP bind":       func() error { return onSocket(unix.AF_INET, unix.Bind, &unix.SockaddrInet4{}) },
		"TCP connect": func() error {
			return onSocket(unix.AF_INET, unix.Connect, &unix.SockaddrInet4{Port: 1, Addr: [4]byte{127, 0, 0, 1}})
		},
		"signal":      func() error { return unix.Kill(os.Getppid(), 0) },
		"abstract":    func() error { return onSocket(unix.AF_UNIX, unix.Connect, &unix.SockaddrUnix{Name: listener}) },
		"own threads": func() error { return unix.Tgkill(os.Getpid(), os.Getpid(), 0) },
	}
}

func closed(fd int, err error) error {
	if err == nil {
		err = unix.Close(fd)
	}
	return err
}

// made makes a file as the journal is written anew, and removes it.
func made(dir string) error {
	name := filepath.Join(dir, "made")
	fd, err := unix.Open(name+".new", unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	_, err = unix.Write(fd, []byte("x"))
	return errors.Join(err, unix.Ftruncate(fd, 0), closed(fd, nil), unix.Rename(name+".new", name), unix.Unlink(name))
}

// madeBelow makes a directory, and a file in it.
func madeBelow(dir string) error {
	name := filepath.Join(dir, "below")
	if err := unix.Mkdir(name, 0o700); err != nil && err != unix.EEXIST {
		return err
	}
	return made(name)
}

// removed removes the next of the files that are there for it.
func removed(dir string) error {
	err := unix.Unlink(dir + "/1")
	if err == unix.ENOENT {
		err = unix.Unlink(dir + "/2")
	}
	return err
}

func moved(from, to string) error {
	if err := unix.Rename(from, to); err != nil {
		return err
	}
	return unix.Rename(to, from)
}

func onSocket(family int, call func(int, unix.Sockaddr) error, at unix.Sockaddr) error {
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return errors.Join(call(fd, at), unix.Close(fd))
}

// abstract listens at an abstract unix socket, and returns its name.
func abstract() (string, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	name := fmt.Sprint("@portcullis-test-", os.Getpid())
	return name, errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: name}), unix.Listen(fd, 8))
}

// since says which version of Landlock first refuses something, where it is not 1.
var since = map[string]int{"truncate": 3, "TCP bind": 4, "TCP connect": 4, "signal": 6, "abstract": 6}

// TestLandlock (K11): what Landlock takes away fails on every thread, those that were there
// before too, and only what it takes away.
func TestLandlock(t *testing.T) {
	t.Parallel()
	exe := program(t)
	most, err := ll.LandlockGetABIVersion()
	if err != nil {
		t.Logf("no Landlock here: %v", err)
	}
	warden := []string{"write", "truncate", "make", "make directory", "remove", "move", "move out", "write /dev",
		"own: FIFO", "own: link", "run: write", "run: make", "exec"}
	for how, refused := range map[string][]string{
		"off":      nil,
		"warden":   warden,
		"programs": slices.DeleteFunc(slices.Clone(warden), func(s string) bool { return s == "exec" || s == "write /dev" }),
		"alone": append(slices.Clone(warden), "read", "list", "own: make", "own: directory", "run: remove", "exec itself",
			"TCP bind", "TCP connect", "signal", "abstract"),
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for _, d := range []string{in(dir).state, in(dir).run, in(dir).other} {
				err := os.Mkdir(d, 0o700)
				for _, f := range []string{"file", "1", "2"} {
					err = errors.Join(err, os.WriteFile(filepath.Join(d, f), []byte("x"), 0o600))
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			var found left
			run(t, exe, dir, confinement+"="+how, &found)
			if most == 0 && how != "off" {
				if found.Failed == "" || found.ABI != 0 {
					t.Errorf("without Landlock: %+v", found)
				}
				return
			}
			if found.Failed != "" || how != "off" && found.ABI != most {
				t.Errorf("%q, version %d of %d", found.Failed, found.ABI, most)
			}
			for name, errnos := range found.Errors {
				want := slices.Contains(refused, name) && most >= since[name]
				for i, errno := range errnos {
					is := errno == unix.EACCES || errno == unix.EPERM || name == "move out" && errno == unix.EXDEV
					if is != want || !is && errno != 0 && errno != unix.ECONNREFUSED {
						t.Errorf("%s, thread %d: %v (%d)", name, i, errno, errno)
					}
				}
			}
		})
	}
}
