package sandbox

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// CloseOnExec has no program that this process starts or becomes get what is open from the
// descriptor first on: whoever started the daemon may have left something open.
func CloseOnExec(first int) error {
	all, err := os.Open("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("list open files: %w", err)
	}
	defer all.Close()
	names, err := all.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("list open files: %w", err)
	}
	for _, name := range names {
		if fd, err := strconv.Atoi(name); err == nil && fd >= first {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}
