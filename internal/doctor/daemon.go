package doctor

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"portcullis/config"
	"portcullis/internal/control"
)

// Called is the configuration that doctor was called with. What a running daemon has comes
// before it.
type Called struct {
	Config config.Config
	Err    error  // why it cannot be read; Config is zero
	Option string // " --config FILE" as it was given, for the commands in remedies; or ""
	File   string // "": there is none, and the defaults hold
	Socket string // where a daemon would answer
}

// Daemon is the one that runs.
type Daemon struct {
	Answers bool
	Stuck   bool     // it runs, and does not answer
	File    string   // that it has read; "": none, it runs the defaults
	Since   string   // when
	Mine    string   // the file that doctor was called with; "": none
	Broken  error    // why that cannot be read
	Changed []string // the keys in which that differs from what runs, where it is the same file
	Unknown error    // what it runs cannot be told

	Hook    *control.Hook // nil: it has none
	Refused uint64        // requests, since it started
	Pending int           // of these wait for the owner
}

// other reports whether the daemon runs another file.
func (d Daemon) other() bool { return d.Answers && d.File != "" && d.File != d.Mine }

// ask asks the daemon, and returns the configuration that is to be judged.
func (c Called) ask(ctx context.Context, f *Facts) (judged config.Config, now control.Status, err error) {
	mine := c.File
	if mine != "" {
		if mine, err = filepath.Abs(mine); err != nil {
			return c.Config, now, err
		}
	}
	f.Daemon, f.Option = Daemon{Mine: mine}, c.Option
	daemon := control.NewClient(c.Socket)
	if now, err = daemon.Status(ctx); err != nil {
		f.Daemon.Stuck = errors.As(err, new(*control.Stuck))
		f.Config = c.Err
		return c.Config, now, nil //nolint:nilerr // it does not run
	}
	d := &f.Daemon
	d.Answers, d.Broken, d.Hook, d.Refused, d.Pending = true, c.Err, now.Hook, now.Denied, now.Pending
	f.Quotas.Open = now.Mappings + now.Pinholes
	d.File, d.Since = now.Configuration.File, now.Configuration.Since
	runs, err := daemon.Effective(ctx)
	if err == nil {
		judged, err = config.Parse("configuration", []byte(runs.TOML))
	}
	if err != nil { // of another version
		d.Unknown, f.Config = err, c.Err
		return c.Config, now, nil
	}
	if c.Err == nil && !d.other() {
		f.compare(judged, c.Config)
	}
	if f.mappings, err = daemon.Mappings(ctx); err != nil {
		return judged, now, fmt.Errorf("ask the daemon for its mappings: %w", err)
	}
	if list, err := daemon.Refused(ctx); err == nil { // one of an older version does not tell
		f.Refusals = list
	}
	return judged, now, nil
}

// compare notes in what the file differs from what the daemon runs.
func (f *Facts) compare(runs, file config.Config) {
	if runs.Sandbox.Mode == config.SandboxSingle { // also where the machine has no more; status says so
		file.Sandbox.Mode = runs.Sandbox.Mode
	}
	_, live, restart := config.Adopt(runs, file)
	f.Daemon.Changed = append(live, restart...)
	slices.Sort(f.Daemon.Changed)
	f.Written = map[string]string{
		"firewall.backend":       string(file.Firewall.Backend),
		"firewall.accept_chain":  file.Firewall.AcceptChain.String(),
		"firewall.accept_chain6": file.Firewall.AcceptChain6.String(),
	}
}

// judgeDaemon adds whether what is judged is what runs.
func judgeDaemon(f *Facts, add adder) {
	d := f.Daemon
	file := d.File
	if file == "" {
		file = "the defaults, without a file,"
	}
	switch {
	case d.Stuck:
		add("daemon", Failure, "systemctl restart portcullis", "the daemon runs and does not answer: it is stopped, or stuck")
	case !d.Answers && d.Mine == "":
		add("daemon", Warning, f.start(), "the daemon does not run; judged are the defaults, for there is no file")
	case !d.Answers:
		add("daemon", Warning, f.start(), "the daemon does not run; judged is %s", d.Mine)
	case d.Unknown != nil:
		add("daemon", Warning, "systemctl restart portcullis", "the daemon does not say what it runs, so that the file is judged: %v", d.Unknown)
	case d.other() && d.Mine == "":
		add("daemon", Fine, "", "judged is what the daemon runs: %s as of %s", file, clock(d.Since))
	case d.other():
		add("daemon", Warning, "what it runs is judged; for the other file, restart it with --config "+d.Mine,
			"the daemon runs %s as of %s, and not %s", file, clock(d.Since), d.Mine)
	case d.Broken != nil:
		add("daemon", Warning, "fix the file, and check it with `portcullis check"+f.Option+"`"+f.then("rule"),
			"the daemon runs %s as of %s; the file is not valid any more, and it would not start with it: %v", file, clock(d.Since), d.Broken)
	case len(d.Changed) > 0:
		add("daemon", Warning, strings.TrimPrefix(f.then(d.Changed...), "\nthen: "),
			"the daemon runs the configuration as of %s; %s has been changed since (%s)", clock(d.Since), d.Mine, strings.Join(d.Changed, ", "))
	default:
		add("daemon", Fine, "", "judged is what the daemon runs: %s as of %s", file, clock(d.Since))
	}
}

// clock returns a time as people tell it: without the day where that is today's.
func clock(since string) string {
	t, err := time.Parse(time.RFC3339, since)
	if err != nil {
		return since
	}
	t = t.Local()
	if time.Since(t) < 24*time.Hour && t.Day() == time.Now().Day() {
		return t.Format(time.TimeOnly)
	}
	return t.Format(time.DateTime)
}
