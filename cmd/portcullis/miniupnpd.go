package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"

	"portcullis/config"
	"portcullis/internal/background"
	"portcullis/internal/cmdline"
	"portcullis/internal/daemon"
	"portcullis/internal/incumbent"
	"portcullis/internal/logging"
	"portcullis/internal/sandbox"
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
	case err != nil:
		return fmt.Errorf("%w (%s --help)", err, incumbentName)
	case v.Help:
		return printFlags(call.Out)
	case v.Version:
		return runVersion(ctx, call)
	}
	meant := &foreign{call: v}
	c, source, err := meant.load()
	if err != nil {
		return err
	}
	procd := startedBy("procd")
	if v.PidFile == "" && !v.Stays && !procd {
		v.PidFile = usualPidFile
	}
	if err := unlessRunning(v.PidFile); err != nil {
		return err
	}
	if !v.Stays {
		return inBackground(ctx, v, procd)
	}
	return meant.serve(ctx, call, c, source)
}

// printFlags prints the options of the command line, and what each becomes.
func printFlags(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "usage: %s [OPTION...]\n\n", incumbentName)
	for _, f := range incumbent.Flags() {
		fmt.Fprintf(w, "  %s\t%s\n", strings.Join(append([]string{f.Name}, f.Args...), " "), f.Does())
	}
	return w.Flush()
}

// usualPidFile is where miniupnpd writes its number without being told.
const usualPidFile = "/var/run/miniupnpd.pid"

// startedBy reports whether a process of that name has started this one.
func startedBy(name string) bool {
	parent, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", os.Getppid()))
	return err == nil && strings.TrimSpace(string(parent)) == name
}

// inBackground leaves the daemon running, and returns when it serves. procd, OpenWrt's init,
// takes the end of what it has started for the end of the daemon: there this process stays.
func inBackground(ctx context.Context, v *incumbent.Invocation, procd bool) error {
	set := background.Config{Name: incumbentName, Args: v.Daemon, PidFile: v.PidFile}
	if procd {
		if code := background.Stay(set, func() {}); code != 0 {
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

// unlessRunning returns an error where a pid file is of a process that runs this program.
func unlessRunning(file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil // there is none, or it will be said when it is written
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 0 || pid == os.Getpid() {
		return nil
	}
	own, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil
	}
	if other, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil && other == own {
		return fmt.Errorf("%s is running already: process %d, as %s says", incumbentName, pid, file)
	}
	return nil
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
	sum := sha256.New()
	if v.Base != "" {
		var err error
		var of config.Sum
		if base, of, err = config.LoadSum(v.Base); err != nil {
			return base, source, err
		}
		sum.Write(of[:])
	}
	files := []*incumbent.File{}
	name, err := confOf(v.Conf)
	if err != nil {
		return base, source, err
	}
	if name != "" {
		data, err := bytesOf(name)
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
		sum.Write(data)
		files, source.File = append(files, &file), name
	}
	plan, err := incumbent.TranslateOver(base, incumbent.Machine{Holder: holder}, append(files, &v.Options)...)
	switch {
	case err != nil:
		return base, source, err
	case plan.Unread != nil:
		return base, source, plan.Unread
	}
	if err := unclear(plan); err != nil {
		return base, source, err
	}
	f.notes = plan.Notes
	c, err := config.Parse(cmp.Or(name, incumbentName)+", as portcullis.toml", config.Effective(plan.Config))
	sum.Sum(source.Sum[:0])
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

// unclear returns what is not certain about the sides of the gateway, nil where nothing is.
func unclear(p incumbent.Plan) error {
	var why []string
	for _, n := range p.Notes {
		if n.Kind == incumbent.Look && n.Line > 0 && slices.Contains(sides, n.Key) {
			why = append(why, n.In(n.File))
		}
	}
	if why == nil && len(p.Config.LAN.Interfaces) == 0 {
		why = []string{"no LAN is named: listening_ip=INTERFACE, or -a INTERFACE"}
	}
	if why == nil {
		return nil
	}
	return errors.New(strings.Join(why, "\n"))
}

// maxNotes is how many notes are logged.
const maxNotes = 40

// tell logs what is not as it was.
func (f *foreign) tell(log *slog.Logger) {
	for i, n := range f.notes {
		if i == maxNotes {
			log.Warn("more is not as in miniupnpd; `portcullis import` prints all of it", "more", len(f.notes)-i)
			return
		}
		level := slog.LevelWarn
		if n.Kind == incumbent.Look {
			level = slog.LevelInfo
		}
		log.Log(context.Background(), level, "not as in miniupnpd", "note", n.In(n.File))
	}
}

// serve is the daemon, in the foreground.
func (f *foreign) serve(ctx context.Context, call *cmdline.Call, c config.Config, source daemon.Source) (err error) {
	sandbox.Slacken()
	_ = os.WriteFile("/proc/self/comm", []byte(incumbentName), 0) // the name goes with the program's file, or has been lost
	defer asMiniupnpd()()
	ctx, stop := background.WhileKept(ctx)
	defer stop()
	pid, err := writePid(f.call.PidFile)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pid.remove()) }()
	log := logging.New(call.Err, c.Log)
	f.tell(log)
	return serve(ctx, log, c, source, (&foreign{call: f.call}).load)
}

// asMiniupnpd takes the signals that miniupnpd has another use for, and for which there is none
// here, and the one by which the runtime would end a daemon whose log nobody reads any more. It
// returns what ends that.
func asMiniupnpd() (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGPIPE) // read by nobody
	return func() { signal.Stop(signals) }
}

// pidFile is one that was written; nil: none.
type pidFile struct{ *os.File }

func writePid(name string) (*pidFile, error) {
	if name == "" {
		return nil, nil
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644) // #nosec G302 G304 -- everybody may read it
	if err != nil {
		return nil, err
	}
	_, err = fmt.Fprintln(f, os.Getpid())
	return &pidFile{f}, err
}

// remove removes it; where the sandbox has closed its directory it is made empty.
func (p *pidFile) remove() error {
	if p == nil {
		return nil
	}
	if os.Remove(p.Name()) == nil {
		return p.Close()
	}
	return errors.Join(p.Truncate(0), p.Close())
}
