package main

import (
	"cmp"
	"context"
	"log/slog"
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
	sandbox.Slacken()
	ctx, stop := untilHandover(ctx)
	defer stop()
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
	return serve(ctx, logging.New(call.Err, c.Log), c, source, load)
}

// serve is the daemon, until ctx ends.
func serve(ctx context.Context, log *slog.Logger, c config.Config, source daemon.Source, load func() (config.Config, daemon.Source, error)) error {
	sandbox.LimitWarden(c.Limits.Mappings)
	log.Info("starting", "version", version, "configuration", cmp.Or(source.File, "defaults"))
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	return daemon.Run(ctx, daemon.Config{Config: c, Log: log, Version: version, Source: source, Load: load, Hangup: hangup})
}
