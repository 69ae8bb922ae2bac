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
	sandbox.LimitWarden(c.Limits.Mappings)
	log := logging.New(call.Err, c.Log)
	log.Info("starting", "version", version, "configuration", cmp.Or(source.File, "defaults"))
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	return daemon.Run(ctx, daemon.Config{Config: c, Log: log, Version: version, Source: source, Load: load, Hangup: hangup})
}
