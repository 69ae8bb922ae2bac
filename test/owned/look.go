package owned

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Look tries, without a sandbox, to look into a process: "" is what worked.
func Look(pid int) map[string]string {
	found := map[string]string{"signal": text(unix.Kill(pid, 0)), "ptrace": text(unix.PtraceSeize(pid))}
	for _, name := range []string{"mem", "environ", "maps", "exe", "fd/3", "root", "cwd"} {
		path := fmt.Sprintf("/proc/%d/%s", pid, name)
		f, err := os.Open(path)
		if err == nil {
			_ = f.Close()
		}
		found[name] = text(err)
	}
	local := []unix.Iovec{{Base: new(byte), Len: 1}}
	_, err := unix.ProcessVMReadv(pid, local, []unix.RemoteIovec{{Base: 1 << 20, Len: 1}}, 0)
	found["read memory"] = text(err)
	return found
}
