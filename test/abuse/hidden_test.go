package abuse

import (
	"fmt"
	"os"
	"syscall"
	"testing"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// TestHidden (K11): neither process can be looked into by others of its user, nor is its
// memory written to a file, also after the warden has made sockets as the front's user: then
// the kernel sets that as fs.suid_dumpable says. The kernel shows it by whose the files of a
// process in /proc are: root's, or those of its user and group, which is one of the warden's
// own here, because root's would prove nothing.
func TestHidden(t *testing.T) {
	t.Parallel()
	const group = 64991
	n := testrig.Network(t, "a")
	r := &rig{testrig.StartExe(t, n, privileged(t, testrig.Exe, fmt.Sprintf("--regid=%d --clear-groups", group)), lab.Settings)}
	if err := r.v1(t, "a").Add(t.Context(), udp(6000, 6000)); err != nil {
		t.Fatal(err)
	}
	warden, front := r.Daemon.Pid(), frontOf(t, r.Rig)
	if g := field(t, warden, "Gid"); g != fmt.Sprintf("%[1]d\t%[1]d\t%[2]d\t%[1]d", group, frontUser) {
		t.Fatalf("the warden has the groups %s", g)
	}
	for name, pid := range map[string]int{"the warden": warden, "the front": front} {
		info, err := os.Stat(fmt.Sprintf("/proc/%d/environ", pid))
		if err != nil {
			t.Fatal(err)
		}
		if s := info.Sys().(*syscall.Stat_t); s.Uid != 0 || s.Gid != 0 {
			t.Errorf("%s can be looked into by user %d, group %d", name, s.Uid, s.Gid)
		}
	}
}
