package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"portcullis/internal/front"
	"portcullis/internal/netif"
	"portcullis/internal/sandbox"
	"portcullis/internal/slog"
	"portcullis/internal/wall"
)

// maxFiles bounds the descriptors of a front: with every connection that httpd lets in on
// many LANs it has less than half of these.
const maxFiles = 4096

// maxData bounds the memory of a front, in octets, so that one that is owned cannot use up
// what the machine or its group of processes has. Under floods it has 80 MB, of which most
// are tables of the runtime that it never touches; they are smaller where addresses have 32
// bits.
const maxData = 128 << 20

// Main is the front. It returns the exit status.
func Main() int {
	sandbox.LimitMemory(sandbox.MemoryOfFront)
	sandbox.ShareProcessors()
	// A terminal or a supervisor that ends the daemon tells all its processes; the warden
	// lets the front say good-bye first.
	if unix.Gettid() == unix.Getpid() { // or it is called "exe"
		_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&append([]byte(name), 0)[0])), 0, 0, 0)
	}
	signal.Ignore(unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	client, err := wall.Dial(os.NewFile(wallDescriptor, "wall"))
	if err != nil {
		fmt.Fprintf(os.Stderr, "portcullis: `portcullis run` starts the front: %v\n", err)
		return 2
	}
	if err := serve(client); err != nil {
		client.Log().Error("front cannot go on", "err", err)
		return 1
	}
	return 0
}

// serve is the front until the warden asks for its end, or is gone.
func serve(client *wall.Client) error {
	log, set := client.Log(), client.Settings()
	var kernel *netif.Kernel
	s := Confine(set, func() (err error) {
		kernel, err = OpenNetwork(log)
		return err
	})
	if kernel == nil {
		return errors.Join(s.Missing...)
	}
	missing := s.Lacks()
	if err := client.Confined(missing); err != nil {
		return err
	}
	if len(missing) > 0 {
		log.Warn("sandbox of the front is incomplete", "err", strings.Join(missing, "; "))
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	go func() { cancel(client.Run(context.Background())) }() // the warden is gone
	f, err := front.New(Front(set, front.Config{
		Log: log, Warden: client, Sockets: client, Kernel: kernel,
		Failed: func(err error) { _ = client.Failed(err) }, // or the wall is broken, and all ends
	}))
	if err != nil {
		return err
	}
	begun, err := begin(ctx, client, f)
	if !begun || err != nil {
		return errors.Join(err, f.Abandon())
	}
	return answer(ctx, client, f)
}

// OpenNetwork opens what a front reads the network by.
func OpenNetwork(log *slog.Logger) (*netif.Kernel, error) {
	kernel, err := netif.OpenLinks(log)
	if err != nil {
		return nil, fmt.Errorf("read the network: %w", err)
	}
	return kernel, nil
}

// Confine closes the sandbox of a front. Only the settings say who it is; so the wall alone
// is open before it is that user, and what open opens is that user's.
func Confine(s wall.Settings, open func() error) sandbox.State {
	return sandbox.Enter(sandbox.Config{
		Role: sandbox.Front, Files: maxFiles, Data: maxData, User: sandbox.User{UID: s.UID, GID: s.GID}, Paths: &sandbox.Paths{Alone: true}, Open: open,
	})
}

// Front returns the configuration of a front that these settings are for.
func Front(s wall.Settings, c front.Config) front.Config {
	c.UPnP, c.Events, c.UUID, c.Path, c.FriendlyName, c.HTTPPort = s.UPnP, s.Events, s.UUID, s.Path, s.FriendlyName, s.HTTPPort
	c.Product, c.MaxAge, c.RateUp, c.RateDown = front.Product(s.Product), s.MaxAge, s.RateUp, s.RateDown
	c.Version1, c.Version1Clients = s.Version1, s.Version1Clients
	c.NATPMP, c.PCP, c.RequestsPerSecond, c.SameDevice = s.NATPMP, s.PCP, int(s.RequestsPerSecond), s.SameDevice
	return c
}

// begin opens the sockets, and waits until it may answer. It reports whether it may.
func begin(ctx context.Context, client *wall.Client, f *front.Front) (bool, error) {
	for {
		select {
		case <-client.Changed(): // at first, too
			turn, lans := client.Network()
			if err := client.Served(turn, f.Open(ctx, lans)); err != nil {
				return false, err
			}
		case s := <-client.Serve():
			if !s.Four.IsZero() && !s.Six.IsZero() {
				f.Resume(s.Four, s.Six)
			}
			return true, nil
		case <-client.Stop():
			return false, nil
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
}

// answer answers until the warden asks for the end.
func answer(gone context.Context, client *wall.Client, f *front.Front) error {
	ctx, stop := context.WithCancel(gone)
	defer stop()
	f.Serve(ctx)
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	for {
		select {
		case <-client.Changed():
			turn, lans := client.Network()
			if err := client.Served(turn, f.Follow(ctx, lans)); err != nil {
				return err
			}
		case <-client.Pinged():
			if err := pong(ctx, client, f); err != nil {
				return err
			}
		case <-client.Stop():
			stop()
			return <-ended
		case err := <-ended:
			return err
		case <-gone.Done():
			return context.Cause(gone)
		}
	}
}

// pong answers the warden when every server has come round. The error says which has not
// when the warden asks again: a timer of our own would wake the process for nothing.
func pong(ctx context.Context, client *wall.Client, f *front.Front) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-client.Pinged():
			cancel(errTime)
		case <-ctx.Done():
		}
	}()
	if err := f.Pulse(ctx); err != nil {
		return err
	}
	return client.Pong()
}
