// Command portcullis is the daemon, with a front that a test can own.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"portcullis/config"
	"portcullis/internal/daemon"
	"portcullis/internal/logging"
	"portcullis/internal/process"
	"portcullis/test/owned"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == process.Argument {
		os.Exit(owned.Main())
	}
	if len(os.Args) == 3 && os.Args[1] == "look" {
		look(os.Args[2])
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "portcullis: %v\n", err)
		os.Exit(1)
	}
}

// look prints what somebody sees of a process who is of this user.
func look(process string) {
	pid, err := strconv.Atoi(process)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(owned.Look(pid))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run is `portcullis run --config FILE`.
func run(ctx context.Context, args []string) error {
	if len(args) != 3 || args[0] != "run" || args[1] != "--config" {
		return fmt.Errorf("called with %q", args)
	}
	c, err := config.Load(args[2])
	if err != nil {
		return err
	}
	return daemon.Run(ctx, daemon.Config{Config: c, Log: logging.New(os.Stderr, c.Log)})
}
