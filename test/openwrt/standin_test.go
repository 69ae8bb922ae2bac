package openwrt

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// standIns are the programs of OpenWrt that this one is, inside a router.
var standIns = map[string]func(args []string) int{
	"uci": uci, "ubus": ubus, "logger": logger, "procd": send, "ujail": ujail, "inside": inside,
}

func failed(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// deltas is where uci has what was set and not committed.
const deltas = "/tmp/.uci/"

// uci prints an option: uci -q get PACKAGE.@TYPE[0].OPTION, with what was not committed, or
// PATH.@TYPE[0].OPTION, without; sets one: uci set PACKAGE.SECTION.OPTION=VALUE; commits; or
// shows whether it reads a package at all: uci show PATH.
func uci(args []string) int {
	last := args[len(args)-1]
	set := regexp.MustCompile(`^(\w+)\.(\w+)\.(\w+)=(\S+)$`).FindStringSubmatch(last)
	get := regexp.MustCompile(`^((?:/etc/config/)?(\w+))\.@(\w+)\[0\]\.(\w+)$`).FindStringSubmatch(last)
	switch {
	case args[0] == "commit" && len(args) == 2:
		if err := commit(last); err != nil {
			return failed(err)
		}
		return 0
	case args[0] == "set" && len(args) == 2 && set != nil:
		text, _ := os.ReadFile(deltas + set[1]) // there may be none yet
		err := os.MkdirAll(deltas, 0o700)
		if err == nil {
			err = os.WriteFile(deltas+set[1], fmt.Appendf(text, "%s %s %s\n", set[2], set[3], set[4]), 0o600)
		}
		if err != nil {
			return failed(err)
		}
		return 0
	case args[0] == "show" && len(args) == 2 && strings.HasPrefix(last, "/etc/config/"):
		if _, err := packageOf(strings.TrimPrefix(last, "/etc/config/"), false); err != nil {
			return failed(fmt.Errorf("uci: %w", err))
		}
		return 0
	case len(args) != 3 || args[0] != "-q" || args[1] != "get" || get == nil:
		return failed(fmt.Errorf("uci %q", args))
	}
	sections, err := packageOf(get[2], !strings.HasPrefix(get[1], "/"))
	if err != nil {
		return 1
	}
	for _, s := range sections {
		if s.kind == get[3] {
			if value, found := s.options[get[4]]; found {
				fmt.Println(value)
				return 0
			}
			return 1
		}
	}
	return 1
}

// section is one of a package; those of one name are one.
type section struct {
	kind, name string
	options    map[string]string
}

// unread is a comment with which a file is one that uci does not read, whatever else does.
const unread = "# uci: Parse error"

var nameOfUCI = regexp.MustCompile(`^\w*$`)

// packageOf reads a package, and what was not committed of it; nothing of it where there is a
// name that libuci does not take.
func packageOf(name string, uncommitted bool) (all []*section, err error) {
	text, err := os.ReadFile("/etc/config/" + name)
	if err != nil {
		return nil, err
	}
	if strings.Contains(string(text), unread) {
		return nil, errors.New("Parse error")
	}
	var in *section
	for _, words := range statements(string(text)) {
		switch {
		case len(words) == 3 && words[0] == "config" && !nameOfUCI.MatchString(words[2]),
			len(words) == 3 && words[0] == "option" && !nameOfUCI.MatchString(words[1]):
			return nil, errors.New("Parse error (invalid character in name field)")
		case len(words) > 1 && words[0] == "config":
			in = &section{words[1], strings.Join(words[2:], ""), map[string]string{}}
			if i := slices.IndexFunc(all, func(s *section) bool { return s.name != "" && s.name == in.name }); i >= 0 {
				in = all[i]
			} else {
				all = append(all, in)
			}
		case len(words) == 3 && words[0] == "option" && in != nil:
			in.options[words[1]] = words[2]
		}
	}
	if !uncommitted {
		return all, nil
	}
	text, _ = os.ReadFile(deltas + name) // there may be none
	for line := range strings.Lines(string(text)) {
		for _, s := range all {
			if words := strings.Fields(line); s.name == words[0] {
				s.options[words[1]] = words[2]
			}
		}
	}
	return all, nil
}

// commit writes a package anew, with what was set of it.
func commit(name string) error {
	all, err := packageOf(name, true)
	if err != nil {
		return err
	}
	var text strings.Builder
	for _, s := range all {
		fmt.Fprintf(&text, "\nconfig %s '%s'\n", s.kind, s.name)
		for _, option := range slices.Sorted(maps.Keys(s.options)) {
			fmt.Fprintf(&text, "\toption %s '%s'\n", option, s.options[option])
		}
	}
	if err := os.WriteFile("/etc/config/"+name, []byte(text.String()), 0o600); err != nil {
		return err
	}
	return os.RemoveAll(deltas + name)
}

// statements takes a file of uci's apart; nil, if a string does not end.
func statements(text string) (all [][]string) {
	var words []string
	var word strings.Builder
	quote, in, comment := rune(0), false, false
	end := func() {
		if in {
			words = append(words, word.String())
			word.Reset()
		}
		in = false
	}
	for _, c := range text + "\n" {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(c)
		case c == '\n':
			end()
			all = append(all, words)
			words, comment = nil, false
		case comment:
		case c == '\'' || c == '"':
			quote, in = c, true
		case c == ' ' || c == '\t':
			end()
		case c == '#' && !in:
			comment = true
		default:
			word.WriteRune(c)
			in = true
		}
	}
	if quote != 0 {
		return nil
	}
	return all
}

// bus is where the router's ubus is, for its programs.
const bus = "/tmp/ubus.sock"

// ubus sends a call to the test, and prints its answer.
func ubus(args []string) int {
	c, err := net.Dial("unix", bus)
	if err != nil {
		return failed(err)
	}
	defer c.Close()
	if err := json.NewEncoder(c).Encode(args); err != nil {
		return failed(err)
	}
	answer, err := io.ReadAll(c)
	if err != nil {
		return failed(err)
	}
	_, _ = os.Stdout.Write(answer)
	return 0
}

// logger appends what it is given, with its priority, to /tmp/log, and with -s prints it too.
func logger(args []string) int {
	var priority, text string
	for i := 0; i < len(args); i++ {
		switch args[i] {
		case "-s":
			defer func() { fmt.Fprint(os.Stderr, text) }()
		case "-t", "-p":
			i++
			if args[i-1] == "-p" {
				priority = args[i]
			}
		default:
			text = args[i]
		}
	}
	if text == "" {
		all, err := io.ReadAll(os.Stdin)
		if err != nil {
			return failed(err)
		}
		text = string(all)
	}
	f, err := os.OpenFile("/tmp/log", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return failed(err)
	}
	defer f.Close()
	for line := range strings.Lines(text) {
		fmt.Fprintln(f, priority, strings.TrimSuffix(line, "\n"))
	}
	return 0
}

// send sends procd the message that the functions of procd.sh have said.
func send([]string) int {
	const said = "/tmp/procd.said"
	text, err := os.ReadFile(said)
	if err != nil {
		return failed(err)
	}
	defer os.Remove(said)
	message, err := service(string(text))
	if err != nil {
		return failed(err)
	}
	if text, err = json.Marshal(message); err != nil {
		return failed(err)
	}
	return ubus([]string{"call", "service", "set", string(text)})
}

// object is one of JSON's.
type object = map[string]any

// service makes the message "service set" of what was said.
func service(said string) (object, error) {
	message, instances, triggers := object{}, object{}, []any{}
	message["instances"] = instances
	var in, jail object
	for call := range strings.SplitSeq(strings.TrimSuffix(said, "\036"), "\036") {
		a := strings.Split(strings.TrimSuffix(call, "\037"), "\037")
		switch of := a[1:]; a[0] {
		case "open_service":
			message["name"], message["script"] = of[0], of[1]
		case "open_instance":
			in, jail = object{}, nil
			instances[fmt.Sprintf("instance%d", len(instances)+1)] = in
		case "close_instance":
			in = nil
		case "set_param":
			value, err := parameter(of[0], of[1:])
			if err != nil {
				return nil, err
			}
			in[of[0]] = value
		case "add_jail":
			jail = object{"name": of[0], "mount": object{}}
			for _, what := range of[1:] {
				jail[what] = true
			}
			in["jail"] = jail
		case "add_jail_mount", "add_jail_mount_rw":
			for _, path := range of {
				jail["mount"].(object)[path] = map[bool]string{true: "1", false: "0"}[a[0] == "add_jail_mount_rw"]
			}
		case "add_reload_trigger":
			for _, file := range of {
				triggers = append(triggers, []any{"config.change", []any{"if", []any{"eq", "package", file},
					[]any{"run_script", "/etc/init.d/" + message["name"].(string), "reload"}}, 1000})
			}
		case "add_raw_trigger":
			delay, err := strconv.Atoi(of[1])
			if err != nil {
				return nil, err
			}
			triggers = append(triggers, []any{of[0], []any{append([]string{"run_script"}, of[2:]...)}, delay})
		default:
			return nil, fmt.Errorf("%q is nothing that is known of procd.sh", a)
		}
	}
	message["triggers"] = triggers
	return message, nil
}

// parameter returns a parameter of an instance as procd gets it.
func parameter(name string, values []string) (any, error) {
	switch name {
	case "command", "file", "respawn":
		return values, nil
	case "user", "group", "capabilities":
		return values[0], nil
	case "stderr", "no_new_privs":
		return values[0] == "1", nil
	case "term_timeout":
		return strconv.Atoi(values[0])
	case "reload_signal":
		if n := unix.SignalNum("SIG" + values[0]); n != 0 {
			return int(n), nil
		}
	}
	return nil, fmt.Errorf("%s %q is nothing that is known of procd", name, values)
}
