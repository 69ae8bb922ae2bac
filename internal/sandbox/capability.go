package sandbox

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Capability is the number of one (capabilities(7)).
type Capability uint

// Those that a process can be left with.
const (
	DACOverride    Capability = unix.CAP_DAC_OVERRIDE     // sockets of other users
	NetBindService Capability = unix.CAP_NET_BIND_SERVICE // ports below 1024
	NetAdmin       Capability = unix.CAP_NET_ADMIN        // nf_tables, conntrack, neighbours
	NetRaw         Capability = unix.CAP_NET_RAW          // packet sockets, iptables
)

// String returns its name as capabilities(7) has it.
func (c Capability) String() string {
	switch c {
	case DACOverride:
		return "CAP_DAC_OVERRIDE"
	case NetBindService:
		return "CAP_NET_BIND_SERVICE"
	case NetAdmin:
		return "CAP_NET_ADMIN"
	case NetRaw:
		return "CAP_NET_RAW"
	}
	return fmt.Sprintf("capability %d", uint(c))
}

// capabilities are those of a thread, in the kernel's form: the low half, then the high.
type capabilities [2]unix.CapUserData

// capabilitiesNow returns those of this thread.
func capabilitiesNow() (held capabilities, err error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	err = unix.Capget(&header, &held[0])
	return held, err
}

// effective returns the capabilities that are in force, by number.
func (c capabilities) effective() []Capability {
	var all []Capability
	for n := range Capability(64) {
		if c[n/32].Effective&(1<<(n%32)) != 0 {
			all = append(all, n)
		}
	}
	return all
}

// only returns what of c is in keep, permitted and effective; nothing passes to a program.
func (c capabilities) only(keep []Capability) capabilities {
	var less capabilities
	for _, n := range keep {
		less[n/32].Permitted |= c[n/32].Permitted & (1 << (n % 32))
	}
	for i := range less {
		less[i].Effective = less[i].Permitted
	}
	return less
}

// dropCapabilities leaves those in keep to every thread, as far as they are there, and to
// every program that is ever started. The ambient ones are kept for those that iptables
// needs, where keepAmbient is set.
func dropCapabilities(keep []Capability, keepAmbient bool) error {
	held, err := capabilitiesNow()
	if err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	if err := bound(keep); err != nil {
		return err
	}
	less := held.only(keep)
	if keepAmbient {
		for i := range less {
			less[i].Inheritable = held[i].Inheritable & less[i].Permitted
		}
	} else if err := onAllThreads(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0); err != nil {
		return fmt.Errorf("clear the ambient capabilities: %w", err)
	}
	header := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	err = onAllThreads(unix.SYS_CAPSET, uintptr(unsafe.Pointer(header)), uintptr(unsafe.Pointer(&less[0])), 0)
	if err != nil && !held.within(less) {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	return nil // a service manager that has taken capset has taken the others before
}

// within reports whether c has nothing that more has not, permitted and effective.
func (c capabilities) within(more capabilities) bool {
	for i := range c {
		if (c[i].Permitted|c[i].Effective)&^more[i].Permitted != 0 {
			return false
		}
	}
	return true
}

// bound takes all but keep out of the bounding set. Without CAP_SETPCAP, as under a
// supervisor that gave little, it stays as it is: no_new_privs has its effect.
func bound(keep []Capability) error {
	for n := uintptr(0); ; n++ {
		in, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, n, 0, 0, 0)
		if err != nil { // beyond the last that this kernel knows
			return nil
		}
		kept := false
		for _, k := range keep {
			kept = kept || uintptr(k) == n
		}
		if in == 0 || kept {
			continue
		}
		switch err := onAllThreads(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, n, 0); err {
		case nil:
		case unix.EPERM:
			return nil
		default:
			return fmt.Errorf("drop capability %d from the bounding set: %w", n, err)
		}
	}
}

// errCgo is what syscall.AllThreadsSyscall means by ENOTSUP. Landlock has another meaning
// for it: that it is switched off.
var errCgo = errors.New("a program built with cgo cannot do it; build with CGO_ENABLED=0")

// onAllThreads makes a system call on every thread of the process.
func onAllThreads(trap, a, b, c uintptr) error {
	switch _, _, errno := syscall.AllThreadsSyscall6(trap, a, b, c, 0, 0, 0); errno {
	case 0:
		return nil
	case unix.ENOTSUP:
		return errCgo
	default:
		return errno
	}
}
