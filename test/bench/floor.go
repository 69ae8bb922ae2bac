package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"portcullis/internal/lab"
	"portcullis/internal/netns"
)

// The floor under all that is asked by TCP: a server that reads a request without looking at
// it, and answers the same octets to each, over a new connection each. It is a process of
// its own on one processor, as the front is.
const (
	floorName    = "floor"
	measureNet   = "an answer by package net"
	measureCalls = "an answer by blocking calls"
)

// floorEnv marks the process that is such a server, and says of which sort. Its listener is
// the descriptor behind the standard ones.
const floorEnv = "PORTCULLIS_BENCH_FLOOR"

const floorListener = 3

// floorAnswer is as long as the answer to a read.
var floorAnswer = func() []byte {
	body := strings.Repeat("x", 800)
	return []byte("HTTP/1.1 200 OK\r\nContent-Type: text/xml; charset=\"utf-8\"\r\nContent-Length: " +
		strconv.Itoa(len(body)) + "\r\nConnection: close\r\n\r\n" + body)
}()

// playFloor measures both sorts in turns.
func (r *report) playFloor(ctx context.Context, p plan) error {
	n, err := networkOf()
	if err != nil {
		return err
	}
	defer n.Close()
	t, err := n.Host(hostName(0)).Thread()
	if err != nil {
		return err
	}
	defer t.Close()
	level := p.levels[0]
	for _, sort := range []string{measureNet, measureCalls} {
		g, err := startFloor(n, sort)
		if err != nil {
			return err
		}
		c, err := newSOAPClient(n.Host(hostName(0)).Addr, g.control)
		if err == nil {
			err = inTurns(r.tell, side{floorName, level, level, []task{single(sort, 1, func() (sample, error) {
				return g.measure(ctx, []*netns.Thread{t}, p.slice, func(int, int) error { return c.specific(firstPort) })
			})}})
		}
		if err = errors.Join(err, g.stop()); err != nil {
			return err
		}
	}
	return nil
}

// startFloor starts a server on the gateway of a network.
func startFloor(n *lab.Network, sort string) (g *gate, err error) {
	g = &gate{Network: n, name: floorName}
	var l net.Listener
	err = n.Gateway.Do(func() (err error) {
		l, err = net.Listen("tcp4", net.JoinHostPort(n.Gateway.Addr.String(), "0")) //nolint:noctx // it waits for nothing
		return err
	})
	if err != nil {
		return nil, err
	}
	defer l.Close()
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		return nil, err
	}
	defer file.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), floorEnv+"="+sort, "GOMAXPROCS=1")
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{file}
	if err := n.Gateway.Start(cmd); err != nil {
		return nil, err
	}
	g.pid, g.control = cmd.Process.Pid, "http://"+l.Addr().String()+"/"
	g.stop = func() error {
		err := cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		return err
	}
	return g, nil
}

// serveFloor is the whole life of such a server; it ends with its parent.
func serveFloor(sort string) error {
	if sort == measureCalls {
		return serveCalls()
	}
	file := os.NewFile(floorListener, "listener")
	l, err := net.FileListener(file)
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() { _ = answerFloor(c) }() // the client sees it
	}
}

func answerFloor(c net.Conn) error {
	_, err := io.ReadAtLeast(c, make([]byte, answerLimit), 1)
	if err == nil {
		_, err = c.Write(floorAnswer)
	}
	return errors.Join(err, c.Close())
}

// serveCalls does it with one thread that waits in the kernel.
func serveCalls() error {
	runtime.LockOSThread()
	if err := unix.SetNonblock(floorListener, false); err != nil { // package net has set it
		return err
	}
	in := make([]byte, answerLimit)
	for {
		fd, _, err := unix.Accept4(floorListener, unix.SOCK_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		if _, err = unix.Read(fd, in); err == nil {
			_, err = unix.Write(fd, floorAnswer)
		}
		if err = errors.Join(err, unix.Close(fd)); err != nil {
			return err
		}
	}
}
