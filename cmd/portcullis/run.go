package main

import (
	"context"

	"portcullis/internal/daemon"
	"portcullis/internal/logging"
	"portcullis/internal/sandbox"
)

func runDaemon(ctx context.Context, e env, args []string) error {
	ctx, stop := untilHandover(ctx)
	defer stop()
	f := flags(e, "run")
	path := f.String("config", "", "configuration file")
	if err := parseFlags(f, args); err != nil {
		return err
	}
	c, from, err := loadConfig(*path)
	if err != nil {
		return err
	}
	sandbox.LimitMemory(sandbox.MemoryOfWarden + int64(c.Limits.Mappings)*sandbox.MemoryOfMapping)
	log := logging.New(e.err, c.Log)
	log.Info("starting", "version", version, "configuration", from)
	return daemon.Run(ctx, daemon.Config{Config: c, Log: log, Version: version})
}
