package sandbox

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"portcullis/internal/accounts"
)

// User is a user and a group of the machine.
type User struct{ UID, GID uint32 }

// Who other processes of ours are: the users of these names where there are such, or these
// numbers, which Debian leaves to whoever wants them, and which nobody else here should have.
const (
	frontName   = "portcullis"
	frontNumber = 64998
	pageName    = "portcullis-web"
	pageNumber  = 64997 // not the front's: that one is kept on the LANs
	hookNumber  = 64996 // of the owner's program
)

// FrontUser returns who the front can be: zero where this process cannot give it another
// user than its own, because it is not root.
func FrontUser() User { return userCalled(frontName, frontNumber) }

// PageUser is FrontUser for the process that serves the owner's page.
func PageUser() User { return userCalled(pageName, pageNumber) }

func userCalled(name string, number uint32) User {
	if os.Geteuid() != 0 {
		return User{}
	}
	uid, gid, err := accounts.User(name)
	if err != nil || uid == 0 {
		return User{number, number}
	}
	return User{uid, gid}
}

// HookUser returns who the owner's program can be, likewise; and where this process is not
// root, but has what it takes.
func HookUser() User {
	if os.Geteuid() != 0 {
		held, err := capabilitiesNow()
		if has := held.effective(); err != nil || !slices.Contains(has, unix.CAP_SETUID) || !slices.Contains(has, unix.CAP_SETGID) {
			return User{}
		}
	}
	return User{hookNumber, hookNumber}
}

// same leaves a number of setresuid(2) as it is.
const same = -1

// enter makes a front u, on all threads. A warden stays root, and keeps u as the user that
// it could have been: so it can start a process as u, and end it, without a capability.
func (u User) enter(r Role) error {
	switch r {
	case Front:
		return errors.Join(
			syscall.Setresgid(int(u.GID), int(u.GID), int(u.GID)), syscall.Setresuid(int(u.UID), int(u.UID), int(u.UID)),
			// Whoever becomes another user forgets with whom it was to end, and that it is hidden.
			onAllThreads(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0), hide())
	case Warden:
		return errors.Join(noGroups(), syscall.Setresgid(same, same, int(u.GID)), syscall.Setresuid(same, same, int(u.UID)), hide(),
			u.Make(func() error { return nil })) // a service manager may have taken what that needs
	}
	return nil
}

// noGroups gives up what other groups may do, which a front would have too.
func noGroups() error {
	all, err := unix.Getgroups()
	if err != nil || len(all) == 0 {
		return err
	}
	return syscall.Setgroups(nil)
}

// Make runs f, whose sockets are u's to the firewall, whoever uses them, after Enter in a
// warden. f makes them on the goroutine that it is called on.
func (u User) Make(f func() error) error {
	if u == (User{}) {
		return f()
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := u.make(f)
		if becomes(uint32(os.Geteuid())) == nil { // #nosec G115 -- the kernel's are
			runtime.UnlockOSThread() // or nobody else goes on as u, and the thread ends
		}
		done <- err
	}()
	return <-done
}

func (u User) make(f func() error) error {
	if err := becomes(u.UID); err != nil {
		return err
	}
	return f()
}

// becomes makes this thread, and no other, a user's to files and to sockets that it makes.
// setfsuid(2) tells who it was, and never an error.
func becomes(uid uint32) error {
	number, err := native.either("setfsuid32", "setfsuid")
	if err != nil {
		return err
	}
	_, _, _ = unix.RawSyscall(number, uintptr(uid), 0, 0)
	now, _, _ := unix.RawSyscall(number, ^uintptr(0), 0, 0)
	_ = hide() // where that cannot be, Enter has said so

	if uint32(now) != uid { // #nosec G115 -- a user's number
		return fmt.Errorf("setfsuid: %w", unix.EPERM)
	}
	return nil
}

// hide keeps others of the same user from looking into the process, and the kernel from
// writing its memory to a file. A process that becomes another user, even to files alone and
// on one thread, is as fs.suid_dumpable says after it.
func hide() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }

// Borrow makes u the real user of this thread alone, after Enter in a warden: what it
// starts can become u, and it can end what is u. The thread must be locked to its
// goroutine for ever.
func (u User) Borrow() error {
	if u == (User{}) {
		return nil
	}
	for _, c := range []struct {
		id   uint32
		name string
	}{{u.GID, "setresgid"}, {u.UID, "setresuid"}} {
		number, err := native.either(c.name+"32", c.name)
		if err != nil {
			return err
		}
		_, _, errno := unix.RawSyscall(number, uintptr(c.id), ^uintptr(0), ^uintptr(0))
		_ = hide()
		if errno != 0 {
			return fmt.Errorf("%s: %w", c.name, errno)
		}
	}
	return nil
}

// either returns the number of a call that has two names: where users had numbers of 16
// bits, the first is for those of 32.
func (p processor) either(name, other string) (uintptr, error) {
	number, there := p.number(name)
	if !there {
		number, there = p.number(other)
	}
	if !there {
		return 0, fmt.Errorf("no system call %s", other)
	}
	return uintptr(number), nil
}
