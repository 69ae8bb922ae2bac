package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"portcullis/internal/cmdline"
	"portcullis/internal/control"
	"portcullis/portmap"
)

// runPending lists what waits for the owner.
func runPending(ctx context.Context, call *cmdline.Call) error {
	daemon, err := daemonOf(call)
	if err != nil {
		return err
	}
	list, err := daemon.Pending(ctx)
	if err != nil {
		return err
	}
	if call.Has("json") {
		return printJSON(call.Out, list)
	}
	return printPending(call.Out, list, withConfig(call), time.Now())
}

// withConfig returns the option that a command needs which is to be called next.
func withConfig(call *cmdline.Call) string {
	if file := call.Given["config"]; file != "" {
		return " --config " + file
	}
	return ""
}

func printPending(out io.Writer, list []control.Pending, config string, now time.Time) error {
	var b strings.Builder
	if len(list) == 0 {
		b.WriteString("nothing waits for you\n")
	}
	for i := range list {
		p := &list[i]
		fmt.Fprintf(&b, "%d  %s\n", p.ID, deviceLine(p))
		fmt.Fprintf(&b, "        asks for %s\n", pendingPort(p))
		if p.Description != "" {
			fmt.Fprintf(&b, "        and calls it %q\n", printable(p.Description))
		}
		fmt.Fprintf(&b, "        %s%s\n", agoOf(p.Last, now), often(p.Count))
	}
	if len(list) > 0 {
		id := list[0].ID
		fmt.Fprintf(&b, "\nportcullis approve%s %d   opens it when the device asks again (--for 2h, --once, --device)\n", config, id)
		fmt.Fprintf(&b, "portcullis deny%s %d      refuses it from now on\n", config, id)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func often(n uint64) string {
	if n < 2 {
		return ""
	}
	return ", asked " + times(n, "time")
}

// deviceLine names a device by all that is known of it.
func deviceLine(p *control.Pending) string {
	parts := []string{p.InternalIP}
	if p.ClientHost != "" {
		parts = append([]string{printable(p.ClientHost)}, parts...)
	}
	if p.ClientMAC != "" {
		parts = append(parts, p.ClientMAC)
	}
	mac, err := portmap.ParseMAC(p.ClientMAC)
	switch {
	case p.Vendor != "":
		parts = append(parts, printable(p.Vendor))
	case err == nil && mac[0]&2 != 0:
		parts[len(parts)-1] += " (random: the device may change it)"
	}
	return strings.Join(append(parts, "on "+p.Interface), ", ")
}

func pendingPort(p *control.Pending) string {
	line := fmt.Sprintf("%s port %d", p.Protocol, p.InternalPort)
	switch {
	case p.Family == 6:
		line += " by IPv6"
	case p.ExternalPort == 0:
		line += ", from outside any port"
	case p.ExternalPort != p.InternalPort:
		line += fmt.Sprintf(", from outside port %d", p.ExternalPort)
	}
	line += ", by " + p.Via
	if p.Service != "" {
		line += ": usually " + p.Service
	}
	if p.Rule != "" {
		line += fmt.Sprintf(" (the rule %q asks you)", printable(p.Rule))
	}
	return line
}

// runApprove says yes to what waits.
func runApprove(ctx context.Context, call *cmdline.Call) error {
	a, err := answerOf(call)
	if err != nil {
		return err
	}
	if a.For = call.Given["for"]; call.Has("once") {
		if a.For != "" {
			return cmdline.Usagef("--once and --for exclude each other")
		}
		a.For = "once"
	}
	daemon, err := daemonOf(call)
	if err != nil {
		return err
	}
	made, err := daemon.Approve(ctx, a)
	return showAnswer(call, made, err)
}

// runDeny says no.
func runDeny(ctx context.Context, call *cmdline.Call) error {
	a, err := answerOf(call)
	if err != nil {
		return err
	}
	daemon, err := daemonOf(call)
	if err != nil {
		return err
	}
	made, err := daemon.Deny(ctx, a)
	return showAnswer(call, made, err)
}

func answerOf(call *cmdline.Call) (a control.Answer, err error) {
	a.Device = call.Has("device")
	a.ID, err = answerID(call)
	return a, err
}

// answerID reads the one argument.
func answerID(call *cmdline.Call) (uint64, error) {
	id, err := strconv.ParseUint(call.Args[0], 10, 64)
	if err != nil || id == 0 {
		return 0, cmdline.Usagef("%.40q is not a number of `portcullis pending` or `portcullis approvals`", call.Args[0])
	}
	return id, nil
}

func showAnswer(call *cmdline.Call, a control.Approval, err error) error {
	if err != nil {
		return err
	}
	if call.Has("json") {
		return printJSON(call.Out, a)
	}
	lines := []string{answerLine(&a) + afterwards(&a)}
	_, err = fmt.Fprintln(call.Out, strings.Join(append(lines, closedLines(a.Closed)...), "\n"))
	return err
}

// afterwards says what comes next.
func afterwards(a *control.Approval) string {
	if a.Decision == "approve" {
		return "; it opens when the device asks again"
	}
	return ""
}

// answerLine is what was said, in words: "approved udp port 3074 of xbox (192.168.1.20) for good".
func answerLine(a *control.Approval) string {
	line := "denied "
	if a.Decision == "approve" {
		line = "approved "
	}
	if a.Protocol == "" {
		line += "all that is asked for by "
	} else {
		line += fmt.Sprintf("%s port %d of ", a.Protocol, a.InternalPort)
	}
	line += answeredDevice(a)
	switch {
	case a.Decision != "approve":
	case a.Once && a.Used:
		line += ", once, and it is open"
	case a.Once:
		line += ", once"
	case a.Until != nil:
		line += " until " + localTime(*a.Until)
	default:
		line += " for good"
	}
	return line
}

func answeredDevice(a *control.Approval) string {
	name := cmp.Or(printable(a.ClientHost), a.ClientMAC, a.ClientIP)
	if name == a.ClientIP {
		return name
	}
	return fmt.Sprintf("%s (%s)", name, a.ClientIP)
}

// localTime returns an RFC 3339 time as the owner's clock has it.
func localTime(text string) string {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return text
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

func closedLines(closed []control.Revoked) (lines []string) {
	for i := range closed {
		lines = append(lines, "closed "+place(&closed[i].Mapping))
	}
	return lines
}

// runApprovals lists what the owner has said.
func runApprovals(ctx context.Context, call *cmdline.Call) error {
	daemon, err := daemonOf(call)
	if err != nil {
		return err
	}
	list, err := daemon.Approvals(ctx)
	if err != nil {
		return err
	}
	if call.Has("json") {
		return printJSON(call.Out, list)
	}
	var b strings.Builder
	if len(list) == 0 {
		b.WriteString("nothing is approved or denied\n")
	}
	for i := range list {
		a := &list[i]
		fmt.Fprintf(&b, "%d  %s", a.ID, answerLine(a))
		if a.Description != "" {
			fmt.Fprintf(&b, " (%s)", printable(a.Description))
		}
		b.WriteByte('\n')
	}
	_, err = io.WriteString(call.Out, b.String())
	return err
}

// runRevoke takes an answer back, and says what that closed.
func runRevoke(ctx context.Context, call *cmdline.Call) error {
	id, err := answerID(call)
	if err != nil {
		return err
	}
	daemon, err := daemonOf(call)
	if err != nil {
		return err
	}
	done, err := daemon.Revoke(ctx, id)
	if err != nil {
		return err
	}
	if call.Has("json") {
		return printJSON(call.Out, done)
	}
	lines := append([]string{fmt.Sprintf("revoked %d; what it was about is asked about again", id)}, closedLines(done.Closed)...)
	_, err = fmt.Fprintln(call.Out, strings.Join(lines, "\n"))
	return err
}
