package clients

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/huin/goupnp/dcps/internetgateway1"
	"github.com/huin/goupnp/dcps/internetgateway2"
	gonatpmp "github.com/jackpal/go-nat-pmp"
	gonat "github.com/libp2p/go-nat"
	stnat "github.com/syncthing/syncthing/lib/nat"
	stupnp "github.com/syncthing/syncthing/lib/upnp"

	"portcullis/lab"
)

// libraries are the Go clients: each maps, waits for input to end, and unmaps.
// They run in a process of their own, because they open sockets on goroutines of
// their own, which must be in the host's namespace.
var libraries = map[string]struct {
	via  string
	maps int
	run  func(ctx context.Context, address string, wait func()) error
}{
	"goupnp internetgateway1": {upnp, 1, goupnp1},
	"goupnp internetgateway2": {upnp, 1, goupnp2},
	// It knows NAT-PMP too, but takes the gateway that it finds last, and UPnP
	// takes seconds.
	"libp2p go-nat":      {upnp, 1, libp2p},
	"syncthing lib/upnp": {upnp, 1, syncthing},
	"jackpal/go-nat-pmp": {natpmp, 2, jackpal},
	// It prefers NAT-PMP where it hears all three.
}

func TestLibraries(t *testing.T) {
	for name, library := range libraries {
		t.Run(name, func(t *testing.T) {
			r := start(t, name)
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), "CLIENT="+name, "ADDRESS="+r.host.Addr.String())
			c := r.spawn(cmd)
			// Some map and unmap before they come to what stays.
			r.eventually(30*time.Second, "it is done", func() bool { return strings.Contains(c.out.String(), "waiting\n") })
			list := r.maps(library.maps, time.Second, library.via)
			c.learns(lab.GatewayWAN)
			for _, m := range list {
				r.arrives(m, false)
			}
			c.finish()
			r.gone(list[0])
		})
	}
}

// runLibrary is the client's process.
func runLibrary(name string) int {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	wait := func() {
		fmt.Println("waiting")
		_, _ = io.Copy(io.Discard, os.Stdin)
	}
	run := pinholeClients[name]
	if run == nil {
		run = libraries[name].run
	}
	if err := run(ctx, os.Getenv("ADDRESS"), wait); err != nil {
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
	ip, err := c.GetExternalIPAddressCtx(ctx)
	if err != nil {
		return err
	}
	fmt.Println("external", ip)
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
	ip, err := found.GetExternalAddress()
	if err != nil {
		return err
	}
	fmt.Println("external", ip)
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
		ip, err := d.GetExternalIPv4Address(ctx)
		if err != nil {
			return err
		}
		fmt.Println("external", ip)
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

// jackpal learns the address, maps for TCP and UDP, renews, and deletes each: the
// library wants replies of exactly 12 and 16 octets.
func jackpal(_ context.Context, _ string, wait func()) error {
	c := gonatpmp.NewClientWithTimeout(lab.GatewayLAN.AsSlice(), 10*time.Second)
	got, err := c.GetExternalAddress()
	if err != nil {
		return err
	}
	fmt.Println("external", netip.AddrFrom4(got.ExternalIPAddress))
	for range 2 {
		for _, protocol := range []string{"udp", "tcp"} {
			m, err := c.AddPortMapping(protocol, 6700, 6701, 3600)
			if err != nil {
				return err
			}
			if m.InternalPort != 6700 || m.MappedExternalPort != 6701 || m.PortMappingLifetimeInSeconds != 3600 {
				return fmt.Errorf("mapped %+v", m)
			}
		}
	}
	wait()
	for _, protocol := range []string{"udp", "tcp"} {
		m, err := c.AddPortMapping(protocol, 6700, 0, 0)
		if err != nil {
			return err
		}
		if m.MappedExternalPort != 0 || m.PortMappingLifetimeInSeconds != 0 {
			return fmt.Errorf("unmapped %+v", m)
		}
	}
	return nil
}
