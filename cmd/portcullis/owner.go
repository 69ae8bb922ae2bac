package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"portcullis/config"
	"portcullis/internal/cmdline"
	"portcullis/internal/control"
)

// daemonOf returns a client of the daemon whose configuration the call names.
func daemonOf(call *cmdline.Call) (*control.Client, error) {
	file := call.Given["config"]
	c, source, err := loadSource(file)
	socket := c.Control.Socket
	switch {
	case file != "" && errors.Is(err, fs.ErrNotExist):
		return nil, err
	case err != nil: // a mistake of today does not keep the owner from a daemon that runs since yesterday
		socket = config.SocketIn(source.File)
		first, _, _ := strings.Cut(err.Error(), "\n")
		fmt.Fprintf(call.Err, "portcullis: asking the daemon at %s all the same: %s\n", socket, first)
	}
	return control.NewClient(string(socket)), nil
}

func runStatus(ctx context.Context, call *cmdline.Call) error {
	daemon, err := daemonOf(call)
	if err != nil {
		return err
	}
	s, err := daemon.Status(ctx)
	if err != nil {
		return err
	}
	if call.Has("json") {
		return printJSON(call.Out, s)
	}
	return printStatus(call.Out, s)
}

func printStatus(out io.Writer, s control.Status) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "version\t%s, up %s\n", s.Version, time.Duration(s.Uptime)*time.Second)
	fmt.Fprintf(w, "WAN\t%s\n", wanLine(s.WAN))
	for _, l := range s.LAN {
		fmt.Fprintf(w, "LAN\t%s %s\n", l.Interface, strings.Join(l.Prefixes, ", "))
	}
	fmt.Fprintf(w, "mappings\t%d, pinholes %d, refused %d\n", s.Mappings, s.Pinholes, s.Denied)
	fmt.Fprintf(w, "firewall\t%s, repaired %d times\n", s.Firewall.Backend, s.Firewall.DriftRepaired)
	fmt.Fprintf(w, "senders\t%s\n", sendersLine(s.Firewall))
	fmt.Fprintf(w, "sandbox\t%s\n", sandboxLine(s.Sandbox))
	if s.Sandbox.Front != nil {
		fmt.Fprintf(w, "front\t%s\n", frontLine(s.Sandbox.Front))
	}
	fmt.Fprintf(w, "config\t%s\n", configurationLine(s.Configuration))
	for _, line := range s.Sandbox.Missing {
		fmt.Fprintf(w, "missing\t%s\n", line)
	}
	return w.Flush()
}

func configurationLine(c control.Configuration) string {
	line := cmp.Or(c.File, "no file; the defaults") + ", read " + c.Since
	if len(c.Restart) > 0 {
		line += "; only after a restart: " + strings.Join(c.Restart, ", ")
	}
	return line
}

// sandboxLine returns what keeps a fault of the daemon from being worth much.
func sandboxLine(s control.Sandbox) string {
	parts := append([]string{s.Mode + ": " + held(s.Capabilities)}, inForce(s.NoNewPrivs, s.Seccomp)...)
	if s.Landlock > 0 {
		parts = append(parts, fmt.Sprint("Landlock ", s.Landlock))
	}
	if !s.Dumpable {
		parts = append(parts, "not dumpable")
	}
	return strings.Join(parts, ", ")
}

// fewCapabilities are as many as a daemon in its sandbox ever has, which are named.
const fewCapabilities = 3

func held(capabilities []string) string {
	switch n := len(capabilities); {
	case n == 0:
		return "no capability"
	case n <= fewCapabilities:
		return strings.Join(capabilities, ", ")
	case n > lastCapability():
		return "all capabilities"
	default: // of a container, say
		return fmt.Sprintf("%d capabilities", n)
	}
}

// lastCapability returns the number of the last one that the kernel knows.
func lastCapability() int {
	text, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	n, err2 := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || err2 != nil {
		return unix.CAP_LAST_CAP
	}
	return n
}

func inForce(noNewPrivs, seccomp bool) (parts []string) {
	if noNewPrivs {
		parts = append(parts, "no new privileges")
	}
	if seccomp {
		parts = append(parts, "seccomp")
	}
	return parts
}

// frontLine returns what is true of the process that parses what the network sends.
func frontLine(f *control.Front) string {
	line := "not running"
	switch {
	case f.PID != 0 && f.Unknown != "":
		line = fmt.Sprintf("process %d, of which nothing is known: %s", f.PID, f.Unknown)
	case f.PID != 0:
		parts := append([]string{fmt.Sprintf("process %d: user %d", f.PID, f.User), held(f.Capabilities)}, inForce(f.NoNewPrivs, f.Seccomp)...)
		line = strings.Join(parts, ", ")
	}
	switch {
	case f.Ended == 1:
		line += "; 1 has ended: " + f.LastEnd
	case f.Ended > 1:
		line += fmt.Sprintf("; %d have ended, the last: %s", f.Ended, f.LastEnd)
	}
	return line
}

// sendersLine returns how it is seen who sends a datagram, and whether the kernel says who
// asks at all.
func sendersLine(f control.Firewall) string {
	switch {
	case f.Senders == "":
		return "cannot be seen, so NAT-PMP and PCP are not served"
	case !f.Askers:
		return "seen by " + f.Senders + ", not checked to have asked"
	}
	return "seen by " + f.Senders + ", checked to have asked"
}

func wanLine(w control.WAN) string {
	switch {
	case w.Interface == "":
		return "none yet"
	case !w.Up:
		return w.Interface + ", down or without an address"
	case w.Private:
		return w.Interface + ", its address is private: nobody on the Internet can reach it"
	}
	return w.Interface + " " + w.ExternalIP
}

func runList(ctx context.Context, call *cmdline.Call) error {
	daemon, err := daemonOf(call)
	if err != nil {
		return err
	}
	list, err := daemon.Mappings(ctx)
	if err != nil {
		return err
	}
	if len(list) > 0 && list[0].Uncounted {
		fmt.Fprintln(call.Err, "portcullis: packet counts are missing; the log says why")
	}
	return showMappings(call, list)
}

func showMappings(call *cmdline.Call, list []control.Mapping) error {
	if call.Has("json") {
		return printJSON(call.Out, list)
	}
	return printMappings(call.Out, list)
}

func printMappings(out io.Writer, list []control.Mapping) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tPORT\tTARGET\tHOST\tFROM\tVIA\tEXPIRES\tPACKETS\tDESCRIPTION")
	for _, m := range list {
		from := m.Remote
		if from == "" {
			from = "anyone"
		}
		switch {
		case !m.Enabled:
			from = "nobody (disabled)"
		case m.Suspended:
			from = "nobody (another device has the address)"
		}
		packets := strconv.FormatUint(m.Packets, 10)
		if m.Uncounted {
			packets = "-"
		}
		fmt.Fprintf(w, "%d\t%d/%s\t%s:%d\t%s\t%s\t%s\t%s\t%s\t%s\n", m.ID, m.ExternalPort, m.Protocol,
			m.InternalIP, m.InternalPort, printable(m.ClientHost), from, m.Via, endsIn(m), packets, printable(m.Description))
	}
	return w.Flush()
}

func endsIn(m control.Mapping) string {
	left := (time.Duration(m.ExpiresIn) * time.Second).String()
	switch {
	case m.ExpiresIn == 0:
		return "never"
	case m.Endless:
		return left + " unless seen"
	}
	return left
}

// printable keeps a client's text from playing with the owner's terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsGraphic(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

func runDelete(ctx context.Context, call *cmdline.Call) error {
	wanted, err := deletions(call.Has("all"), call.Args)
	if err != nil {
		return err
	}
	daemon, err := daemonOf(call)
	if err != nil {
		return err
	}
	gone := []control.Mapping{}
	var failed []error
	for _, d := range wanted {
		some, err := daemon.Delete(ctx, d)
		if err != nil {
			failed = append(failed, err)
		}
		gone = append(gone, some...)
	}
	if len(gone) > 0 || call.Has("json") {
		if err := showMappings(call, gone); err != nil {
			return err
		}
	}
	return errors.Join(failed...)
}

// deletions reads "--all", "tcp|udp PORT", or a list of ids.
func deletions(all bool, args []string) ([]control.Deletion, error) {
	switch {
	case all && len(args) == 0:
		return []control.Deletion{{All: true}}, nil
	case all:
		return nil, cmdline.Usagef("--all takes no further arguments")
	case len(args) == 0:
		return nil, cmdline.Usagef("nothing to delete: give an ID, a protocol and port, or --all")
	case len(args) == 2 && (args[0] == "tcp" || args[0] == "udp"):
		port, err := strconv.ParseUint(args[1], 10, 16)
		if err != nil || port == 0 {
			return nil, cmdline.Usagef("%q is not a port from 1 to 65535", args[1])
		}
		return []control.Deletion{{Protocol: args[0], Port: uint16(port)}}, nil
	}
	list := make([]control.Deletion, len(args))
	for i, a := range args {
		id, err := strconv.ParseUint(a, 10, 64)
		if err != nil || id == 0 {
			return nil, cmdline.Usagef("%q is not a mapping ID; `portcullis list` shows them", a)
		}
		list[i] = control.Deletion{ID: id}
	}
	return list, nil
}
