package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/internal/slog"
	"portcullis/portmap"
)

// used is a machine of which the test says what ports are in use, and the mappings there.
type used struct {
	keeper *Keeper

	mu      sync.Mutex // guards what follows
	view    portmap.View
	table   *portmap.Table
	looks   int
	asked   int // what is mapped
	revoked []string
	log     bytes.Buffer
}

func (u *used) View() *portmap.View {
	u.mu.Lock()
	defer u.mu.Unlock()
	v := u.view
	return &v
}

func (u *used) Look(context.Context) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.looks++
}

func (u *used) snapshot() *portmap.Table {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.asked++
	return u.table
}

func (u *used) revoke(_ context.Context, m portmap.Mapping, reason portmap.Reason, why string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.revoked = append(u.revoked, fmt.Sprintf("%s %s %s: %s", m.Transport, m.Internal, reason, why))
	u.table = u.table.Commit(portmap.Change{Old: &m})
}

func (u *used) Write(b []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.log.Write(b)
}

// uses has other ports be in use, or nobody know.
func (u *used) uses(err error, ports ...portmap.PortsInUse) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.view.InUse, u.view.InUseErr = ports, err
}

func port(tr portmap.Transport, n uint16, by string) portmap.PortsInUse {
	return portmap.PortsInUse{Transport: tr, Ports: portmap.PortRange{First: n, Last: n}, By: by}
}

// want compares what was revoked since the last time, after another look.
func (u *used) want(t *testing.T, want ...string) {
	t.Helper()
	time.Sleep(portsEvery)
	synctest.Wait()
	u.mu.Lock()
	defer u.mu.Unlock()
	if got := strings.Join(u.revoked, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("revoked %q, want %q\n%s", u.revoked, want, &u.log)
	}
	u.revoked = nil
}

// keeping runs a Keeper over a TCP and a UDP mapping of port 8080 and a pinhole of it.
func keeping(t *testing.T) *used {
	t.Helper()
	u := &used{table: portmap.NewTable()}
	host, host6 := netip.MustParseAddrPort("192.168.1.10:8080"), netip.MustParseAddrPort("[2001:db8::10]:8080")
	for i, m := range []portmap.Mapping{
		{Transport: portmap.TCP, Internal: host, ExternalPort: host.Port()},
		{Transport: portmap.UDP, Internal: host, ExternalPort: host.Port()},
		{Transport: portmap.TCP, Internal: host6, ExternalPort: host6.Port(), Kind: portmap.Pinhole6, Number: 1},
	} {
		m.ID = uint64(i + 1)
		m.Client = portmap.Client{Addr: m.Internal.Addr(), Interface: "lan0"}
		u.table = u.table.Commit(portmap.Change{Event: portmap.Granted, New: &m})
	}
	u.keeper = NewKeeper(KeeperConfig{Log: slog.New(slog.NewTextHandler(u, nil)), Gateway: u, Snapshot: u.snapshot, Revoke: u.revoke})
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = u.keeper.Run(ctx) })
	t.Cleanup(func() {
		stop()
		running.Wait()
	})
	time.Sleep(portsEvery / 2) // the test's steps are between looks
	return u
}

const (
	ofTCP = "tcp 192.168.1.10:8080 port-in-use: a web server"
	ofUDP = "udp 192.168.1.10:8080 port-in-use: a resolver"
)

// TestPortTaken: B8. A TCP mapping ends at the first look that finds its port in use, a
// UDP one at the second in a row, because a resolver asks from random ports; a pinhole,
// which is no port of the gateway, never.
func TestPortTaken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		u := keeping(t)
		u.want(t)
		u.uses(nil, port(portmap.TCP, 8081, "another"), port(portmap.UDP, 8079, "another"))
		u.want(t)
		u.uses(nil, port(portmap.TCP, 8080, "a web server"), port(portmap.UDP, 8080, "a resolver"))
		u.want(t, ofTCP)
		u.want(t, ofUDP)
		u.want(t)
	})
}

// TestPortTakenForAMoment: a UDP port must be in use at two looks in a row.
func TestPortTakenForAMoment(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		u := keeping(t)
		for range 3 {
			u.uses(nil, port(portmap.UDP, 8080, "a resolver"))
			u.want(t)
			u.uses(nil)
			u.want(t)
		}
		u.uses(nil, port(portmap.UDP, 8080, "a resolver"))
		u.want(t)
		u.want(t, ofUDP)
	})
}

// TestPortUnknown: where nobody can tell what is in use, no mapping ends, the owner hears
// of it once for each time that it begins, and a doubt is still one afterwards.
func TestPortUnknown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		u := keeping(t)
		told := func(times int) {
			t.Helper()
			u.mu.Lock()
			defer u.mu.Unlock()
			if n := strings.Count(u.log.String(), "cannot check whether mapped ports are in use"); n != times {
				t.Errorf("told %d times, want %d\n%s", n, times, &u.log)
			}
		}
		u.uses(nil, port(portmap.UDP, 8080, "a resolver"))
		u.want(t)
		u.uses(errors.New("broken"), port(portmap.TCP, 8080, "a web server"), port(portmap.UDP, 8080, "a resolver"))
		u.want(t)
		u.want(t)
		told(1)
		u.uses(nil, port(portmap.UDP, 8080, "a resolver"))
		u.want(t, ofUDP)
		u.uses(errors.New("broken again"))
		u.want(t)
		told(2)
	})
}

// TestNothingMapped: without a mapping nobody looks, for a look is a dump of the kernel's,
// nor wakes to find that out; from the first one on there are looks again.
func TestNothingMapped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		u := keeping(t)
		u.mu.Lock()
		mapped := u.table
		u.table = portmap.NewTable()
		u.mu.Unlock()
		u.want(t)
		asked := u.asked
		time.Sleep(time.Hour)
		if synctest.Wait(); u.looks != 0 || u.asked != asked {
			t.Errorf("looked %d times, and woke %d times in an hour", u.looks, u.asked-asked)
		}
		u.keeper.Mapped() // which is said a moment before
		synctest.Wait()
		u.mu.Lock()
		u.table = mapped
		u.mu.Unlock()
		u.uses(nil, port(portmap.TCP, 8080, "a web server"))
		u.want(t, ofTCP)
	})
}
