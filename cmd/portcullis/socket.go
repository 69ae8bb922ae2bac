package main

import (
	"io/fs"
	"os"
	"syscall"

	"portcullis/config"
)

// placed returns where a control socket is. Some routers have no /run, nor a root directory in
// which one could be made: what would be there is in /var/run, if nobody but root writes there.
func placed(s config.Socket) config.Socket { return placedIn(s, "/run", "/var/run") }

func placedIn(s config.Socket, usual, otherwise string) config.Socket {
	if info, err := os.Stat(usual); s != config.Default().Control.Socket || err == nil && info.IsDir() {
		return s
	}
	if info, err := os.Stat(otherwise); err != nil || !info.IsDir() || !closed(info) {
		return s
	}
	return config.Socket(otherwise + "/portcullis/control.sock")
}

// closed reports whether a directory is root's, or this user's, and nobody else may write in it.
func closed(dir fs.FileInfo) bool {
	of, ok := dir.Sys().(*syscall.Stat_t)
	return ok && dir.Mode().Perm()&0o022 == 0 && (of.Uid == 0 || int(of.Uid) == os.Geteuid())
}
