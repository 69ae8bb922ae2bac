package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"portcullis/internal/cmdline"
	"portcullis/internal/control"
)

// runExplain prints what would come of a request, if a host made it now.
func runExplain(ctx context.Context, call *cmdline.Call) error {
	q, err := question(call)
	if err != nil {
		return err
	}
	daemon, err := daemonOf(call)
	if err != nil {
		return err
	}
	e, err := daemon.Explain(ctx, q)
	if err != nil {
		return err
	}
	if call.Has("json") {
		return printJSON(call.Out, e)
	}
	where, err := placeOf(ctx, daemon, call)
	if err != nil {
		return err
	}
	return printExplained(call.Out, e, where)
}

// question reads the options; what the daemon knows better it says itself.
func question(call *cmdline.Call) (q control.Question, err error) {
	var missing []string
	for _, name := range []string{"client", "port", "protocol"} {
		if !call.Has(name) {
			missing = append(missing, "--"+name)
		}
	}
	if len(missing) > 0 {
		return q, cmdline.Usagef("missing: %s", strings.Join(missing, ", "))
	}
	who := deviceOf(call.Given["client"])
	if who.named() {
		return q, cmdline.Usagef("--client: %.40q is neither an address nor a MAC address", who.word)
	}
	q = control.Question{Client: cmp.Or(who.mac, who.addr.String()), Protocol: call.Given["protocol"], Via: call.Given["via"], Description: call.Given["description"]}
	if q.Port, err = portNumber(call.Given["port"]); err != nil || q.Port == 0 {
		return q, cmdline.Usagef("%q is not a port from 1 to 65535", call.Given["port"])
	}
	if text, given := call.Given["external"]; given {
		external, err := portNumber(text)
		if err != nil {
			return q, cmdline.Usagef("%q is not a port from 1 to 65535, or 0 for any", text)
		}
		q.ExternalPort = &external
	}
	return q, nil
}

func portNumber(text string) (uint16, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	return uint16(n), err
}

func printExplained(out io.Writer, e control.Explained, where written) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", askerLine(&e.Client))
	what, at := fmt.Sprintf("%s port %d", e.Protocol, e.InternalPort), ""
	switch e.Action {
	case "allow":
		if e.Family == 4 {
			at = " as external port " + strconv.Itoa(int(e.ExternalPort))
		}
		fmt.Fprintf(&b, "%s would be opened%s for %s: %s\n", what, at, span(e.ExpiresIn), printable(e.Why))
	default:
		why := reasonLine(&e.Verdict)
		if e.Action == "ask" && e.Pending == 0 { // nobody has asked yet
			why = firstPart(why) + "; when it has asked, `portcullis pending" + where.config + "` lists it"
		}
		fmt.Fprintf(&b, "%s would be refused: %s\n", what, printable(why))
	}
	if e.Pending != 0 {
		fmt.Fprintf(&b, "it waits for you: portcullis approve%s %d, or deny\n", where.config, e.Pending)
	}
	if e.Note != "" {
		fmt.Fprintf(&b, "but %s\n", printable(e.Note))
	}
	if e.Add != "" && e.Action != "ask" {
		writeRule(&b, &e.Verdict, where)
	}
	_, err := io.WriteString(out, b.String())
	return err
}
