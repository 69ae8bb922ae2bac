package sandbox

import (
	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// Paths are the files that a process may use by their names, where the kernel has
// Landlock. What is open stays open; a path that is not there is left out. The zero value
// is none at all.
type Paths struct {
	Read    bool     // any file may be read, and any directory listed
	Write   []string // directories below which files and directories are made, files written and removed
	Remove  []string // directories below which files are removed
	Files   []string // that are written
	Execute []string // programs; with Config.Programs any may be
	Sockets bool     // any that has a name may be connected to, as its mode allows
	Use     []string // directories below which files are read and programs started
	// Alone says that no process outside may be reached: by TCP that is not connected or
	// listening yet, by a signal, by an abstract unix socket. UDP is left, because to send
	// by a socket that was passed is a right of its own since ABI 10.
	Alone bool
}

// Rights by file and by directory (landlock(7)). What stands in none of these is given to
// nobody: devices, sockets, FIFOs, symbolic links, and a file that changes its directory.
const (
	rightsRead  = ll.AccessFSReadFile | ll.AccessFSReadDir
	rightsFile  = ll.AccessFSWriteFile | ll.AccessFSTruncate
	rightsBelow = rightsFile | ll.AccessFSMakeReg | ll.AccessFSMakeDir | ll.AccessFSRemoveFile
)

// confine leaves what p names to every thread, and returns the version of Landlock's
// interface that does it. Before its version 8 each thread has a domain of its own, and is
// a stranger to the children of the others: a process that is Alone cannot signal its own.
func confine(p Paths, programs bool) (abi int, err error) {
	if abi, err = ll.LandlockGetABIVersion(); err != nil {
		return 0, err
	}
	c := landlock.Config{HandledAccessFS: landlock.V9.HandledAccessFS}
	rules := []landlock.Rule{
		landlock.PathAccess(rightsBelow, p.Write...).IgnoreIfMissing(),
		landlock.PathAccess(ll.AccessFSRemoveFile, p.Remove...).IgnoreIfMissing(),
		landlock.PathAccess(rightsFile, p.Files...).IgnoreIfMissing(),
	}
	if len(p.Use) > 0 {
		rules = append(rules, landlock.PathAccess(rightsRead|ll.AccessFSExecute, p.Use...).IgnoreIfMissing())
	}
	if p.Read {
		c.HandledAccessFS &^= rightsRead
	}
	if p.Sockets {
		c.HandledAccessFS &^= ll.AccessFSResolveUnix
	}
	if programs {
		c.HandledAccessFS &^= ll.AccessFSExecute
	} else {
		rules = append(rules, landlock.PathAccess(ll.AccessFSExecute, p.Execute...).IgnoreIfMissing())
	}
	if p.Alone {
		c.HandledAccessNet, c.Scoped = landlock.V4.HandledAccessNet, landlock.V6.Scoped
	}
	return abi, c.BestEffort().Restrict(rules...)
}
