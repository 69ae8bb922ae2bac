package sandbox

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// maxStatus is more than the kernel says of a process.
const maxStatus = 64 << 10

// Read returns what is in force in another process, of which file is /proc/PID/status
// (proc_pid_status(5)), now. It does not tell Dumpable and Landlock.
func Read(file io.ReaderAt) (State, error) {
	text, err := io.ReadAll(io.NewSectionReader(file, 0, maxStatus))
	if err != nil {
		return State{}, err
	}
	s := State{}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		fields := strings.Fields(value)
		switch key {
		case "Uid": // real, effective, saved, of files
			if len(fields) == 4 {
				s.User, err = number(fields[1])
			}
		case "CapEff":
			s.Capabilities, err = capabilitySet(strings.TrimSpace(value))
		case "NoNewPrivs":
			s.NoNewPrivs = strings.TrimSpace(value) == "1"
		case "Seccomp":
			s.Seccomp = strings.TrimSpace(value) == "2" // SECCOMP_MODE_FILTER
		}
		if err != nil {
			return State{}, fmt.Errorf("status of a process: %s: %w", key, err)
		}
	}
	return s, nil
}

func number(text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	return uint32(n), err // #nosec G115 -- 32 bits
}

// capabilitySet reads a mask in hexadecimal.
func capabilitySet(text string) (all []Capability, err error) {
	mask, err := strconv.ParseUint(text, 16, 64)
	for n := range Capability(64) {
		if mask&(1<<n) != 0 {
			all = append(all, n)
		}
	}
	return all, err
}
