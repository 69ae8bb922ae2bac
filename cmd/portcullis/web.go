package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"portcullis/internal/cmdline"
	"portcullis/internal/control"
	"portcullis/internal/webprocess"
)

// defaultPage is where the page is, if nobody says otherwise.
const defaultPage = "127.0.0.1:8480"

// runWeb serves the owner's page until it is interrupted.
func runWeb(ctx context.Context, call *cmdline.Call) error {
	at, err := pageAddress(cmp.Or(call.Given["listen"], defaultPage), call.Has("insecure"))
	if err != nil {
		return err
	}
	names, err := pageNames(call.Given["host"])
	if err != nil {
		return err
	}
	socket, err := socketOf(call)
	if err != nil {
		return err
	}
	if err := mayAsk(ctx, call, socket); err != nil {
		return err
	}
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("--listen: %s is taken; a page that is served there already prints another link when it gets SIGUSR1 (`systemctl reload portcullis-web` sends it)", at)
	}
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	again := make(chan os.Signal, 1)
	signal.Notify(again, syscall.SIGUSR1)
	defer signal.Stop(again)
	at = netip.AddrPortFrom(at.Addr(), uint16(l.Addr().(*net.TCPAddr).Port)) // #nosec G115 -- a port
	if !at.Addr().IsLoopback() {
		sayPage(call, "whoever can read what passes on that network can do what you can on this page; `ssh -L 8480:"+defaultPage+"` with "+defaultPage+" has nobody read it")
	}
	return webprocess.Run(ctx, webprocess.Config{
		Listener: l, Loopback: at.Addr().IsLoopback(), Hosts: pageHosts(at, names), Socket: socket, Again: again,
		Out: call.Out, Warn: func(text string) { sayPage(call, text) },
	})
}

func sayPage(call *cmdline.Call, text string) { fmt.Fprintf(call.Err, "portcullis: %s\n", text) }

// askLimit is how long the daemon may take to be found out there.
const askLimit = 10 * time.Second

// mayAsk says that the daemon is not running, which the page can wait for; that we may not
// ask it is an error.
func mayAsk(ctx context.Context, call *cmdline.Call, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	_, err := control.NewClient(socket).Status(ctx)
	var no *control.Refusal
	switch {
	case err == nil:
		return nil
	case errors.As(err, &no), errors.Is(err, syscall.EACCES):
		return err
	}
	sayPage(call, err.Error()+"; the page waits for it")
	return nil
}

// pageAddress returns where to listen, if that is an address that the page may have.
func pageAddress(text string, insecure bool) (netip.AddrPort, error) {
	at, err := netip.ParseAddrPort(strings.Replace(text, "localhost:", "127.0.0.1:", 1))
	if err != nil {
		return at, cmdline.Usagef("--listen: %.60q is not an address and a port, like %s", text, defaultPage)
	}
	a := at.Addr().Unmap()
	switch {
	case a.IsLoopback():
	case !a.IsPrivate() && !a.IsLinkLocalUnicast():
		return at, cmdline.Usagef("--listen: %s is neither a loopback address nor one of a LAN; the page is never served to the Internet", a)
	case !insecure:
		return at, cmdline.Usagef("--listen: a LAN reaches %s, and could read what passes; to serve the page there all the same, add --insecure", a)
	}
	return netip.AddrPortFrom(a, at.Port()), nil
}

// pageNames returns the names that browsers may call the page by, as they were given.
func pageNames(list string) (names []string, err error) {
	for _, name := range strings.Split(strings.ToLower(list), ",") {
		if name == "" {
			continue
		}
		if strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789.-:[]") != "" {
			return nil, cmdline.Usagef("--host: %.60q is not a name, like gateway.lan or gateway.lan:443", name)
		}
		names = append(names, name)
	}
	return names, nil
}

// pageHosts returns what browsers write into Host, for this address and these names; the
// first is the address itself.
func pageHosts(at netip.AddrPort, names []string) []string {
	port := strconv.Itoa(int(at.Port()))
	hosts := []string{at.String()}
	if at.Addr().IsLoopback() {
		hosts = append(hosts, "localhost:"+port)
	}
	for _, name := range names {
		hosts = append(hosts, name, net.JoinHostPort(strings.Trim(name, "[]"), port)) // a proxy is on a port of its own
	}
	return hosts
}
