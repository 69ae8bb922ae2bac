package daemon

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"time"

	"portcullis/config"
	"portcullis/internal/digest"
	"portcullis/internal/front"
	"portcullis/internal/netif"
	"portcullis/internal/process"
	"portcullis/internal/slog"
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

// newTurn returns what spares the front questions whose answers it knows; nil where there is
// no need, or no way.
func newTurn(c Config) *wall.Turn {
	if c.Sandbox.Mode != config.SandboxSplit {
		return nil
	}
	t, err := wall.NewTurn()
	if err != nil {
		c.Log.Warn("the front asks for each mapping again", "err", err)
	}
	return t
}

// published returns what is called when there is another table.
func published(log *slog.Logger, turn *wall.Turn) func() {
	if turn == nil {
		return nil
	}
	return func() {
		if err := turn.Next(); err != nil {
			log.Error("cannot tell the front that mappings changed", "err", err)
		}
	}
}

// newHalf returns the front that the sandbox's mode asks for.
func newHalf(c Config, kernel *netif.Kernel, w *warden.Warden, uuid string, score *os.File, turn *wall.Turn, failed func(error)) (half, error) {
	set := settings(c, w, uuid)
	if c.Sandbox.Mode != config.SandboxSplit {
		return front.New(process.Front(set, front.Config{Log: c.Log, Warden: w, Sockets: w, Kernel: kernel, Failed: failed}))
	}
	k := process.New(process.Config{
		Log: c.Log, Warden: w, Sockets: w, Settings: set, User: w.FrontUser(), Lock: w.Lock(), Turn: turn, Score: score, Failed: failed,
	})
	w.ShowFront(func() warden.Front { return warden.Front(k.Status()) })
	return k, nil
}

func settings(c Config, w *warden.Warden, uuid string) wall.Settings {
	const kilo = 1000
	u := c.UPnP
	s := wall.Settings{
		UPnP: u.Enabled, Events: u.Events, UUID: uuid, Path: w.Path(),
		FriendlyName: string(u.FriendlyName), HTTPPort: u.HTTPPort,
		Product: wall.Product{
			Manufacturer: string(u.Manufacturer), ManufacturerURL: string(u.ManufacturerURL),
			ModelName: string(u.ModelName), ModelNumber: string(u.ModelNumber), ModelDescription: string(u.ModelDescription),
			ModelURL: string(u.ModelURL), SerialNumber: string(u.SerialNumber), PresentationURL: string(u.PresentationURL),
		},
		MaxAge: 2 * u.NotifyInterval, RateUp: uint64(u.UploadKbps) * kilo, RateDown: uint64(u.DownloadKbps) * kilo, // #nosec G115 -- config bounds them
		Version1: u.IGDv1,
		NATPMP:   c.PCP.NATPMP && w.SeesSenders(), PCP: c.PCP.PCP && w.SeesSenders(),
		RequestsPerSecond: uint32(c.Limits.RequestsPerSecond), SameDevice: c.Policy.SameDevice, // #nosec G115 -- config bounds it
		LogLevel: int8(c.Config.Log.Level.Level()),
	}
	for _, h := range u.IGDv1Clients {
		s.Version1Clients = append(s.Version1Clients, h.Prefix)
	}
	return s
}

// uuidOf returns the UUID of the UPnP device: what the owner wants, or the gateway's own.
func uuidOf(log *slog.Logger, want config.UUID, s netif.State, own string) string {
	name := want.OfMAC()
	if name == "" {
		return cmp.Or(string(want), own)
	}
	link, ok := s.Link(name)
	if !ok || link.MAC == [6]byte{} {
		log.Warn("no MAC address for upnp.uuid; taking the UUID in state.dir", "interface", name)
		return own
	}
	sum := digest.Sum(append([]byte("portcullis gateway "), link.MAC[:]...))
	b := sum[:16]
	b[6], b[8] = b[6]&0x0f|0x80, b[8]&0x3f|0x80 // RFC 9562 section 5.8
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}
