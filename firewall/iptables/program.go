package iptables

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"portcullis/firewall"
	"portcullis/internal/enter"
	"portcullis/internal/program"
)

const (
	// patience bounds one run of a program, the wait for the lock included.
	patience = 10 * time.Second
	// lockWait is how many seconds a program waits for another one's work.
	lockWait = "5"
	// maxTable bounds what is read of a table of the kernel's.
	maxTable = 64 << 20
)

// The families.
type family int

const (
	four family = iota
	six
)

var (
	families = []family{four, six}
	names    = [...]string{"ip", "ip6"}
)

// legacy is the flavour whose tables are not in nf_tables.
const legacy = "legacy"

// programs are the three commands of one family.
type programs struct {
	family  family
	main    string // iptables, iptables-legacy, iptables-nft; or with ip6
	netns   int
	flavour string // "legacy" or "nf_tables"

	mu   sync.Mutex // guards what follows
	seen *seen      // nil: nothing
}

// findPrograms looks for the commands of a family. name is that of IPv4's.
func findPrograms(f family, name string, namespace int) (*programs, error) {
	p := &programs{family: f, main: name, netns: namespace}
	if f == six {
		p.main = strings.Replace(name, "iptables", "ip6tables", 1)
	}
	var version program.Output
	err := enter.In(namespace, func() (err error) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		version, err = program.Run(ctx, "", p.main, "--version")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%w: the program %s: %w", ErrNoProgram, p.main, err)
	}
	if !bytes.Contains(version.Out, []byte("tables v")) {
		return nil, fmt.Errorf("%w: the program %s: unknown version %.100q", ErrNoProgram, p.main, version.Out)
	}
	p.flavour = legacy
	if bytes.Contains(version.Out, []byte("nf_tables")) {
		p.flavour = "nf_tables"
	}
	return p, nil
}

// ErrNoProgram is given where iptables is not installed.
var ErrNoProgram = errors.New("iptables cannot be used; install the package iptables, or set firewall.backend to nftables")

// errRootOnly is given where capabilities are not enough.
var errRootOnly = errors.New("the programs of iptables-legacy work for root only; " +
	"run the daemon as root (docs/systemd.md says how), or keep your rules in iptables-nft")

// save returns the rules of all tables, or of one. It takes no lock.
func (p *programs) save(ctx context.Context, table ...string) (*saved, error) {
	args := []string{}
	for _, t := range table {
		args = append(args, "-t", t)
	}
	text, err := p.run(ctx, "", p.main+"-save", args...)
	if err != nil {
		return nil, err
	}
	return parseSaved(text), nil
}

// restore runs a script, in one transaction.
func (p *programs) restore(ctx context.Context, script string) error {
	_, err := p.run(ctx, script, p.main+"-restore", "--noflush", "-w", lockWait)
	return err
}

// run runs a program in the namespace. What it is given is our rule, and what the
// program told of it; there is no shell.
func (p *programs) run(ctx context.Context, stdin, name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var said program.Output
	err := enter.In(p.netns, func() (err error) {
		said, err = program.Run(ctx, stdin, append([]string{name}, args...)...)
		return err
	})
	if err != nil {
		text := strings.TrimSpace(string(said.Complaint))
		if strings.Contains(text, "Permission denied") || strings.Contains(text, "Operation not permitted") {
			if p.flavour == legacy && os.Geteuid() != 0 {
				return nil, fmt.Errorf("%w: %s", errRootOnly, name)
			}
			return nil, fmt.Errorf("%w: %s", firewall.ErrPermission, name)
		}
		return nil, fmt.Errorf("%s: %w: %.300q", name, err, text)
	}
	return said.Out, nil
}
