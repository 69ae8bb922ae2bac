package incumbent

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// Flag is an option of miniupnpd's command line.
type Flag struct {
	Name string   // with its dash
	Args []string // what stands behind it, in capitals
	Conf string   // the option of miniupnpd.conf that it sets; "": none
	yes  string   // what it sets that to where nothing stands behind it
	Why  string   // what is to know about it; "": what is to know about Conf
	to   func(*Invocation, int, []string)
}

// Invocation is how miniupnpd is called.
type Invocation struct {
	Conf    string // -f, the configuration file; "": the usual one, where there is one
	Base    string // --config, a portcullis.toml with what miniupnpd has no words for; "": none
	PidFile string // -P; "": none
	Debug   bool   // -d or -vv: everything is logged
	Watched bool   // -d: somebody reads the log on a terminal
	Stays   bool   // -d or -D: in the foreground
	Help    bool
	Version bool
	Options File     // what the command line sets
	Daemon  []string // the same call for a process that stays in the foreground and has no pid file
}

// Does says in a line what comes of it.
func (f *Flag) Does() string { return strings.Trim(f.Sets()+"; "+f.Why, "; ") }

// Option returns the option of miniupnpd.conf that it sets, nil where there is none.
func (f *Flag) Option() *Option { return find(Conf, f.Conf) }

// Sets returns that option, and the value where none is given; "" where there is none.
func (f *Flag) Sets() string {
	if f.yes != "" {
		return f.Conf + "=" + f.yes
	}
	return f.Conf
}

const usage = "command line"

// Arguments reads a command line as miniupnpd does: what belongs to an option is the next
// argument, and each option stands alone. Paths are taken from the directory dir. An error is
// an *Error whose Line counts the arguments.
func Arguments(args []string, dir string) (*Invocation, error) {
	v := &Invocation{Options: File{Name: usage, Kind: Conf}, Daemon: []string{"-D"}}
	for i := 0; i < len(args); {
		f, why := flagOf(args[i])
		if f == nil {
			return nil, &Error{usage, i + 1, why}
		}
		given := args[i+1:]
		if len(given) < len(f.Args) {
			return nil, &Error{usage, i + 1, fmt.Sprintf("%s needs %s", f.Name, strings.Join(f.Args, " and "))}
		}
		given = slices.Clone(given[:len(f.Args)])
		for n, arg := range f.Args {
			if strings.HasSuffix(arg, "FILE") && !filepath.IsAbs(given[n]) {
				given[n] = filepath.Join(dir, given[n])
			}
			if strings.ContainsAny(given[n], "\x00\n") || len(given[n]) > maxLine {
				return nil, &Error{usage, i + 2 + n, fmt.Sprintf("%s is not what %s takes", shown(given[n]), f.Name)}
			}
		}
		if f.Name != "-P" && f.Name != "-D" {
			v.Daemon = append(append(v.Daemon, args[i]), given...)
		}
		if err := v.take(f, args[i], i+1, given); err != nil {
			return nil, err
		}
		i += 1 + len(f.Args)
	}
	if len(v.Options.rules) > maxRules {
		return nil, v.Options.failed(len(args), "%s", tooMany)
	}
	return v, nil
}

// flagOf returns the option that an argument is, or what is wrong with it.
func flagOf(arg string) (*Flag, string) {
	if len(arg) > 1 && strings.Trim(arg[1:], "v") == "" && arg[0] == '-' { // -v, -vv
		arg = "-v"
	}
	if arg == "--help" || arg == "--version" {
		arg = map[string]string{"--help": "-h", "--version": "-V"}[arg]
	}
	for i := range flags {
		if flags[i].Name == arg {
			return &flags[i], ""
		}
	}
	if len(arg) > 2 && arg[0] == '-' && arg[1] != '-' {
		for i := range flags {
			if strings.HasPrefix(arg, flags[i].Name) {
				return nil, fmt.Sprintf("%s is no option: each stands alone, and its value is the next argument, as in %s",
					shown(arg), strings.Join(append([]string{flags[i].Name}, flags[i].Args...), " "))
			}
		}
	}
	return nil, shown(arg) + " is no option that is known"
}

// take has an option do what it does; n is the number of the argument.
func (v *Invocation) take(f *Flag, arg string, n int, given []string) error {
	switch f.Name {
	case "-v":
		v.Debug = v.Debug || len(arg) > 2
	case "-A":
		r, why := confRule(strings.TrimSpace(given[0]))
		if why != "" {
			return v.Options.failed(n+1, "%s: miniupnpd does not start with such a rule", why)
		}
		r.line = n + 1
		v.Options.rules = append(v.Options.rules, r)
	default:
		switch {
		case f.to != nil:
			f.to(v, n, given)
		case f.Conf == "":
			v.Options.notes = append(v.Options.notes, Note{usage, n, "", NoCounterpart, f.Name + ": " + f.Why})
		case len(given) == 0:
			v.set(n, f.Conf, f.yes)
		default:
			v.set(n, f.Conf, given[0])
		}
	}
	return nil
}

func (v *Invocation) set(n int, name, value string) {
	v.Options.settings = append(v.Options.settings, setting{n, name, value})
}

// Flags returns all options of the command line.
func Flags() []Flag { return flags }

var flags = []Flag{
	{Name: "-f", Args: []string{"FILE"}, Why: "the miniupnpd.conf; without it /etc/miniupnpd/miniupnpd.conf or /etc/miniupnpd.conf, where there is one",
		to: func(v *Invocation, _ int, a []string) { v.Conf = a[0] }},
	{Name: "--config", Args: []string{"FILE"}, Why: "not miniupnpd's: a portcullis.toml with what its file has no words for; what miniupnpd is told counts before it, and its rules come first",
		to: func(v *Invocation, _ int, a []string) { v.Base = a[0] }},
	{Name: "-i", Args: []string{"INTERFACE"}, Conf: "ext_ifname"},
	{Name: "-I", Args: []string{"INTERFACE"}, Conf: "ext_ifname6"},
	{Name: "-4", Conf: "ipv6_disable", yes: "yes"},
	{Name: "-o", Args: []string{"ADDRESS"}, Conf: "ext_ip", Why: "STUN:HOST is ext_perform_stun", to: func(v *Invocation, n int, a []string) {
		if len(a[0]) >= 5 && strings.EqualFold(a[0][:5], "STUN:") {
			v.set(n, "ext_perform_stun", "yes")
		} else {
			v.set(n, "ext_ip", a[0])
		}
	}},
	{Name: "-a", Args: []string{"INTERFACE"}, Conf: "listening_ip"},
	{Name: "-p", Args: []string{"PORT"}, Conf: "http_port"},
	{Name: "-H", Args: []string{"PORT"}, Conf: "https_port"},
	{Name: "-N", Conf: "enable_pcp_pmp", yes: "yes"},
	{Name: "-S", Conf: "secure_mode", yes: "yes"},
	{Name: "-S0", Conf: "secure_mode", yes: "no"},
	{Name: "-A", Args: []string{"RULE"}, Why: "a rule, behind those of the file"},
	{Name: "-u", Args: []string{"UUID"}, Conf: "uuid"},
	{Name: "-s", Args: []string{"SERIAL"}, Conf: "serial"},
	{Name: "-m", Args: []string{"NUMBER"}, Conf: "model_number"},
	{Name: "-z", Args: []string{"NAME"}, Conf: "friendly_name"},
	{Name: "-w", Args: []string{"URL"}, Conf: "presentation_url"},
	{Name: "-B", Args: []string{"DOWN", "UP"}, Conf: "bitrate_down", Why: "and bitrate_up", to: func(v *Invocation, n int, a []string) {
		v.set(n, "bitrate_down", a[0])
		v.set(n, "bitrate_up", a[1])
	}},
	{Name: "-t", Args: []string{"SECONDS"}, Conf: "notify_interval"},
	{Name: "-r", Args: []string{"SECONDS"}, Conf: "clean_ruleset_interval"},
	{Name: "-U", Conf: "system_uptime", yes: "yes"},
	{Name: "-1", Conf: "force_igd_desc_v1", yes: "yes"},
	{Name: "-b", Args: []string{"BOOTID"}, Why: "each BOOTID has to be greater than the last, so they are counted in state.dir"},
	{Name: "-P", Args: []string{"PIDFILE"}, Why: "the number of the process that stays; without it in the background /var/run/miniupnpd.pid",
		to: func(v *Invocation, _ int, a []string) { v.PidFile = a[0] }},
	{Name: "-d", Why: "in the foreground, everything is logged to standard error", to: func(v *Invocation, _ int, _ []string) { v.Stays, v.Debug, v.Watched = true, true, true }},
	{Name: "-D", Why: "in the foreground, as a service of systemd with Type=notify", to: func(v *Invocation, _ int, _ []string) { v.Stays = true }},
	{Name: "-v", Why: "-vv: everything is logged; what is opened and closed always is"},
	{Name: "-l", Args: []string{"FILE"}, Why: "logs go to syslog, or with -d and -D to standard error"},
	{Name: "-L", Conf: "packet_log", yes: "yes"},
	{Name: "-q", Args: []string{"QUEUE"}, Conf: "queue"},
	{Name: "-T", Args: []string{"TAG"}, Conf: "tag"},
	{Name: "-Q", Args: []string{"QUEUE"}, Why: "no packet goes by way of a program"},
	{Name: "-n", Args: []string{"INTERFACE"}, Why: "no packet goes by way of a program"},
	{Name: "-h", Why: "prints these options; --help too", to: func(v *Invocation, _ int, _ []string) { v.Help = true }},
	{Name: "-V", Why: "prints the version; --version too", to: func(v *Invocation, _ int, _ []string) { v.Version = true }},
}
