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

	ethnat "github.com/ethereum/go-ethereum/p2p/nat"
	"github.com/huin/goupnp/dcps/internetgateway1"
	"github.com/huin/goupnp/dcps/internetgateway2"
	gonatpmp "github.com/jackpal/go-nat-pmp"
	p2pnat "github.com/libp2p/go-libp2p/p2p/net/nat"
	gonat "github.com/libp2p/go-nat"
	stnat "github.com/syncthing/syncthing/lib/nat"
	stupnp "github.com/syncthing/syncthing/lib/upnp"
	tmupnp "github.com/tendermint/tendermint/p2p/upnp"

	"portcullis/internal/lab"
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
	// It takes the protocol that it hears first, mostly NAT-PMP.
	"go-ethereum p2p/nat":          {natpmp + " " + upnp, 1, ethereum(ethnat.Any)},
	"go-ethereum p2p/nat, UPnP":    {upnp, 1, ethereum(ethnat.UPnP)},
	"go-ethereum p2p/nat, NAT-PMP": {natpmp, 1, ethereum(func() ethnat.Interface { return ethnat.PMP(lab.GatewayLAN.AsSlice()) })},
	"tendermint p2p/upnp":          {upnp, 1, tendermint},
	"go-libp2p NATPortMap":         {upnp, 1, natPortMap},
}

// TestLibraries: each maps, and takes it back although the daemon was restarted in
// between: many libraries find the gateway once, and keep its URL for good.
func TestLibraries(t *testing.T) {
	for name, library := range libraries {
		t.Run(name, func(t *testing.T) {
			r := start(t, name)
			c := r.library(name)
			// Some map and unmap before they come to what stays.
			r.eventually(30*time.Second, "it is done", func() bool { return strings.Contains(c.out.String(), "waiting\n") })
			list := r.maps(library.maps, time.Second, strings.Fields(library.via)...)
			c.learns(lab.GatewayWAN)
			r.restart()
			for _, m := range list {
				r.arrives(m, false)
			}
			c.finish()
			r.gone(list[0])
		})
	}
}

// TestLibp2pKeepsPort: go-libp2p asks for 60 s every 20 s, at the URL that it found
// when it began. What it asks after a restart must be granted as before.
func TestLibp2pKeepsPort(t *testing.T) {
	const name = "go-libp2p NATPortMap"
	r := start(t, name)
	c := r.library(name)
	before := r.maps(1, 30*time.Second, upnp)[0]
	c.says("external")
	r.restart()
	least := before.ExpiresIn
	r.eventually(45*time.Second, "it renews", func() bool {
		list := r.list()
		if len(list) != 1 {
			return false
		}
		left := list[0].ExpiresIn
		least = min(least, left)
		return left > least
	})
	if after := r.list()[0]; after.ID != before.ID || after.ExternalPort != before.ExternalPort {
		t.Errorf("was %+v, is %+v", before, after)
	}
	r.arrives(before, false)
	matrix.saw(name, "renews after a restart")
	c.finish()
	r.gone(before)
}

// library is one of the clients above in a process of its own.
func (r *rig) library(name string) *child {
	r.t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "CLIENT="+name, "ADDRESS="+r.host.Addr.String())
	return r.spawn(cmd)
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
			// What is left of it, which a slow gateway may take a moment to answer.
			if left := m.PortMappingLifetimeInSeconds; m.InternalPort != 6700 || m.MappedExternalPort != 6701 || left < 3590 || left > 3600 {
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

// ethereum maps as geth does for its listener: Map asks at once, again after ten
// minutes, and deletes when its channel is closed.
func ethereum(how func() ethnat.Interface) func(ctx context.Context, address string, wait func()) error {
	return func(_ context.Context, _ string, wait func()) error {
		found := how()
		ip, err := found.ExternalIP()
		if err != nil {
			return err
		}
		fmt.Println("external", ip)
		if port, err := found.AddMapping("tcp", 30303, 30303, "ethereum p2p", ethnat.DefaultMapTimeout); err != nil || port != 30303 {
			return fmt.Errorf("mapped %d, %w", port, err)
		}
		wait()
		return found.DeleteMapping("tcp", 30303, 30303)
	}
}

// tendermint reads the service of version 1 out of one description and asks for an
// endless lease.
func tendermint(_ context.Context, _ string, wait func()) error {
	found, err := tmupnp.Discover()
	if err != nil {
		return err
	}
	ip, err := found.GetExternalAddress()
	if err != nil {
		return err
	}
	fmt.Println("external", ip)
	if port, err := found.AddPortMapping("tcp", 26656, 26656, "tendermint", 0); err != nil || port != 26656 {
		return fmt.Errorf("mapped %d, %w", port, err)
	}
	wait()
	return found.DeletePortMapping("tcp", 26656, 26656)
}

// natPortMap is what a libp2p host does with the option of that name.
func natPortMap(ctx context.Context, _ string, wait func()) error {
	found, err := p2pnat.DiscoverNAT(ctx)
	if err != nil {
		return err
	}
	if err := found.AddMapping(ctx, "tcp", 4001); err != nil {
		return err
	}
	external, ok := found.GetMapping("tcp", 4001)
	if !ok {
		return p2pnat.ErrNoMapping
	}
	fmt.Println("external", external.Addr().Unmap())
	wait()
	return found.Close() // unmaps
}
