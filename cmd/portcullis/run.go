package main

import (
	"cmp"
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"portcullis/config"
	"portcullis/internal/cmdline"
	"portcullis/internal/daemon"
	"portcullis/internal/logging"
	"portcullis/internal/sandbox"
)

func runDaemon(ctx context.Context, call *cmdline.Call) error {
	ctx, stop := untilHandover(ctx)
	defer stop()
	hangup, unheard := hangups()
	defer unheard()
	load := func() (config.Config, daemon.Source, error) {
		c, source, err := loadSource(call.Given["config"])
		if file, failed := filepath.Abs(source.File); failed == nil && source.File != "" { // others have another directory
			source.File = file
		}
		return c, source, err
	}
	c, source, err := load()
	if err != nil {
		return err
	}
	return serve(ctx, daemon.Config{Config: c, Log: logging.New(call.Err, c.Log), Source: source, Load: load, Hangup: hangup})
}

// hangups returns SIGHUP, which without somebody who reads it would end the daemon. What comes
// before it serves has it read its configuration again then.
func hangups() (_ <-chan os.Signal, stop func()) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	return hangup, func() { signal.Stop(hangup) }
}

// serve is the daemon, until ctx ends.
func serve(ctx context.Context, c daemon.Config) error {
	sandbox.LimitWarden(c.Limits.Mappings)
	c.Version = version
	c.Log.Info("starting", "version", version, "configuration", cmp.Or(c.Source.File, "defaults"))
	return daemon.Run(ctx, c)
}
