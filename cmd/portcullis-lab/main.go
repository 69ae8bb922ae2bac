// Portcullis-lab plays a home network in throwaway namespaces against the daemon:
// who asks for which port, what the answer is, and whether a packet then arrives.
// It is for developers and the curious, and does not go onto routers.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"portcullis/internal/lab"
	"portcullis/internal/netns"
)

// Exit codes, as those of the daemon's commands.
const (
	exitWrong = 1
	exitUsage = 2
)

type options struct {
	daemon       string // the program under test
	keep, asJSON bool
}

func main() {
	var o options
	flag.StringVar(&o.daemon, "daemon", "", "the `program` to play with (default: portcullis beside this one)")
	flag.BoolVar(&o.keep, "keep", false, "leave the network up afterwards, until Ctrl-C")
	flag.BoolVar(&o.asJSON, "json", false, "print JSON")
	flag.Parse()
	if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(exitUsage)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	code := 0
	var err error
	if os.Geteuid() != 0 {
		code, err = netns.AsRoot(ctx)
	} else {
		err = run(ctx, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "portcullis-lab:", err)
		code = exitWrong
	}
	os.Exit(code)
}

func run(ctx context.Context, o options) error {
	if o.daemon == "" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		o.daemon = filepath.Join(filepath.Dir(self), "portcullis")
	}
	if _, err := exec.LookPath(o.daemon); err != nil {
		return fmt.Errorf("no daemon to play with: %w; `make lab` builds it", err)
	}
	return play(ctx, o)
}

func play(ctx context.Context, o options) error {
	n, err := lab.New("console", "laptop", "server", "malware", "phone")
	if err != nil {
		return fmt.Errorf("%w; the lab needs root, or a kernel that permits unprivileged user namespaces", err)
	}
	defer n.Close()
	if err := n.HostFirewall(); err != nil {
		return err
	}
	d, err := n.StartDaemon(ctx, o.daemon, "")
	if err != nil {
		return err
	}
	report := lab.NewReporter(os.Stdout, o.asJSON)
	err = lab.Play(ctx, n, d, report.Step)
	if err != nil {
		err = errors.Join(err, d.Stop())
	}
	if err := errors.Join(err, report.Finish()); err != nil {
		return err
	}
	if o.keep && ctx.Err() == nil {
		if err := hold(ctx, n, o.daemon); err != nil {
			return err
		}
	}
	if report.Wrong() > 0 {
		return fmt.Errorf("%d steps went wrong", report.Wrong())
	}
	return nil
}

// hold leaves the network up, with a fresh daemon, until Ctrl-C.
func hold(ctx context.Context, n *lab.Network, daemon string) error {
	d, err := n.StartDaemon(ctx, daemon, "")
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "\nThe network stays up until Ctrl-C. To go there:\n")
	for _, h := range n.Hosts() {
		fmt.Fprintf(os.Stderr, "  %-9s nsenter --net=%s\n", h.Name, h.Path())
	}
	fmt.Fprintf(os.Stderr, "and to see what is open: portcullis list --config %s\n", d.Config)
	select {
	case <-ctx.Done():
	case <-d.Ended():
	}
	return d.Stop()
}
