package clients

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/huin/goupnp/dcps/internetgateway1"
	"github.com/huin/goupnp/dcps/internetgateway2"
	gonat "github.com/libp2p/go-nat"
	stnat "github.com/syncthing/syncthing/lib/nat"
	stupnp "github.com/syncthing/syncthing/lib/upnp"
	"tailscale.com/net/netmon"
	"tailscale.com/net/portmapper"
	"tailscale.com/util/eventbus"
)

// libraries are the Go clients: each maps, waits for input to end, and unmaps.
// They run in a process of their own, because they open sockets on goroutines of
// their own, which must be in the host's namespace.
var libraries = map[string]func(ctx context.Context, address string, wait func()) error{
	"goupnp internetgateway1":  goupnp1,
	"goupnp internetgateway2":  goupnp2,
	"libp2p go-nat":            libp2p,
	"syncthing lib/upnp":       syncthing,
	"tailscale net/portmapper": tailscale,
}

func TestLibraries(t *testing.T) {
	for name := range libraries {
		t.Run(name, func(t *testing.T) {
			r := start(t, name)
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), "CLIENT="+name, "ADDRESS="+r.host.Addr.String())
			c := r.spawn(cmd)
			m := r.maps(1, 30*time.Second)[0]
			r.arrives(m, false)
			c.finish()
			r.gone(m)
		})
	}
}

// runLibrary is the client's process.
func runLibrary(name string) int {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	wait := func() { _, _ = io.Copy(io.Discard, os.Stdin) }
	if err := libraries[name](ctx, os.Getenv("ADDRESS"), wait); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// wanConnection is what the generated clients of both versions have.
type wanConnection interface {
	AddPortMappingCtx(ctx context.Context, remoteHost string, externalPort uint16, protocol string, internalPort uint16,
		internalClient string, enabled bool, description string, lease uint32) error
	DeletePortMappingCtx(ctx context.Context, remoteHost string, externalPort uint16, protocol string) error
	GetExternalIPAddressCtx(ctx context.Context) (string, error)
	GetSpecificPortMappingEntryCtx(ctx context.Context, remoteHost string, externalPort uint16, protocol string) (
		internalPort uint16, internalClient string, enabled bool, description string, lease uint32, err error)
}

func goupnp1(ctx context.Context, address string, wait func()) error {
	found, _, err := internetgateway1.NewWANIPConnection1ClientsCtx(ctx)
	if err != nil {
		return err
	}
	if len(found) != 1 {
		return fmt.Errorf("found %d gateways", len(found))
	}
	ppp, _, err := internetgateway1.NewWANPPPConnection1ClientsCtx(ctx)
	if err != nil || len(ppp) != 1 {
		return fmt.Errorf("WANPPPConnection:1: %d, %w", len(ppp), err)
	}
	common, _, err := internetgateway1.NewWANCommonInterfaceConfig1ClientsCtx(ctx)
	if err != nil || len(common) != 1 {
		return fmt.Errorf("WANCommonInterfaceConfig:1: %d, %w", len(common), err)
	}
	if _, _, _, link, err := common[0].GetCommonLinkPropertiesCtx(ctx); err != nil || link != "Up" {
		return fmt.Errorf("link %q, %w", link, err)
	}
	return throughGoupnp(ctx, found[0], address, wait)
}

func goupnp2(ctx context.Context, address string, wait func()) error {
	found, _, err := internetgateway2.NewWANIPConnection2ClientsCtx(ctx)
	if err != nil {
		return err
	}
	if len(found) != 1 {
		return fmt.Errorf("found %d gateways", len(found))
	}
	port, err := found[0].AddAnyPortMappingCtx(ctx, "", 6500, "TCP", 6501, address, true, "any", 600)
	if err != nil {
		return err
	}
	list, err := found[0].GetListOfPortMappingsCtx(ctx, 1, 65535, "TCP", false, 0)
	if err != nil || list == "" {
		return fmt.Errorf("list %q, %w", list, err)
	}
	if err := found[0].DeletePortMappingRangeCtx(ctx, port, port, "TCP", false); err != nil {
		return err
	}
	return throughGoupnp(ctx, found[0], address, wait)
}

func throughGoupnp(ctx context.Context, c wanConnection, address string, wait func()) error {
	if ip, err := c.GetExternalIPAddressCtx(ctx); err != nil || ip != "203.0.113.5" {
		return fmt.Errorf("external address %q, %w", ip, err)
	}
	const text = `a<b>&"'c`
	if err := c.AddPortMappingCtx(ctx, "", 6500, "UDP", 6501, address, true, text, 600); err != nil {
		return err
	}
	port, client, enabled, description, lease, err := c.GetSpecificPortMappingEntryCtx(ctx, "", 6500, "UDP")
	if err != nil || port != 6501 || client != address || !enabled || description != text || lease < 590 || lease > 600 {
		return fmt.Errorf("entry %d %s %v %q %d, %w", port, client, enabled, description, lease, err)
	}
	wait()
	return c.DeletePortMappingCtx(ctx, "", 6500, "UDP")
}

func libp2p(ctx context.Context, _ string, wait func()) error {
	found, err := gonat.DiscoverGateway(ctx)
	if err != nil {
		return err
	}
	if ip, err := found.GetExternalAddress(); err != nil || !ip.Equal(net.IPv4(203, 0, 113, 5)) {
		return fmt.Errorf("external address %v, %w", ip, err)
	}
	if _, err := found.AddPortMapping(ctx, "udp", 6600, "go-nat", 10*time.Minute); err != nil {
		return err
	}
	wait()
	return found.DeletePortMapping(ctx, "udp", 6600)
}

func syncthing(ctx context.Context, _ string, wait func()) error {
	devices := stupnp.Discover(ctx, 0, 3*time.Second)
	for _, d := range devices {
		if !d.SupportsIPVersion(stnat.IPv4Only) {
			continue
		}
		port, err := d.AddPortMapping(ctx, stnat.TCP, 22000, 35670, "syncthing", 10*time.Minute)
		if err != nil {
			return err
		}
		wait()
		remover, ok := d.(interface {
			DeletePortMapping(ctx context.Context, protocol stnat.Protocol, externalPort int) error
		})
		if !ok {
			return errors.New("the library cannot unmap")
		}
		return remover.DeletePortMapping(ctx, stnat.TCP, port)
	}
	return errors.New("found " + strconv.Itoa(len(devices)) + " devices, none for IPv4")
}

func tailscale(ctx context.Context, _ string, wait func()) error {
	bus := eventbus.New()
	defer bus.Close()
	monitor, err := netmon.New(bus, func(string, ...any) {})
	if err != nil {
		return err
	}
	defer monitor.Close()
	c := portmapper.NewClient(portmapper.Config{EventBus: bus, NetMon: monitor, Logf: func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, format+"\n", args...)
	}})
	c.SetLocalPort(41641)
	result, err := c.Probe(ctx)
	if err != nil || !result.UPnP {
		return fmt.Errorf("probe: %+v, %w", result, err)
	}
	for {
		if external, ok := c.GetCachedMappingOrStartCreatingOne(); ok {
			fmt.Println("mapped", external)
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond): // the library has no event for it but its bus
		}
	}
	wait()
	return c.Close() // unmaps
}
