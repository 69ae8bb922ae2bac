package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"portcullis/internal/cmdline"
	"portcullis/internal/control"
	"portcullis/internal/json"
)

// OpenWrt's rpcd has programs that serve objects of ubus: called with "list" they print what
// methods there are, with "call METHOD" they read the arguments as JSON from their standard
// input and print the answer. So no argument of ubus ever is one of a command.

// method is one of the object that is called portcullis.
type method struct {
	name string
	args map[string]any // of the signature: by its type in rpcd, where 64 is an integer of so many bits
	do   func(context.Context, *control.Client, rpcArguments) (any, error)
}

// rpcArguments are all that a method can have.
type rpcArguments struct {
	ID     json.Number `json:"id"` // a text does as well: scripts have no other numbers of 53 bits
	For    string      `json:"for"`
	Device bool        `json:"device"`
	From   uint32      `json:"from"` // the place in a list, from 0
}

// session is what rpcd adds to the arguments of whoever has signed in.
const session = "ubus_rpc_session"

// rpcd takes answers of 256 KiB at most, and what our writer escapes is twice as long.
const (
	mostArguments = 4 << 10 // octets
	mostAnswer    = 120 << 10
)

func methods() []method {
	id, answer := map[string]any{"id": 64}, map[string]any{"id": 64, "for": "str", "device": true}
	from := map[string]any{"from": 32}
	return []method{
		{"status", nil, func(ctx context.Context, d *control.Client, _ rpcArguments) (any, error) { return d.Status(ctx) }},
		{"list", from, func(ctx context.Context, d *control.Client, a rpcArguments) (any, error) {
			list, err := d.Mappings(ctx)
			return page("mappings", list, a.From, err)
		}},
		{"refused", from, func(ctx context.Context, d *control.Client, a rpcArguments) (any, error) {
			list, err := d.Refused(ctx)
			return page("devices", list, a.From, err)
		}},
		{"pending", from, func(ctx context.Context, d *control.Client, a rpcArguments) (any, error) {
			list, err := d.Pending(ctx)
			return page("pending", list, a.From, err)
		}},
		{"approvals", from, func(ctx context.Context, d *control.Client, a rpcArguments) (any, error) {
			list, err := d.Approvals(ctx)
			return page("approvals", list, a.From, err)
		}},
		{"approve", answer, func(ctx context.Context, d *control.Client, a rpcArguments) (any, error) {
			id, err := a.id()
			if err != nil {
				return nil, err
			}
			return d.Approve(ctx, control.Answer{ID: id, For: a.For, Device: a.Device})
		}},
		{"deny", map[string]any{"id": 64, "device": true}, func(ctx context.Context, d *control.Client, a rpcArguments) (any, error) {
			id, err := a.id()
			if err != nil {
				return nil, err
			}
			return d.Deny(ctx, control.Answer{ID: id, Device: a.Device})
		}},
		{"revoke", id, func(ctx context.Context, d *control.Client, a rpcArguments) (any, error) {
			id, err := a.id()
			if err != nil {
				return nil, err
			}
			return d.Revoke(ctx, id)
		}},
		{"delete", id, func(ctx context.Context, d *control.Client, a rpcArguments) (any, error) {
			id, err := a.id()
			if err != nil {
				return nil, err
			}
			gone, err := d.Delete(ctx, control.Deletion{ID: id})
			return map[string]any{"closed": gone}, err
		}},
	}
}

// page returns as much of a list as an answer has room for, one at least, and from where to ask
// for the rest.
func page(name string, list any, from uint32, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(list)
	if err != nil {
		return nil, err
	}
	var parts []json.Raw
	if err := json.Unmarshal(text, &parts); err != nil {
		return nil, err
	}
	first := int(min(int64(from), int64(len(parts))))
	last, size := first, 0
	for last < len(parts) && (last == first || size+len(parts[last]) <= mostAnswer) {
		size += len(parts[last])
		last++
	}
	answer := map[string]any{name: append([]json.Raw{}, parts[first:last]...)}
	if last < len(parts) {
		answer["next"] = last
	}
	return answer, nil
}

// runRPCD is the plugin.
func runRPCD(ctx context.Context, call *cmdline.Call) error {
	if call.Args[0] == "list" {
		if len(call.Args) > 1 {
			return cmdline.Usagef("list takes no further arguments")
		}
		return printSignatures(call.Out)
	}
	if len(call.Args) < 2 {
		return cmdline.Usagef("a method is missing")
	}
	for _, m := range methods() {
		if m.name == call.Args[1] {
			answer, err := m.call(ctx, call, os.Stdin)
			if err != nil { // which rpcd has no place for but the answer
				answer = failureOf(err)
			}
			text, err := json.Marshal(answer)
			if err != nil {
				return err
			}
			return writeJSON(call.Out, text)
		}
	}
	return cmdline.Usagef("there is no method %.40q", call.Args[1])
}

// printSignatures prints what rpcd asks for at its start.
func printSignatures(out io.Writer) error {
	all := map[string]map[string]any{}
	for _, m := range methods() {
		if all[m.name] = m.args; m.args == nil {
			all[m.name] = map[string]any{}
		}
	}
	return printJSON(out, all)
}

// call reads the arguments, and has the daemon answer.
func (m *method) call(ctx context.Context, call *cmdline.Call, in io.Reader) (any, error) {
	a, err := m.read(in)
	if err != nil {
		return nil, err
	}
	daemon, err := daemonOf(call)
	if err != nil {
		return nil, err
	}
	return m.do(ctx, daemon, a)
}

// badArguments is a Failure of the caller's.
type badArguments struct{ error }

// read reads the arguments, of which a method has none that its signature does not say.
func (m *method) read(in io.Reader) (a rpcArguments, err error) {
	// One value is read, and not until the end: that may never come.
	stream := bufio.NewReader(in)
	text, err := json.Next(stream, mostArguments)
	behind, _ := stream.Peek(stream.Buffered())
	var given map[string]json.Raw
	switch {
	case errors.Is(err, io.EOF):
		return a, nil
	case err != nil, strings.TrimSpace(string(behind)) != "", json.Unmarshal(text, &given) != nil, given == nil:
		return a, badArguments{fmt.Errorf("the arguments are not one JSON object of at most %d bytes", mostArguments)}
	}
	for name := range given {
		if _, known := m.args[name]; !known && name != session {
			return a, badArguments{fmt.Errorf("%s has no argument %.40q", m.name, name)}
		}
	}
	if err := json.Unmarshal(text, &a); err != nil {
		return a, badArguments{errors.New("an argument has another type than the signature says")}
	}
	return a, nil
}

func (a *rpcArguments) id() (uint64, error) {
	id, err := strconv.ParseUint(string(a.ID), 10, 64)
	if err != nil || id == 0 {
		return 0, badArguments{errors.New("id is missing, or is not a number from 1")}
	}
	return id, nil
}

// failureOf returns an error as the answer of a method.
func failureOf(err error) control.Failure {
	var bad badArguments
	f := control.Failure{Reason: reasonOf(err), Error: err.Error()}
	if errors.As(err, &bad) {
		f.Reason = "bad-request"
	}
	return f
}
