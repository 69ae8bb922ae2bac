package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// User is a user and a group of the machine.
type User struct{ UID, GID uint32 }

// Who the front is: the user of this name where there is one, or these numbers, which
// Debian leaves to whoever wants them, and which nobody else here should have.
const (
	frontName   = "portcullis"
	frontNumber = 64998
)

// FrontUser returns who the front can be: zero where this process cannot give it another
// user than its own, because it is not root.
func FrontUser() User {
	if os.Geteuid() != 0 {
		return User{}
	}
	u, err := user.Lookup(frontName)
	if err != nil {
		return User{frontNumber, frontNumber}
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil || err2 != nil || uid == 0 {
		return User{frontNumber, frontNumber}
	}
	return User{uint32(uid), uint32(gid)}
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
			// Whoever becomes another user forgets with whom it was to end.
			onAllThreads(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0))
	case Warden:
		return errors.Join(noGroups(), syscall.Setresgid(same, same, int(u.GID)), syscall.Setresuid(same, same, int(u.UID)))
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

// Borrow makes u the real user of this thread alone, after Enter in a warden: what it
// starts can become u, and it can end what is u. The thread must be locked to its
// goroutine, and end with it.
func (u User) Borrow() error {
	if u == (User{}) {
		return nil
	}
	for _, c := range []struct {
		id    uint32
		names []string
	}{{u.GID, []string{"setresgid32", "setresgid"}}, {u.UID, []string{"setresuid32", "setresuid"}}} {
		number, there := native.number(c.names[0])
		if !there {
			number, there = native.number(c.names[1])
		}
		if !there {
			return fmt.Errorf("no system call %s", c.names[1])
		}
		if _, _, errno := unix.RawSyscall(uintptr(number), uintptr(c.id), ^uintptr(0), ^uintptr(0)); errno != 0 {
			return fmt.Errorf("%s: %w", c.names[1], errno)
		}
	}
	return nil
}
