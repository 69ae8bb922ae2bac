package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"portcullis/config"
	"portcullis/internal/check"
	"portcullis/internal/cmdline"
	"portcullis/internal/incumbent"
)

// usualFiles are where miniupnpd is configured, on OpenWrt and elsewhere.
var usualFiles = []string{"/etc/config/upnpd", "/etc/miniupnpd/miniupnpd.conf", "/etc/miniupnpd.conf"}

// runImport prints what the files of a miniupnpd become here, and says on standard error what
// does not become the same.
func runImport(ctx context.Context, call *cmdline.Call) error {
	files, err := filesOf(call.Args, usualFiles)
	if err != nil {
		return err
	}
	router, err := routerOf(ctx, call)
	if err != nil {
		return err
	}
	var text, leases []byte
	var notes []string
	configured := ""
	for _, name := range files {
		f, err := readForeign(ctx, name)
		if err != nil {
			return err
		}
		var of []incumbent.Note
		if f.Kind == incumbent.Leases {
			var more []byte
			more, of = incumbent.LeaseText(&f, time.Now())
			leases = append(append(leases, '\n'), more...)
		} else {
			if configured != "" {
				return cmdline.Usagef("%s and %s are both configurations: name one of them", configured, name)
			}
			configured = name
			plan, err := incumbent.Translate(&f, incumbent.Machine{Router: router, Holder: holder})
			if err != nil {
				return err
			}
			text, of = plan.Text(f.Name), plan.Notes
			if router == nil { // whose init script puts them where they can be
				of = append(of, leaseNotes(plan.Config)...)
			}
		}
		for _, n := range of {
			notes = append(notes, n.In(f.Name))
		}
	}
	if text == nil {
		leases = bytes.TrimLeft(leases, "\n")
	}
	if _, err := call.Out.Write(append(text, leases...)); err != nil {
		return err
	}
	for _, n := range notes {
		if _, err := fmt.Fprintln(call.Err, n); err != nil {
			return err
		}
	}
	return nil
}

// leaseNotes are what check would warn of where the lease files are.
func leaseNotes(c config.Config) (notes []incumbent.Note) {
	for _, w := range check.LeaseFiles(c) {
		notes = append(notes, incumbent.Note{Kind: incumbent.Look, Text: w.What + "; " + w.Remedy})
	}
	return notes
}

// filesOf returns the files that were named, or those that are in the usual place.
func filesOf(named, usual []string) ([]string, error) {
	if len(named) > 0 {
		return named, nil
	}
	for _, name := range usual {
		if _, err := os.Stat(name); !errors.Is(err, fs.ErrNotExist) {
			return []string{name}, nil
		}
	}
	return nil, fmt.Errorf("miniupnpd is not configured here (%s): name its file, or - for standard input", strings.Join(usual, ", "))
}

// routerOf returns what the init script of OpenWrt tells of its router; nil: nothing.
func routerOf(ctx context.Context, call *cmdline.Call) (*incumbent.Router, error) {
	dump, known := call.Given["networks"]
	if !known {
		if call.Has("zone") || call.Has("fw3") || call.Has("aliases") {
			return nil, cmdline.Usagef("--zone, --fw3 and --aliases need --networks")
		}
		return nil, nil
	}
	data, err := readAll(ctx, dump)
	if err != nil {
		return nil, err
	}
	aliases, err := aliasesOf(ctx, call)
	if err != nil {
		return nil, err
	}
	networks, err := incumbent.Networks(data, aliases)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", shownName(dump), err)
	}
	return &incumbent.Router{Networks: networks, Zone: call.Given["zone"], FW3: call.Has("fw3")}, nil
}

// aliasesOf reads which networks are aliases. A file that netifd may understand and we do not
// keeps nobody from being served: then these networks are known while they are up.
func aliasesOf(ctx context.Context, call *cmdline.Call) (map[string]string, error) {
	name, given := call.Given["aliases"]
	if !given {
		return nil, nil
	}
	data, err := readAll(ctx, name)
	if err != nil {
		return nil, err
	}
	aliases, err := incumbent.Aliases(shownName(name), data)
	if err != nil {
		fmt.Fprintf(call.Err, "%v; no alias is known\n", err)
	}
	return aliases, nil
}

// readForeign reads and recognises a file, or standard input where its name is "-".
func readForeign(ctx context.Context, name string) (incumbent.File, error) {
	data, err := readAll(ctx, name)
	if err != nil {
		return incumbent.File{}, err
	}
	return incumbent.Read(shownName(name), data)
}

// shownName is what a file that was named is called in errors and notes.
func shownName(name string) string {
	if name == "-" {
		return "standard input"
	}
	return name
}

// readAll is bytesOf until ctx ends: a pipe, or a terminal, may say nothing for ever.
func readAll(ctx context.Context, name string) ([]byte, error) {
	type read struct {
		data []byte
		err  error
	}
	done := make(chan read, 1)
	go func() {
		data, err := bytesOf(name)
		done <- read{data, err}
	}()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case r := <-done:
		return r.data, r.err
	}
}

// bytesOf returns what a file has, and of one that is too large one octet too many.
func bytesOf(name string) ([]byte, error) {
	from := os.Stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		from = f
	}
	return io.ReadAll(io.LimitReader(from, incumbent.MaxFileSize+1))
}

// holder returns the interface of this machine that has an address.
func holder(a netip.Addr) (string, bool) {
	all, err := net.Interfaces()
	if err != nil {
		return "", false
	}
	for _, i := range all {
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, has := range addrs {
			if p, err := netip.ParsePrefix(has.String()); err == nil && p.Addr() == a {
				return i.Name, true
			}
		}
	}
	return "", false
}
