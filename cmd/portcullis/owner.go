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
	"time"

	"golang.org/x/sys/unix"

	"portcullis/config"
	"portcullis/internal/cmdline"
	"portcullis/internal/control"
)

// daemonOf returns a client of the daemon whose configuration the call names.
func daemonOf(call *cmdline.Call) (*control.Client, error) {
	socket, err := socketOf(call)
	if err != nil {
		return nil, err
	}
	return control.NewClient(socket), nil
}

// socketOf returns the path of that daemon's socket.
func socketOf(call *cmdline.Call) (string, error) {
	file := call.Given["config"]
	c, source, err := loadSource(file)
	socket := c.Control.Socket
	switch {
	case file != "" && errors.Is(err, fs.ErrNotExist):
		return "", err
	case err != nil: // a mistake of today does not keep the owner from a daemon that runs since yesterday
		socket = placed(config.SocketIn(source.File))
		first, _, _ := strings.Cut(err.Error(), "\n")
		fmt.Fprintf(call.Err, "portcullis: asking the daemon at %s all the same: %s\n", socket, first)
	}
	return string(socket), nil
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
	var w pairs
	w.add("version", "%s, up %s", s.Version, span(s.Uptime))
	w.add("WAN", "%s", wanLine(s.WAN))
	for _, l := range s.LAN {
		w.add("LAN", "%s %s", l.Interface, strings.Join(l.Prefixes, ", "))
	}
	w.add("mappings", "%s", mappingsLine(s))
	w.add("refused", "%s", refusedLine(s.Denied, s.LastRefused, time.Now()))
	if s.Pending > 0 {
		w.add("pending", "%s for you (portcullis pending)", waits(s.Pending))
	}
	w.add("firewall", "%s, %s", s.Firewall.Backend, repairedLine(s.Firewall.DriftRepaired))
	w.add("senders", "%s", sendersLine(s.Firewall))
	w.add("sandbox", "%s", sandboxLine(s.Sandbox))
	if s.Sandbox.Front != nil {
		w.add("front", "%s", frontLine(s.Sandbox.Front))
	}
	w.add("config", "%s", configurationLine(s.Configuration))
	if s.Hook != nil {
		w.add("hook", "%s", hookLine(s.Hook))
	}
	for _, line := range s.Sandbox.Missing {
		w.add("missing", "%s", line)
	}
	return w.print(out)
}

// hookLine returns what is known of the program that is told of events.
func hookLine(h *control.Hook) string {
	line := strings.Join(h.Command, " ")
	switch {
	case h.PID != 0:
		line += fmt.Sprintf(", process %d", h.PID)
	case h.Over:
		line += ", not running until portcullis is started again: " + printable(h.LastEnd)
	default:
		line += ", not running"
	}
	if !h.Over && h.LastEnd != "" {
		line += fmt.Sprintf("; ended %s, the last: %s", times(uint64(h.Ended), "time"), printable(h.LastEnd)) // #nosec G115 -- a count
	}
	if h.Missed > 0 {
		line += fmt.Sprintf("; missed %s", times(h.Missed, "event"))
	}
	return line
}

func waits(n int) string {
	if n == 1 {
		return "1 request waits"
	}
	return fmt.Sprintf("%d requests wait", n)
}

// refusedLine returns how much was refused, and what of it came last.
func refusedLine(n uint64, last *control.Event, now time.Time) string {
	if last == nil || last.Mapping == nil {
		return strconv.FormatUint(n, 10)
	}
	m := last.Mapping
	return fmt.Sprintf("%d; the last: %s %d/%s, %s: %s (portcullis refused)",
		n, m.InternalIP, m.InternalPort, m.Protocol, agoOf(last.Time, now), printable(firstPart(last.Why)))
}

func configurationLine(c control.Configuration) string {
	line := cmp.Or(c.File, "no file; the defaults") + ", read " + c.Since
	if len(c.Restart) > 0 {
		line += "; only after a restart: " + strings.Join(c.Restart, ", ")
	}
	return line
}

// mappingsLine returns how many there are of how many there may be.
func mappingsLine(s control.Status) string {
	line := fmt.Sprintf("%d of %d", s.Mappings+s.Pinholes, s.Limit)
	switch {
	case s.Pinholes == 1:
		line += ", 1 of them a pinhole"
	case s.Pinholes > 1:
		line += fmt.Sprintf(", %d of them pinholes", s.Pinholes)
	}
	return line
}

// repairedLine returns how often somebody else's change of the rules was put right.
func repairedLine(times uint64) string {
	switch times {
	case 0:
		return "never repaired"
	case 1:
		return "repaired once"
	}
	return fmt.Sprintf("repaired %d times", times)
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
