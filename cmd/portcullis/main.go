// Portcullis lets programs on a LAN open ports on a Linux gateway, if its owner allows
// it: by UPnP IGD, NAT-PMP and PCP, in nftables or iptables.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"portcullis/internal/process"
)

// Exit codes, as portcullis(8) has them.
const (
	exitDone    = 0
	exitRefused = 1
	exitUsage   = 2
)

// errUsage marks a wrong call; what is wrong has been printed already.
var errUsage = errors.New("usage")

// env is where a command reads and writes.
type env struct {
	out, err io.Writer
}

type command struct {
	name  string
	does  string
	usage string
	run   func(ctx context.Context, e env, args []string) error
}

func commands() []command {
	return []command{
		{"run", "run the daemon in the foreground", "[--config FILE]", runDaemon},
		{"check", "validate the configuration and print the effective values", "[--config FILE]", runCheck},
		{"doctor", "find out why mappings fail, and how to fix it", "[--config FILE] [--json]", runDoctor},
		{"status", "show the state of the daemon", "[--config FILE] [--json]", runStatus},
		{"list", "list the open mappings", "[--config FILE] [--json]", runList},
		{"delete", "delete mappings", "[--config FILE] [--json] ID... | tcp|udp PORT | --all", runDelete},
		{"version", "print the version", "[--json]", runVersion},
	}
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == process.Argument {
		os.Exit(process.Main())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, env{os.Stdout, os.Stderr}, os.Args[1:]))
}

func run(ctx context.Context, e env, args []string) int {
	if len(args) == 0 {
		usage(e.err)
		return exitUsage
	}
	if args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		usage(e.out)
		return exitDone
	}
	for _, c := range commands() {
		if c.name == args[0] {
			return c.call(ctx, e, args[1:])
		}
	}
	fmt.Fprintf(e.err, "portcullis: unknown command %q\n\n", args[0])
	usage(e.err)
	return exitUsage
}

func (c command) call(ctx context.Context, e env, args []string) int {
	err := c.run(ctx, e, args)
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, flag.ErrHelp):
		return exitDone
	case errors.Is(err, errStops):
		return exitRefused // said already
	case errors.Is(err, errUsage):
		fmt.Fprintf(e.err, "usage: portcullis %s %s\n", c.name, c.usage)
		return exitUsage
	}
	fmt.Fprintf(e.err, "portcullis: %v\n", err)
	return exitRefused
}

func usage(w io.Writer) {
	fmt.Fprint(w, "Portcullis lets programs on the LAN open ports on this gateway, if you allow it.\n\nusage: portcullis COMMAND\n\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-8s %s\n           portcullis %s %s\n", c.name, c.does, c.name, c.usage)
	}
}

// flags returns a flag set that reports to e; parse it with parseFlags.
func flags(e env, name string) *flag.FlagSet {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(e.err)
	f.Usage = func() {
		for _, c := range commands() {
			if c.name == name {
				fmt.Fprintf(e.err, "usage: portcullis %s %s\n", c.name, c.usage)
			}
		}
		f.PrintDefaults()
	}
	return f
}

// parseFlags parses flags where there may be nothing else.
func parseFlags(f *flag.FlagSet, args []string) error {
	if err := parseArgs(f, args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return errUsage
	}
	return nil
}

// parseArgs parses flags, and leaves the arguments behind them.
func parseArgs(f *flag.FlagSet, args []string) error {
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return err
	case err != nil:
		return errUsage
	}
	return nil
}
