package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"portcullis/config"
	"portcullis/internal/background"
	"portcullis/internal/cmdline"
	"portcullis/internal/daemon"
	"portcullis/internal/digest"
	"portcullis/internal/incumbent"
	"portcullis/internal/logging"
	"portcullis/internal/slog"
)

// incumbentName is the command, and the name by which the program is it without being told.
const incumbentName = "miniupnpd"

// asIncumbent returns the command line of a program that is called by the name miniupnpd.
func asIncumbent(args []string) []string {
	if filepath.Base(args[0]) == incumbentName {
		return append([]string{incumbentName}, args[1:]...)
	}
	return args[1:]
}

// runMiniupnpd runs the daemon as miniupnpd is run: by its command line and its file, which
// become a configuration of ours, and in the background.
func runMiniupnpd(ctx context.Context, call *cmdline.Call) error {
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	v, err := incumbent.Arguments(call.Args, dir)
	switch {
	case err != nil && ours(call.Args[0]):
		return fmt.Errorf("%s takes miniupnpd's options alone; `ln -s miniupnpd /usr/sbin/portcullis` makes it `portcullis %s` as well", incumbentName, call.Args[0])
	case err != nil:
		return fmt.Errorf("%w (%s --help)", err, incumbentName)
	case v.Help:
		return printFlags(call.Out)
	case v.Version:
		return runVersion(ctx, call)
	}
	hangup, stop := asMiniupnpd()
	defer stop()
	meant := &foreign{call: v}
	c, source, err := meant.load()
	if err != nil {
		return err
	}
	watched := supervised(os.Getpid(), os.Getppid())
	if v.PidFile == "" && !v.Stays && !watched {
		v.PidFile = usualPidFile
	}
	if err := unlessRunning(ctx, v.PidFile, patience); err != nil {
		return err
	}
	if !v.Stays {
		return inBackground(ctx, v, watched)
	}
	return meant.serve(ctx, daemon.Config{Config: c, Log: logging.New(call.Err, c.Log), Source: source, Hangup: hangup})
}

// ours reports whether a word is a command of portcullis: by the name of miniupnpd none is one,
// and where a vendor has swapped that file alone there is no other.
func ours(word string) bool {
	return slices.ContainsFunc(commands(), func(c cmdline.Command) bool { return c.Name == word })
}

// printFlags prints the options of the command line, and what each becomes.
func printFlags(out io.Writer) error {
	var w pairs
	for _, f := range incumbent.Flags() {
		w.add("  "+strings.Join(append([]string{f.Name}, f.Args...), " "), "%s", f.Does())
	}
	if _, err := fmt.Fprintf(out, "usage: %s [OPTION...]\n\n", incumbentName); err != nil {
		return err
	}
	return w.print(out)
}

// usualPidFile is where miniupnpd writes its number without being told.
const usualPidFile = "/var/run/miniupnpd.pid"

// supervised reports whether the end of a process is taken for the end of the daemon: by procd,
// OpenWrt's init, by the jail that it starts services in (ujail), and where it is the first
// process, as in that jail and in containers, because all others end with that.
func supervised(pid, parent int) bool {
	if pid == 1 {
		return true
	}
	comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", parent))
	line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", parent)) // ujail calls itself as the service is called
	by, _, _ := strings.Cut(string(line), "\x00")
	return slices.ContainsFunc([]string{strings.TrimSpace(string(comm)), filepath.Base(by)}, func(name string) bool {
		return name == "procd" || name == "ujail"
	})
}

// inBackground leaves the daemon running, and returns when it serves; where somebody watches this
// process, it stays.
func inBackground(ctx context.Context, v *incumbent.Invocation, watched bool) error {
	set := background.Config{Name: incumbentName, Args: v.Daemon, PidFile: v.PidFile}
	if watched {
		if code := background.Stay(set, func() error { return nil }); code != 0 {
			return errStops
		}
		return nil
	}
	err := background.Launch(ctx, set)
	if errors.Is(err, background.ErrEnded) {
		return errStops
	}
	return err
}

// patience is how long a daemon that ends has for it, as scripts stop it and start it at once.
const patience = 5 * time.Second

// unlessRunning returns an error where a pid file is of a process that runs this program, and does
// not end.
func unlessRunning(ctx context.Context, file string, within time.Duration) error {
	if file == "" {
		return nil
	}
	other := background.Running(file)
	if other == nil {
		return nil
	}
	defer other.Close()
	if other.Ends(ctx, within) {
		return nil
	}
	return fmt.Errorf("%s is running already: process %d, as %s says", incumbentName, other.Pid, file)
}

// foreign is a configuration in miniupnpd's words.
type foreign struct {
	call  *incumbent.Invocation
	notes []incumbent.Note
}

// load reads it, as it is now. What miniupnpd would not start with is an error, and so is an
// option that nobody knows, and that no LAN is known: nothing is guessed that could open more.
func (f *foreign) load() (config.Config, daemon.Source, error) {
	v := f.call
	base, source := config.Default(), daemon.Source{File: v.Base}
	var said config.Lines
	var read []byte // all that the configuration comes from
	if v.Base != "" {
		var err error
		var of config.Sum
		if base, said, of, err = config.LoadAll(v.Base); err != nil {
			return base, source, err
		}
		read = append(read, of[:]...)
	}
	files := []*incumbent.File{}
	name, err := confOf(v.Conf)
	if err != nil {
		return base, source, err
	}
	if name != "" {
		data, _, err := config.ReadFile(name, incumbent.MaxFileSize)
		if err != nil {
			return base, source, err
		}
		file, err := incumbent.Read(name, data)
		if err != nil {
			return base, source, err
		}
		if file.Kind != incumbent.Conf {
			return base, source, fmt.Errorf("%s:1: this is no miniupnpd.conf", name)
		}
		read = append(read, data...)
		files, source.File = append(files, &file), name
	}
	plan, err := incumbent.TranslateOver(incumbent.Base{Config: base, Says: func(key string) bool { return said.Of(key, 0) > 0 }}, incumbent.Machine{Holder: holder}, append(files, &v.Options)...)
	switch {
	case err != nil:
		return base, source, err
	case plan.Unread != nil:
		return base, source, plan.Unread
	}
	if err := unclear(plan, name); err != nil {
		return base, source, err
	}
	f.notes = plan.Notes
	c, err := config.Parse(cmp.Or(name, incumbentName)+", as portcullis.toml", config.Effective(plan.Config))
	c.Control.Socket = placed(c.Control.Socket)
	source.Sum = digest.Sum(read)
	if v.Debug {
		c.Log.Level = config.LevelDebug
	}
	if !v.Watched {
		c.Log.Format = config.FormatSyslog // each line with its priority
	}
	return c, source, err
}

// confOf returns the file that is read; "": none.
func confOf(named string) (string, error) {
	if named != "" {
		return named, nil
	}
	for _, name := range usualFiles[1:] {
		if _, err := os.Stat(name); err == nil {
			return name, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return "", nil
}

// sides are the keys that say which side of the gateway is which. An import leaves to its reader
// what is not certain about them; a start does not.
var sides = []string{"lan.interfaces", "wan.interface", "wan.interface6", "wan.external_ip"}

// unclear returns what is not certain about the sides of the gateway, nil where nothing is. Which
// file was read is said, where there is one: the usual one is not named on the command line.
func unclear(p incumbent.Plan, file string) error {
	var why []string
	for _, n := range p.Notes {
		if n.Kind == incumbent.Look && n.Line > 0 && slices.Contains(sides, n.Key) {
			why = append(why, n.In(n.File))
		}
	}
	if why == nil && len(p.Config.LAN.Interfaces) == 0 {
		why = []string{"no LAN is named: listening_ip=INTERFACE, or -a INTERFACE"}
		if file != "" {
			why[0] = file + ": " + why[0]
		}
	}
	if why == nil {
		return nil
	}
	return errors.New(strings.Join(why, "\n"))
}

// maxNotes is how many notes are logged.
const maxNotes = 40

// tell logs what is not as it was, first what is opened no more.
func (f *foreign) tell(log *slog.Logger) {
	told := 0
	for _, first := range []bool{true, false} {
		for i := range f.notes {
			n := &f.notes[i]
			if (n.Kind == incumbent.Stricter) != first {
				continue
			}
			if told == maxNotes {
				log.Warn("more is not as in miniupnpd; `portcullis import` prints all of it", "more", len(f.notes)-told)
				return
			}
			told++
			level := slog.LevelWarn
			if n.Kind == incumbent.Look {
				level = slog.LevelInfo
			}
			log.Log(context.Background(), level, "not as in miniupnpd", "note", n.In(n.File))
		}
	}
}

// serve is the daemon, in the foreground.
func (f *foreign) serve(ctx context.Context, c daemon.Config) (err error) {
	_ = os.WriteFile("/proc/self/comm", []byte(incumbentName), 0) // the name goes with the program's file, or has been lost
	ctx, waits, stop := background.Kept(ctx)
	defer stop()
	if f.call.PidFile != "" {
		pid, failed := background.WritePid(f.call.PidFile)
		if failed != nil {
			return failed
		}
		defer func() { err = errors.Join(err, background.RemovePid(pid)) }()
	}
	f.tell(c.Log)
	c.Waits, c.Load = waits, (&foreign{call: f.call}).load
	return serve(ctx, c)
}

// asMiniupnpd takes the signals that miniupnpd has another use for, and for which there is none
// here, and the one by which the runtime would end a daemon whose log nobody reads any more. It
// returns SIGHUP, and what ends that.
func asMiniupnpd() (_ <-chan os.Signal, stop func()) {
	hangup, unheard := hangups()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGPIPE) // read by nobody
	return hangup, func() {
		signal.Stop(signals)
		unheard()
	}
}
