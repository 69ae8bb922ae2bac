package main

import (
	"cmp"
	"context"
	"os"
	"os/signal"
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
	load := func() (config.Config, daemon.Source, error) { return loadSource(call.Given["config"]) }
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
