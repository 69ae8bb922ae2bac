package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"portcullis/internal/cmdline"
	"portcullis/internal/control"
	"portcullis/portmap"
)

// runRefused prints what was refused lately, and what to write to allow it.
func runRefused(ctx context.Context, call *cmdline.Call) error {
	daemon, err := daemonOf(call)
	if err != nil {
		return err
	}
	list, err := daemon.Refused(ctx)
	if err != nil {
		return err
	}
	if who, only := call.Given["client"]; only {
		d := deviceOf(who)
		if list = refusedTo(list, d); len(list) == 0 {
			if err := d.unknown(ctx, daemon); err != nil {
				return err
			}
		}
	}
	if call.Has("json") {
		return printJSON(call.Out, list)
	}
	where, err := placeOf(ctx, daemon, call)
	if err != nil {
		return err
	}
	if who, only := call.Given["client"]; only && len(list) == 0 {
		_, err := fmt.Fprintf(call.Out, "nothing of %s was refused lately, as far as that device is known\n", printable(who))
		return err
	}
	return printRefused(call.Out, list, where, time.Now())
}

// refusedTo returns what was refused to one device, which may have asked by several addresses.
func refusedTo(list []control.RefusedDevice, who device) []control.RefusedDevice {
	some := []control.RefusedDevice{}
	for _, d := range list {
		if c := d.Client; who.is(c.Address, c.MAC, c.Host) {
			some = append(some, d)
		}
	}
	return some
}

// written is where a rule is to be written, and what is to be called then.
type written struct{ file, reload, config string }

// placeOf asks the daemon which file it runs.
func placeOf(ctx context.Context, daemon *control.Client, call *cmdline.Call) (written, error) {
	s, err := daemon.Status(ctx)
	if err != nil {
		return written{}, err
	}
	config := withConfig(call)
	return written{cmp.Or(s.Configuration.File, defaultConfig), "portcullis reload" + config, config}, nil
}

func printRefused(out io.Writer, list []control.RefusedDevice, where written, now time.Time) error {
	var b strings.Builder
	if len(list) == 0 {
		b.WriteString("nothing was refused lately\n")
	}
	shown := map[string]bool{}
	for i, d := range list {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s\n", askerLine(&d.Client))
		for j := range d.Refused {
			r := &d.Refused[j]
			fmt.Fprintf(&b, "\n  %s, %s\n  refused: %s\n", when(r, now), wanted(r, d.Client.Address), printable(reasonLine(&r.Verdict)))
			switch {
			case r.AllowedBy != "":
				fmt.Fprintf(&b, "  It would be opened now, if the device asked again: %s\n", printable(r.AllowedBy))
			case r.Action == "ask":
				fmt.Fprintf(&b, "  To allow it, run `portcullis pending%s`, and approve it there\n", where.config)
			case r.Reason == portmap.ClientQuota.String(), r.Reason == portmap.TotalQuota.String():
				fmt.Fprintf(&b, "  To allow it, close another one (`portcullis delete%s`), or raise the limit in %s, and run `%s`\n", where.config, where.file, where.reload)
			case r.Add == "":
			case shown[r.Add]:
				b.WriteString("  a rule above allows this too\n")
			default:
				shown[r.Add] = true
				writeRule(&b, &r.Verdict, where)
			}
		}
		if d.LeftOut > 0 {
			fmt.Fprintf(&b, "\n  and %s before\n", times(d.LeftOut, "other request"))
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// askerLine names a device by all that is known of it.
func askerLine(c *control.Asker) string {
	parts := []string{c.Address}
	if c.Host != "" {
		parts = append(parts, printable(c.Host))
	}
	if c.MAC != "" {
		parts = append(parts, c.MAC)
	}
	return strings.Join(append(parts, "on "+c.Interface), ", ")
}

// when returns how long ago, and how often.
func when(r *control.Refused, now time.Time) string {
	line := agoOf(r.Time, now)
	if r.Count > 1 {
		line += fmt.Sprintf(" and %s before", times(r.Count-1, "time"))
	}
	return line
}

// agoOf returns how long ago an RFC 3339 time was.
func agoOf(text string, now time.Time) string {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return text
	}
	return max(0, now.Sub(t)).Truncate(time.Second).String() + " ago"
}

func times(n uint64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.FormatUint(n, 10) + " " + what + "s"
}

// wanted returns what was asked for.
func wanted(r *control.Refused, client string) string {
	line := fmt.Sprintf("%s port %d by %s", r.Protocol, r.InternalPort, r.Via)
	if r.InternalIP != client {
		line = fmt.Sprintf("%s %s by %s", r.Protocol, net.JoinHostPort(r.InternalIP, strconv.Itoa(int(r.InternalPort))), r.Via)
	}
	if r.Family == 4 && r.ExternalPort != r.InternalPort {
		line += ", from outside " + outside(r.ExternalPort)
	}
	if r.Description != "" {
		line += fmt.Sprintf(" (%s)", printable(r.Description))
	}
	return line
}

func outside(p uint16) string {
	if p == 0 {
		return "any port"
	}
	return "port " + strconv.Itoa(int(p))
}

// reasonLine is why, without the hint where the rule itself is shown.
func reasonLine(v *control.Verdict) string {
	switch {
	case v.Add != "" && v.Action != "ask":
		return firstPart(v.Why)
	case v.Wall:
		return v.Why + " (no rule can allow it)"
	}
	return v.Why
}

// firstPart returns a sentence of ours up to what it advises.
func firstPart(sentence string) string {
	part, _, _ := strings.Cut(sentence, "; ")
	return part
}

// writeRule prints a rule as it can be pasted.
func writeRule(b *strings.Builder, v *control.Verdict, where written) {
	at := "to"
	if v.Above != "" {
		at = fmt.Sprintf("above the rule %q in", v.Above)
	}
	fmt.Fprintf(b, "  To allow it, add this %s %s, and run `%s`:\n\n%s\n", at, where.file, where.reload, v.Add)
}
