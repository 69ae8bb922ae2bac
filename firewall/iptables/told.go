package iptables

import (
	"os"
	"sync"
	"time"

	"portcullis/internal/inotify"
)

// believed is how long rules are taken to be as they were, because nothing was told.
const believed = 10 * time.Minute

// looks is what is known of the rules in FORWARD without running a program. The programs
// of iptables-nft are heard as nftables is.
type looks struct {
	mu      sync.Mutex // guards what follows
	heard   bool       // every change is told
	changed bool       // since the last look began
	last    time.Time  // when all was last found as it should be
}

// told notes that there was a change, and that every other one is told from now on.
func (l *looks) told() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard, l.changed = true, true
}

// deaf notes that changes are not told any more.
func (l *looks) deaf() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard = false
}

// needless reports whether a look would find what the last one did. If not, one begins.
func (l *looks) needless() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.heard && !l.changed && time.Since(l.last) < believed {
		return true
	}
	l.changed = false
	return false
}

// found notes what came of a look.
func (l *looks) found(whole bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if whole {
		l.last = time.Now()
	} else {
		l.changed = true
	}
}

// locks are the files that the programs of iptables-legacy open for each change, by
// whichever name they were built with (iptables(8), XTABLES_LOCKFILE).
func locks() []string {
	all := []string{"/run/xtables.lock", "/var/run/xtables.lock"}
	if name := os.Getenv("XTABLES_LOCKFILE"); name != "" {
		all = append(all, name)
	}
	return all
}

// watchLocks has the kernel tell of each use of the locks. It reports whether it does:
// there is such a file from the first change on, our own.
func watchLocks(w *inotify.Watcher) bool {
	heard := false
	for _, name := range locks() {
		if there, err := w.WatchUse(name); err == nil && there {
			heard = true
		}
	}
	return heard
}
