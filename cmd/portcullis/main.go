// Portcullis lets programs on a LAN open ports on a Linux gateway, if its owner allows
// it: by UPnP IGD, NAT-PMP and PCP, in nftables or iptables.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"portcullis/internal/background"
	"portcullis/internal/cmdline"
	"portcullis/internal/hook"
	"portcullis/internal/logging"
	"portcullis/internal/process"
	"portcullis/internal/sandbox"
	"portcullis/internal/webprocess"
)

// Exit codes, as portcullis(8) has them.
const (
	exitDone    = 0
	exitRefused = 1
	exitUsage   = 2
)

func main() {
	if len(os.Args) == 2 {
		switch os.Args[1] {
		case process.Argument:
			os.Exit(process.Main())
		case webprocess.Argument:
			os.Exit(webprocess.Main())
		}
	}
	if len(os.Args) >= 2 && os.Args[1] == hook.Argument {
		os.Exit(hook.Main(os.Args[2:]))
	}
	if len(os.Args) >= 2 && os.Args[1] == background.Argument {
		os.Exit(background.Main(os.Args[2:]))
	}
	args := asIncumbent(os.Args)
	if len(args) > 0 && slices.Contains([]string{"run", "web", incumbentName}, args[0]) {
		sandbox.Slacken() // before a signal is heard, which the program that starts anew would not know of
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Stdout, os.Stderr, args))
}

// run calls the command that args name, and returns the exit code.
func run(ctx context.Context, out, errs io.Writer, args []string) int {
	if len(args) > 0 && args[0] == completeArgument {
		complete(ctx, out, args[1:])
		return exitDone
	}
	c, call, err := parse(args)
	var answer *noted
	if err == nil {
		call.Out, call.Err = out, errs
		if call.Has("json") {
			answer = &noted{w: out}
			call.Out = answer
		}
		err = c.Run(ctx, call)
	}
	var usage *cmdline.Error
	switch {
	case errors.Is(err, errNotRoot):
		fmt.Fprintf(errs, "portcullis: %v\n", err)
		return exitUsage
	case err == nil:
		return exitDone
	case errors.Is(err, errStops):
		return exitRefused // said already
	case errors.As(err, &usage):
		sayUsage(errs, cmp.Or(usage.Command, c), usage.Text)
		return exitUsage
	}
	if answer != nil && !answer.any {
		_ = printJSON(out, struct { // what cannot be written there is said below
			Error string `json:"error"`
		}{err.Error()})
	}
	fmt.Fprintln(errs, logging.AsError(errs, fmt.Sprintf("portcullis: %v", err)))
	return exitRefused
}

// noted is a writer that knows whether anything was written.
type noted struct {
	w   io.Writer
	any bool
}

func (n *noted) Write(b []byte) (int, error) {
	n.any = n.any || len(b) > 0
	return n.w.Write(b)
}

// parse reads the command line. That of miniupnpd has another form.
func parse(args []string) (*cmdline.Command, *cmdline.Call, error) {
	table := commands()
	for i := range table {
		if c := &table[i]; len(args) > 0 && args[0] == incumbentName && c.Name == incumbentName {
			return c, &cmdline.Call{Args: args[1:]}, nil
		}
	}
	return cmdline.Parse(table, args)
}

// sayUsage prints what was wrong in one line, and what is right in another where it is known
// which command was meant.
func sayUsage(w io.Writer, c *cmdline.Command, text string) {
	if c == nil {
		fmt.Fprintf(w, "portcullis: %s (portcullis help)\n", text)
		return
	}
	fmt.Fprintf(w, "portcullis: %s\nusage: %s\n", text, c.UsageLine())
}
