package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"portcullis/config"
	"portcullis/internal/front"
	"portcullis/internal/netif"
	"portcullis/internal/process"
	"portcullis/internal/wall"
	"portcullis/internal/warden"
)

// half is the front, in this process or as one of its own.
type half interface {
	Open(context.Context, []netif.LAN) error // its sockets, which nobody reads before Serve
	Abandon() error                          // after Open, in place of Serve
	Resume(four, six time.Time)              // before Serve: the epochs that go on
	Serve(context.Context)                   // begins to answer
	Run(context.Context) error               // until ctx ends, after Serve
	Follow(context.Context, []netif.LAN) error
}

// mode returns what of the configuration this machine can do, and why that is less.
func mode(log *slog.Logger, m config.SandboxMode) (config.SandboxMode, error) {
	if m == config.SandboxSplit {
		if err := process.Supported(); err != nil {
			log.Warn("sandbox has one process, not two", "err", err)
			return config.SandboxSingle, err
		}
	}
	return m, nil
}

// How many processes and threads the daemon has at its start, the runtime's of both processes
// and their spare ones: 46 and 16, measured. One more ends the process that asks for it.
const (
	tasksSplit  = 48
	tasksSingle = 20
)

// fewTasks returns what to say where a service may have fewer than that, of which nobody is
// told afterwards but by the runtime; "": it may have enough.
func fewTasks(m config.SandboxMode, limit int, by string) string {
	need := tasksSingle
	if m == config.SandboxSplit {
		need = tasksSplit
	}
	if by == "" || limit >= need {
		return ""
	}
	return fmt.Sprintf("%s allows %d processes and threads, and the daemon takes up to %d to start: it may fail, or its front may; "+
		"allow 64 (TasksMax=64 in a unit of systemd)", by, limit, need)
}

// openScore opens what newHalf needs, before the sandbox closes.
func openScore(c Config) *os.File {
	if c.Sandbox.Mode != config.SandboxSplit {
		return nil
	}
	f, err := process.OpenScore()
	if err != nil {
		c.Log.Warn("cannot have the front be ended first where memory is short", "err", err)
		return nil
	}
	return f
}

// newHalf returns the front that the sandbox's mode asks for.
func newHalf(c Config, kernel *netif.Kernel, w *warden.Warden, score *os.File, failed func(error)) (half, error) {
	set := settings(c, w)
	if c.Sandbox.Mode != config.SandboxSplit {
		return front.New(process.Front(set, front.Config{Log: c.Log, Warden: w, Sockets: w, Kernel: kernel, Failed: failed}))
	}
	k := process.New(process.Config{
		Log: c.Log, Warden: w, Sockets: w, Settings: set, User: w.FrontUser(), Lock: w.Lock(), Score: score, Failed: failed,
	})
	w.ShowFront(func() warden.Front { return warden.Front(k.Status()) })
	return k, nil
}

func settings(c Config, w *warden.Warden) wall.Settings {
	return wall.Settings{
		UPnP: c.UPnP.Enabled, Events: c.UPnP.Events, UUID: w.UUID(), Path: w.Path(),
		FriendlyName: string(c.UPnP.FriendlyName), HTTPPort: c.UPnP.HTTPPort,
		NATPMP: c.PCP.NATPMP && w.SeesSenders(), PCP: c.PCP.PCP && w.SeesSenders(),
		RequestsPerSecond: uint32(c.Limits.RequestsPerSecond), SameDevice: c.Policy.SameDevice, // #nosec G115 -- config bounds it
		LogLevel: int8(c.Config.Log.Level.Level()),
	}
}
