package openwrt

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// jailed is where a program of ujail's has its files.
const jailed = "/tmp/jail"

// ujail starts a program among no other files than those that it is told of, with the rights
// that it is told, as process 1 of its own. It passes signals on, and kills what does not end.
func ujail(args []string) int {
	runtime.LockOSThread() // what this thread gives up, its child does not have
	err := errors.Join(os.MkdirAll(jailed, 0o755), unix.Mount("tmpfs", jailed, "tmpfs", 0, "mode=755"),
		show("/dev/null", true), os.MkdirAll(jailed+"/proc", 0o755))
	account, patience := "root", 0
	for len(args) > 0 && args[0] != "--" && err == nil {
		n := 2
		switch args[0] {
		case "-p": // it has /proc anyway
			n = 1
		case "-c":
			n = 1
			err = unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		case "-t":
			patience, err = strconv.Atoi(args[1])
		case "-U":
			account = args[1]
		case "-C":
			err = bound(args[1])
		case "-r", "-w":
			err = show(args[1], args[0] == "-w")
		}
		args = args[n:]
	}
	if err != nil || len(args) < 2 {
		return failed(fmt.Errorf("ujail: %w", err))
	}
	if err := show(args[1], false); err != nil {
		return failed(err)
	}
	cmd := exec.Command("/proc/self/exe", append([]string{account}, args[1:]...)...)
	cmd.Args[0] = "inside"
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	told := make(chan os.Signal, 8)
	signal.Notify(told, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR2)
	if err := cmd.Start(); err != nil {
		return failed(err)
	}
	go func() {
		for s := range told {
			_ = cmd.Process.Signal(s)
			if s == syscall.SIGTERM {
				time.AfterFunc(time.Duration(patience)*time.Second, func() { _ = cmd.Process.Kill() })
			}
		}
	}()
	_ = cmd.Wait()
	return cmd.ProcessState.ExitCode()
}

// show makes a file, or a directory, one of a jail's. What is not there is left out.
func show(path string, writable bool) error {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	at := jailed + path
	if info.IsDir() {
		err = os.MkdirAll(at, 0o755)
	} else if err = os.MkdirAll(filepath.Dir(at), 0o755); err == nil {
		err = os.WriteFile(at, nil, 0o644)
	}
	if err == nil {
		err = unix.Mount(path, at, "", unix.MS_BIND, "")
	}
	if err == nil && !writable {
		err = unix.Mount("", at, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
	}
	return err
}

// needed are the capabilities that inside uses, and drops after that.
var needed = []uintptr{unix.CAP_SYS_CHROOT, unix.CAP_SYS_ADMIN, unix.CAP_SETUID, unix.CAP_SETGID, unix.CAP_SETPCAP}

// bound drops all capabilities from the bounding set that a file of OpenWrt's form does not
// name; only CAP_NET_ADMIN is known here.
func bound(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	sets := map[string][]string{}
	if err := json.Unmarshal(text, &sets); err != nil {
		return err
	}
	for _, name := range []string{"bounding", "effective", "ambient", "permitted", "inheritable"} {
		if len(sets[name]) != 1 || sets[name][0] != "CAP_NET_ADMIN" {
			return fmt.Errorf("%s: %s is %q", file, name, sets[name])
		}
	}
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if c != unix.CAP_NET_ADMIN && !slices.Contains(needed, c) {
			_ = unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0) // one that this kernel does not know
		}
	}
	return nil
}

// inside is ujail's child: it takes the jail for its root, becomes the user, and then the
// program.
func inside(args []string) int {
	runtime.LockOSThread()
	account, err := user.Lookup(args[0])
	if err != nil {
		return failed(err)
	}
	id, err := strconv.Atoi(account.Uid)
	if err != nil {
		return failed(err)
	}
	steps := []error{
		unix.Mount("proc", jailed+"/proc", "proc", 0, ""),
		unix.Chroot(jailed),
		os.Chdir("/"),
	}
	for _, c := range needed {
		steps = append(steps, unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0))
	}
	steps = append(steps, become(id))
	if err := errors.Join(steps...); err != nil {
		return failed(err)
	}
	return failed(syscall.Exec(args[1], args[1:], os.Environ()))
}

// become gives this thread a user and CAP_NET_ADMIN alone, for what it executes.
func become(id int) error {
	for _, call := range [][4]uintptr{
		{unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1, 0},
		{unix.SYS_SETGROUPS, 0, 0, 0},
		{unix.SYS_SETRESGID, uintptr(id), uintptr(id), uintptr(id)},
		{unix.SYS_SETRESUID, uintptr(id), uintptr(id), uintptr(id)},
	} {
		if _, _, e := syscall.RawSyscall(call[0], call[1], call[2], call[3]); e != 0 {
			return e
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	only := [2]unix.CapUserData{{Effective: 1 << unix.CAP_NET_ADMIN, Permitted: 1 << unix.CAP_NET_ADMIN, Inheritable: 1 << unix.CAP_NET_ADMIN}}
	if err := unix.Capset(&header, &only[0]); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, unix.CAP_NET_ADMIN, 0, 0)
}
