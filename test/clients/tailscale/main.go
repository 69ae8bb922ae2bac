// Command tailscale maps UDP port 41641 with Tailscale's net/portmapper, in the
// protocols that are its arguments, says which external address it learnt, waits
// for its input to end, and unmaps. It is a module of its own with two module
// files, because two versions of the library are clients of ours: go.mod, and
// next.mod for the one that needs a newer Go.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"tailscale.com/net/netmon"
	"tailscale.com/net/portmapper"
	"tailscale.com/net/portmapper/portmappertype"
	"tailscale.com/util/eventbus"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, protocols []string) error {
	off := func(protocol string) func() bool {
		return func() bool { return !slices.Contains(protocols, protocol) }
	}
	want := portmappertype.ProbeResult{PCP: !off("pcp")(), PMP: !off("natpmp")(), UPnP: !off("upnp")()}
	knobs := portmapper.DebugKnobs{DisablePCPFunc: off("pcp"), DisablePMPFunc: off("natpmp"), DisableUPnPFunc: off("upnp")}
	bus := eventbus.New()
	defer bus.Close()
	monitor, err := netmon.New(bus, func(string, ...any) {})
	if err != nil {
		return err
	}
	defer monitor.Close()
	c := portmapper.NewClient(portmapper.Config{EventBus: bus, NetMon: monitor, DebugKnobs: &knobs, Logf: func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, format+"\n", args...)
	}})
	c.SetLocalPort(41641)
	result, err := c.Probe(ctx)
	if err != nil || result != want {
		return fmt.Errorf("probe: %+v, want %+v, %w", result, want, err)
	}
	for {
		external, ok := c.GetCachedMappingOrStartCreatingOne()
		if ok {
			fmt.Println("external", external.Addr())
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond): // the library has no event for it but its bus
		}
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	return c.Close() // unmaps
}
