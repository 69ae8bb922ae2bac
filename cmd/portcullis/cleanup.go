package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"portcullis/config"
	"portcullis/internal/background"
	"portcullis/internal/cmdline"
	"portcullis/internal/control"
	"portcullis/internal/process"
	"portcullis/internal/slog"
	"portcullis/internal/wiring"
)

// runCleanup removes what a daemon that is dead has left in the kernel. One that runs would
// write it again at once, and is not what this is for.
func runCleanup(ctx context.Context, call *cmdline.Call) error {
	if os.Geteuid() != 0 {
		return errors.New("cleanup needs root: it changes the rules of the firewall")
	}
	if who := running(call); who != "" {
		return fmt.Errorf("a daemon runs here (%s), and what is in the kernel is its own: stop it first, which removes that as well", who)
	}
	var gone []string
	if !kept(call) {
		var err error
		if gone, err = wiring.Clear(ctx, slog.New(slog.NewTextHandler(call.Err, nil))); err != nil {
			return err
		}
	}
	if call.Has("json") {
		return printJSON(call.Out, struct {
			Removed []string `json:"removed"`
		}{append([]string{}, gone...)})
	}
	said := "nothing of portcullis is in the kernel"
	switch {
	case kept(call):
		said = "firewall.keep_on_stop is set, and nothing is removed"
	case len(gone) > 0:
		said = "removed " + strings.Join(gone, "\nremoved ")
	}
	_, err := fmt.Fprintln(call.Out, said)
	return err
}

// kept reports whether what a stop of the daemon leaves is to stay. With a configuration that
// cannot be read it is not: after a stop nothing is left open, unless somebody said so.
func kept(call *cmdline.Call) bool {
	if !call.Has("unless-kept") {
		return false
	}
	c, _, err := loadSource(call.Given["config"])
	return err == nil && c.Firewall.KeepOnStop
}

// running returns what shows that a daemon runs in this network, "" for nothing: the socket
// of the configuration, whose daemon may be in another container, or a process with any
// configuration.
func running(call *cmdline.Call) string {
	c, source, err := loadSource(call.Given["config"])
	socket := c.Control.Socket
	if err != nil {
		socket = placed(config.SocketIn(source.File))
	}
	conn, err := control.Dial(string(socket))
	if err == nil {
		_ = conn.Close()
		return "it answers on " + string(socket)
	}
	network, err := os.Readlink("/proc/self/ns/net")
	for _, p := range processes() {
		dir := "/proc/" + p
		if theirs, failed := os.Readlink(dir + "/ns/net"); err != nil || failed != nil || theirs != network {
			continue
		}
		exe, _ := os.Readlink(dir + "/exe")
		line, _ := os.ReadFile(dir + "/cmdline")
		if ofDaemon(filepath.Base(exe), strings.Split(string(line), "\x00")) {
			return "process " + p
		}
	}
	return ""
}

// processes returns what is in /proc, the processes among it.
func processes() []string {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer proc.Close()
	names, _ := proc.Readdirnames(-1) // those before an error
	return names
}

// ofDaemon reports whether a process is one of a daemon, by the name of its program, behind which
// " (deleted)" stands after an upgrade, and its arguments. A program that is called miniupnpd may
// be miniupnpd: ours starts others there.
func ofDaemon(program string, args []string) bool {
	ours := strings.HasPrefix(program, "portcullis")
	if len(args) < 2 || !ours && !strings.HasPrefix(program, incumbentName) {
		return false
	}
	switch args[1] {
	case process.Argument, background.Argument:
		return true
	case "run", incumbentName:
		return ours
	}
	return ours && filepath.Base(args[0]) == incumbentName
}
