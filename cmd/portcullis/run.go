package main

import (
	"context"

	"portcullis/internal/cmdline"
	"portcullis/internal/daemon"
	"portcullis/internal/logging"
	"portcullis/internal/sandbox"
)

func runDaemon(ctx context.Context, call *cmdline.Call) error {
	ctx, stop := untilHandover(ctx)
	defer stop()
	c, from, err := loadConfig(call.Given["config"])
	if err != nil {
		return err
	}
	sandbox.LimitMemory(sandbox.MemoryOfWarden + int64(c.Limits.Mappings)*sandbox.MemoryOfMapping)
	log := logging.New(call.Err, c.Log)
	log.Info("starting", "version", version, "configuration", from)
	return daemon.Run(ctx, daemon.Config{Config: c, Log: log, Version: version})
}
