package webprocess

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"portcullis/internal/control"
	"portcullis/internal/json"
	"portcullis/internal/sandbox"
	"portcullis/internal/web"
)

// Main is the page. It returns the exit status.
func Main() int {
	sandbox.LimitMemory(sandbox.MemoryOfFront)
	signal.Ignore(unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2) // the opener's
	if err := page(); err != nil {
		fmt.Fprintf(os.Stderr, "portcullis: page: %v\n", err)
		return 1
	}
	return 0
}

// page serves until the opener has gone.
func page() error {
	end, err := talk(os.NewFile(pairDescriptor, "opener"))
	if err != nil {
		return fmt.Errorf("`portcullis web` starts the page: %w", err)
	}
	file := os.NewFile(listenerDescriptor, "listener")
	listener, err := net.FileListener(file)
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	s := sandbox.Enter(sandbox.Config{Role: sandbox.Front, Files: maxFiles, Data: maxData, Paths: &sandbox.Paths{Alone: true}})
	if missing := s.Lacks(); len(missing) > 0 {
		fmt.Fprintf(os.Stderr, "portcullis: the sandbox of the page is incomplete: %s\n", strings.Join(missing, "; "))
	}
	text, fd, err := receive(end)
	var set settings
	switch {
	case err != nil:
		return err
	case fd >= 0 || text[0] != msgSettings:
		return errMessage
	}
	if err := json.Unmarshal(text[1:], &set); err != nil {
		return err
	}
	h := newHome(end)
	server := web.New(web.Config{
		Owner: control.NewClientBy(set.Socket, h.dial), Hosts: set.Hosts, Loopback: set.Loopback,
	})
	h.link = server.Link
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go func() { h.listen(); stop() }()
	if err := server.Serve(ctx, listener); ctx.Err() == nil {
		return err
	}
	return nil
}

// home is the opener as a page knows it.
type home struct {
	end     *net.UnixConn
	link    func([web.HashSize]byte)
	answers chan answer
	gone    chan struct{} // closed when the opener is

	mu sync.Mutex // one at a time asks
}

func newHome(end *net.UnixConn) *home {
	return &home{end: end, answers: make(chan answer, 1), gone: make(chan struct{})}
}

// answer is what came of a wish to connect.
type answer struct {
	conn net.Conn
	err  error
}

// listen takes in what the opener says, until it has gone.
func (h *home) listen() {
	defer close(h.gone)
	for {
		text, fd, err := receive(h.end)
		if err != nil {
			return
		}
		switch kind := text[0]; {
		case kind == msgLink && fd < 0 && len(text) == 1+web.HashSize:
			h.link([web.HashSize]byte(text[1:]))
			if _, err := h.end.Write([]byte{msgTaken}); err != nil {
				return
			}
		case kind == msgConnected && fd >= 0:
			h.answers <- connection(fd)
		case kind == msgFailed && fd < 0:
			h.answers <- failure(string(text[1:]))
		default:
			return
		}
	}
}

func connection(fd int) answer {
	f := os.NewFile(uintptr(fd), "daemon") // #nosec G115 -- a descriptor
	conn, err := net.FileConn(f)
	return answer{conn, errors.Join(err, f.Close())}
}

func failure(number string) answer {
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil {
		return answer{err: errMessage}
	}
	return answer{err: syscall.Errno(n)}
}

// dial has the opener connect to the daemon, which takes it a moment and no longer.
func (h *home) dial(context.Context) (net.Conn, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, err := h.end.Write([]byte{msgConnect}); err != nil {
		return nil, err
	}
	select {
	case got := <-h.answers:
		return got.conn, got.err
	case <-h.gone:
		return nil, net.ErrClosed
	}
}
