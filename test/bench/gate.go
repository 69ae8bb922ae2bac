package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/google/nftables"
	conntrack "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"portcullis/internal/control"
	"portcullis/internal/lab"
	"portcullis/internal/netns"
	"portcullis/policy"
	"portcullis/portmap"
)

// The names of what is measured.
const (
	oursName      = "portcullis"
	incumbentName = "miniupnpd"
	besideName    = "portcullis beside" // ours once more, in turns with the incumbent
	engineName    = "engine"            // our engine, policy and firewall backend, without HTTP
	kernelName    = "kernel"            // the floor under all: bare transactions
)

// clients is how many LAN hosts ask at once at most. The first of them owns all
// mappings that stay.
const clients = 8

// gate is a network with a gateway that is measured.
type gate struct {
	*lab.Network
	name    string
	pid     int // of the daemon
	control string
	hosts   []*netns.Thread
	soap    []*soapClient   // of each host, to be used on its thread
	natpmp  []*natpmpClient // the same
	wan     []*netns.Thread // on the Internet: one
	ports   []uint16        // what is mapped, in this order
	held    int             // how many of them are
	filled  time.Duration   // that it took
	kernel  func() (int, error)
	listed  func(context.Context) (int, error) // nil: there is no list but UPnP's
	stop    func() error
	log     func() string // nil: it keeps none for us
	daemon  *lab.Daemon   // nil: the incumbent

	// anyRenews means that AddAnyPortMapping without an external port yields what
	// was given before, instead of one more mapping.
	anyRenews bool
}

// networkOf builds one network: a gateway with its own firewall, LAN hosts,
// the Internet.
func networkOf() (*lab.Network, error) {
	names := make([]string, clients)
	for i := range names {
		names[i] = hostName(i)
	}
	n, err := lab.New(names...)
	if err != nil {
		return nil, err
	}
	if err := n.HostFirewall(); err != nil {
		n.Close()
		return nil, err
	}
	for _, h := range n.Hosts() {
		// Below the ports that are mapped, so that those can be listened on.
		if err := h.SetSysctl("ipv4/ip_local_port_range", fmt.Sprintf("1024 %d", firstPort-1)); err != nil {
			n.Close()
			return nil, err
		}
	}
	return n, nil
}

func hostName(i int) string { return "host" + strconv.Itoa(i+1) }

// limits lifts what would end a benchmark. All else is as an owner has it.
const limits = `[limits]
mappings_per_client = 65535
mappings = 65535
grants_per_second = 0
requests_per_second = 0
`

// startOurs starts our daemon on a network of its own.
func startOurs(ctx context.Context, exe string) (*gate, error) { return startWith(ctx, exe, limits) }

// startWith does so with settings beside those of the lab.
func startWith(ctx context.Context, exe, settings string) (*gate, error) {
	return startConfigured(ctx, exe, lab.Settings+settings)
}

// startConfigured does so with a whole configuration.
func startConfigured(ctx context.Context, exe, config string) (*gate, error) {
	n, err := networkOf()
	if err != nil {
		return nil, err
	}
	d, err := n.StartDaemonWith(ctx, exe, config)
	if err != nil {
		n.Close()
		return nil, err
	}
	g := &gate{Network: n, name: oursName, pid: d.Pid(), stop: d.Stop, log: d.Log, daemon: d, anyRenews: true}
	g.kernel = func() (int, error) {
		return g.elements("portcullis", "mapped")
	}
	owner := control.NewClient(d.Socket)
	g.listed = func(ctx context.Context) (int, error) {
		list, err := owner.Mappings(ctx)
		return len(list), err
	}
	return g, g.ready(ctx)
}

// ready finds the gateway as a control point does, and puts the clients on
// their hosts. On an error everything is closed.
func (g *gate) ready(ctx context.Context) error {
	err := g.enter(ctx)
	if err != nil {
		err = errors.Join(fmt.Errorf("%s: %w", g.name, err), g.close())
	}
	return err
}

func (g *gate) enter(ctx context.Context) error {
	cp := lab.NewControlPoint(g.Host(hostName(0)))
	find, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := cp.Find(find, lab.IGD2, service); err != nil {
		return err
	}
	g.control, g.ports = cp.Control, ports()
	for i := range clients {
		h := g.Host(hostName(i))
		t, err := h.Thread()
		if err != nil {
			return err
		}
		g.hosts = append(g.hosts, t)
		c, err := newSOAPClient(h.Addr, g.control)
		if err != nil {
			return err
		}
		g.soap = append(g.soap, c)
		err = <-t.Go(func() error {
			c, err := newNATPMPClient()
			if err == nil {
				g.natpmp = append(g.natpmp, c)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	t, err := g.Internet.Thread()
	if err != nil {
		return err
	}
	g.wan = append(g.wan, t)
	return nil
}

// close ends the daemon and the network.
func (g *gate) close() error {
	for _, t := range append(g.hosts, g.wan...) {
		t.Close()
	}
	err := g.stop()
	for _, c := range g.natpmp {
		err = errors.Join(err, c.close())
	}
	g.Close()
	return err
}

// elements counts the elements of a set of the gateway's kernel.
func (g *gate) elements(table, set string) (int, error) {
	conn, err := nftables.New(nftables.WithNetNSFd(int(g.Gateway.Namespace())))
	if err != nil {
		return 0, err
	}
	t := &nftables.Table{Family: nftables.TableFamilyINet, Name: table}
	s, err := conn.GetSetByName(t, set)
	if err != nil {
		return 0, fmt.Errorf("set %s: %w", set, err)
	}
	elements, err := conn.GetSetElements(s)
	return len(elements), err
}

// forget empties the gateway's list of flows, which the measured connections
// have filled.
func (g *gate) forget() error {
	h, err := conntrack.NewHandleAt(g.Gateway.Namespace(), unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer h.Close()
	return h.ConntrackTableFlush(conntrack.ConntrackTable)
}

// cpu returns the processor time so far of all processes of the daemon that are there.
func (g *gate) cpu() (time.Duration, error) {
	var total time.Duration
	for _, pid := range family(g.pid) {
		var t unix.Timespec
		err := unix.ClockGettime(processClock(pid), &t)
		if pid != g.pid && errors.Is(err, unix.EINVAL) {
			continue // it has just ended
		}
		if err != nil {
			return 0, fmt.Errorf("processor time of %d: %w", pid, err)
		}
		total += time.Duration(t.Nano())
	}
	return total, nil
}

// processClock is clock_getcpuclockid(3): the clock of a process's processor time, which
// counts nanoseconds where /proc/PID/stat counts hundredths of a second.
func processClock(pid int) int32 { return ^int32(pid)<<3 | 2 }

// statFields returns what /proc says of a process after its name: its state, its
// parent, its group, its session, and so on.
func statFields(pid string) ([]string, error) {
	raw, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return nil, err
	}
	// The name of the program, in brackets, may hold anything.
	text := string(raw)
	fields := strings.Fields(text[strings.LastIndex(text, ")")+1:])
	if len(fields) < 13 {
		return nil, errors.New("/proc/PID/stat is too short")
	}
	return fields, nil
}

// firstPort is where the mapped ports begin: as low as leaves room for all.
const firstPort = 45_000

// ports returns the ports that are mapped, in order, each to the same port of its
// host: those from firstPort up that need nobody's leave.
func ports() []uint16 {
	var all []uint16
	for p := firstPort; p < 1<<16; p++ {
		if tier, _ := policy.TierOf(policy.Internal, portmap.TCP, uint16(p)); tier == policy.Ordinary {
			all = append(all, uint16(p))
		}
	}
	return all
}

// passes reports whether a packet passes through the mapping of a port.
func (g *gate) passes(ctx context.Context, port uint16) error {
	to := netip.AddrPortFrom(lab.GatewayWAN, port)
	ok, _, err := lab.Probe(ctx, "TCP", g.Internet, to, g.Host(hostName(0)), port, 3*time.Second)
	if err == nil && !ok {
		err = errors.New("nothing arrived")
	}
	if err != nil {
		return fmt.Errorf("%s: port %d: %w", g.name, port, err)
	}
	return nil
}
