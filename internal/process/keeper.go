package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"portcullis/internal/netif"
	"portcullis/internal/pace"
	"portcullis/internal/sandbox"
	"portcullis/internal/slog"
	"portcullis/internal/wall"
)

const (
	// A front has so long to begin, or to follow the network, before it counts as dead;
	// and so long to say good-bye on all LANs.
	followTimeout = 20 * time.Second
	stopTimeout   = 10 * time.Second
	wallTimeout   = time.Second // after its end, until what it has sent is read

	// It is asked so often whether it serves, and counts as dead when it has not answered
	// for so long: longer than it gives its own servers. On half a core that is flooded the
	// slowest of 300 answers took 0.3 seconds.
	pingEvery    = 30 * time.Second
	pingTimeout  = 20 * time.Second
	pulseTimeout = 15 * time.Second

	// The next front waits this long at first, then twice as long each time, to the most.
	// One that has lived for a while begins anew.
	firstPause = 10 * time.Millisecond
	lastPause  = 250 * time.Millisecond
	livesLong  = 10 * time.Second

	alertEvery   = 10 * time.Second
	alertsAtOnce = 20
)

var (
	errWallStuck = errors.New("what it has left holds the wall up")
	errTime      = errors.New("time is up")
)

// Config is what a Keeper needs. All but Turn, Score, Lock and User must be set.
type Config struct {
	Log      *slog.Logger
	Warden   wall.Warden
	Sockets  wall.Sockets
	Settings wall.Settings
	User     sandbox.User // who the front is; zero: who the warden is
	Lock     *os.File     // is held by the front as well
	Turn     *wall.Turn   // of Warden's mappings; nil: a front asks for each again
	Score    *os.File     // of OpenScore; nil: where memory is short either half may be ended
	// Failed is told when something is not served any more; the next Follow tries again.
	Failed func(error)
}

// Keeper keeps one front running. To its owner it is as a front.Front.
type Keeper struct {
	cfg    Config
	parent *parent

	alerts *rate.Limiter // of fronts that die; each has the count of all
	lines  *rate.Limiter // of what they say by their standard error
	log    *wall.Log     // of what they say by the wall

	turn sync.Mutex // one at a time starts a front or has it follow

	mu        sync.Mutex // guards what follows
	now       *run       // the last that was started
	serving   bool
	four, six time.Time // when the epochs began, as the last front said
	ends      int       // of fronts that should not have ended
	lastEnd   string    // why the last of them did
}

// run is a front that runs, with its wall.
type run struct {
	child  *child
	server *wall.Server
	began  time.Time
	done   chan struct{} // closed when both have ended
	why    error         // set before done is closed

	mu      sync.Mutex
	verdict error // guarded by mu; why it was ended
}

// New returns a Keeper without a front.
func New(cfg Config) *Keeper {
	k := &Keeper{
		cfg: cfg, parent: newParent(cfg.User, cfg.Score), alerts: rate.NewLimiter(rate.Every(alertEvery), alertsAtOnce), lines: rate.NewLimiter(1, 2*maxLines),
		log: wall.NewLog(cfg.Log),
	}
	k.cfg.Settings.UID, k.cfg.Settings.GID = cfg.User.UID, cfg.User.GID
	k.cfg.Warden = epochs{cfg.Warden, k}
	return k
}

// epochs notes, for the next front, when the epochs of this one began.
type epochs struct {
	wall.Warden
	keeper *Keeper
}

// KeepEpochs implements wall.Warden.
func (e epochs) KeepEpochs(four, six time.Time) {
	e.keeper.Resume(four, six)
	e.Warden.KeepEpochs(four, six)
}

// Open starts a front, which opens the sockets of the LANs. The error is what it cannot
// open, or that it has not begun.
func (k *Keeper) Open(ctx context.Context, _ []netif.LAN) error {
	k.turn.Lock()
	defer k.turn.Unlock()
	if err := sandbox.CloseOnExec(wallDescriptor); err != nil {
		return err
	}
	_, err := k.start(ctx)
	if err != nil && !errors.As(err, new(wall.NotServed)) {
		return fmt.Errorf("the front does not start: %w", err)
	}
	return err
}

// Abandon ends a front that was never served.
func (k *Keeper) Abandon() error {
	r := k.current()
	if r == nil {
		return nil
	}
	return r.end(nil)
}

// Resume lets the next front go on with epochs that began then.
func (k *Keeper) Resume(four, six time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.four, k.six = four, six
}

// Serve lets the front answer, and each that comes after it.
func (k *Keeper) Serve(context.Context) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.serving = true
	k.let(k.now)
}

// let lets a front answer; mu is held. One that has ended is found by Run.
func (k *Keeper) let(r *run) { _ = r.server.Serve(k.four, k.six) }

// Follow has the front follow the network, and returns what of it is not served. While
// there is no front, the next will find the network as it is then.
func (k *Keeper) Follow(ctx context.Context, _ []netif.LAN) error {
	k.turn.Lock()
	defer k.turn.Unlock()
	err := k.follow(ctx, k.current())
	if !errors.As(err, new(wall.NotServed)) {
		return nil // Run sees it
	}
	return err
}

// follow is Follow for one front, and ends it where it does not follow. The error is a
// wall.NotServed where the front is alive.
func (k *Keeper) follow(ctx context.Context, r *run) error {
	patient, cancel := context.WithTimeoutCause(ctx, followTimeout, errTime)
	defer cancel()
	err := r.server.Follow(patient)
	switch {
	case err == nil || errors.As(err, new(wall.NotServed)):
		return err
	case ctx.Err() != nil: // it is about to be asked to end
		return ctx.Err()
	case errors.Is(err, wall.ErrEnded):
		<-r.done
		return fmt.Errorf("it has ended: %s", r.how())
	}
	return errors.Join(err, r.end(err))
}

// ping asks a front whether it serves. Of one that starts or follows the network meanwhile
// that shows anyway.
func (k *Keeper) ping(ctx context.Context, r *run) error {
	if !k.turn.TryLock() {
		return nil
	}
	defer k.turn.Unlock()
	late := time.AfterFunc(pulseTimeout, func() { _ = r.server.Urge() }) // or it has ended
	defer late.Stop()
	return r.server.Ping(ctx)
}

// watch pings every so often, until ctx ends or done is closed, nil, or an answer takes too
// long, which is the error.
func watch(ctx context.Context, done <-chan struct{}, ping func(context.Context) error) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-done:
			return nil
		case <-time.After(pace.Until(pingEvery)):
		}
		patient, cancel := context.WithTimeoutCause(ctx, pingTimeout, errTime)
		err := ping(patient)
		cancel()
		if err != nil && ctx.Err() == nil && !errors.Is(err, wall.ErrEnded) {
			return err
		}
	}
}

// Run keeps a front running until ctx ends, and then waits until it has said good-bye.
func (k *Keeper) Run(ctx context.Context) error {
	pause := firstPause
	for {
		r := k.current()
		err := watch(ctx, r.done, func(ctx context.Context) error { return k.ping(ctx, r) })
		switch {
		case ctx.Err() != nil:
			return r.stop()
		case err != nil:
			if err = r.end(err); err != nil {
				return err
			}
		}
		ends := k.noteEnd(r)
		if k.alerts.Allow() {
			k.cfg.Log.Error("front ended", "err", r.why, "how", r.child.end(), "ends", ends)
		}
		if time.Since(r.began) > livesLong {
			pause = firstPause
		}
		for again := true; again; pause = min(2*pause, lastPause) {
			if !sleep(ctx, pause) {
				return k.current().stop() // of one that has just begun
			}
			err := k.again(ctx)
			if again = err != nil; again && ctx.Err() == nil && k.alerts.Allow() {
				k.cfg.Log.Error("cannot start a front", "err", err)
			}
		}
	}
}

// sleep reports whether ctx has not ended meanwhile.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// again starts another front.
func (k *Keeper) again(ctx context.Context) error {
	k.turn.Lock()
	defer k.turn.Unlock()
	r, err := k.start(ctx)
	if errors.As(err, new(wall.NotServed)) {
		k.cfg.Failed(err)
	} else if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.let(r)
	return nil
}

func (k *Keeper) current() *run {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.now
}

// noteEnd returns how many fronts have ended that should not have.
func (k *Keeper) noteEnd(r *run) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ends++
	k.lastEnd = r.how()
	return k.ends
}

// Status is what a front is.
type Status struct {
	PID     int // 0: there is none
	Sandbox sandbox.State
	Unknown error    // why Sandbox says nothing
	Missing []string // of it, a line each
	Ended   int      // how many before it have ended that should not have
	Last    string   // why the last of them did
}

// Status returns what the front is now.
func (k *Keeper) Status() Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := Status{Ended: k.ends, Last: k.lastEnd}
	if k.now != nil && k.now.child.runs() {
		s.PID = k.now.child.pid
		s.Missing = k.now.server.Missing()
		s.Sandbox, s.Unknown = k.now.child.sandbox()
	}
	return s
}

// start starts a front, and waits until its sockets are open. The error is wall.NotServed
// where some are not.
func (k *Keeper) start(ctx context.Context) (*run, error) {
	near, far, err := wall.Pair()
	if err != nil {
		return nil, err
	}
	from, to, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, near.Close(), far.Close())
	}
	files := []*os.File{to, to, to, far}
	if k.cfg.Lock != nil {
		files = append(files, k.cfg.Lock)
	}
	c, err := k.parent.start(files)
	shut := errors.Join(far.Close(), to.Close()) // so that the front alone has them
	if err == nil && shut != nil {
		err = c.bury() // the end of neither would be seen
	}
	if err = errors.Join(err, shut); err != nil {
		return nil, errors.Join(err, near.Close(), from.Close())
	}
	go k.listen(from)
	server, err := wall.NewServer(near, wall.ServerConfig{
		Warden: k.cfg.Warden, Sockets: k.cfg.Sockets, Settings: k.cfg.Settings, Log: k.log, Failed: k.cfg.Failed,
		Turn: k.cfg.Turn,
	})
	if err != nil {
		return nil, errors.Join(err, c.bury())
	}
	r := &run{child: c, server: server, began: time.Now(), done: make(chan struct{})}
	go r.run()
	k.mu.Lock()
	k.now = r
	k.mu.Unlock()
	return r, k.follow(ctx, r)
}

// run answers the front until it ends, or is ended because it sends nonsense. The wall may
// be held up in the kernel, by what the front has put there; its end is not.
func (r *run) run() {
	wall := make(chan error, 1)
	go func() { wall <- r.server.Run(context.Background()) }()
	select {
	case r.why = <-wall:
	case <-r.child.ended:
		select {
		case r.why = <-wall:
		case <-time.After(wallTimeout):
			r.why = errWallStuck
		}
	}
	r.mu.Lock()
	if r.verdict != nil {
		r.why = r.verdict
	}
	r.mu.Unlock()
	if err := r.child.bury(); err != nil {
		r.why = errors.Join(r.why, err)
	}
	close(r.done)
}

// how says in one line how it has ended: why it was ended, or how it did by itself.
func (r *run) how() string {
	why := strings.ReplaceAll(r.why.Error(), "\n", "; ")
	switch {
	case errors.Is(r.why, io.EOF), errors.Is(r.why, unix.ECONNRESET), errors.Is(r.why, unix.EPIPE):
		return r.child.end()
	case errors.Is(r.why, net.ErrClosed): // by us, because it was gone, or did not read
		return why + "; " + r.child.end()
	}
	return why
}

// stop asks the front to end, and ends it if it does not.
func (r *run) stop() error {
	_ = r.server.Stop() // of one that has ended meanwhile
	select {
	case <-r.done:
		return nil
	case <-time.After(stopTimeout):
		return r.end(nil)
	}
}

// end ends the front, and notes why.
func (r *run) end(why error) error {
	r.mu.Lock()
	r.verdict = why
	r.mu.Unlock()
	if err := r.child.kill(); err != nil {
		return err
	}
	<-r.done
	return nil
}
