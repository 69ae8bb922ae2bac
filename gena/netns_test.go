package gena_test

import (
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"portcullis/gena"
)

// A netNS is a network namespace of the test's own.
type netNS struct{ netns.NsHandle }

// newNetNS makes a namespace; it lives until the test ends.
func newNetNS(t *testing.T) netNS {
	t.Helper()
	ns := netNS{netns.None()}
	onOwnThread(func() {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("new namespace: %v", err)
			return
		}
		var err error
		if ns.NsHandle, err = netns.Get(); err != nil {
			t.Errorf("namespace: %v", err)
		}
	})
	if !ns.IsOpen() {
		t.FailNow()
	}
	// Without a loopback, package net believes for the rest of the process that
	// there is no IPv6.
	ns.do(t, func() { configure(t, "lo") })
	t.Cleanup(func() { ns.Close() })
	return ns
}

// do runs f in the namespace.
func (ns netNS) do(t *testing.T, f func()) {
	t.Helper()
	onOwnThread(func() {
		if err := netns.Set(ns.NsHandle); err != nil {
			t.Errorf("enter namespace: %v", err)
			return
		}
		f()
	})
}

// onOwnThread runs f on a thread that dies with it, so that what f does to its
// thread touches nobody else.
func onOwnThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked
		f()
	}()
	<-done
}

// connect puts a cable between a gate's interface and a host's.
func connect(t *testing.T, gate netNS, ifname string, host netNS) {
	t.Helper()
	gate.do(t, func() {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = ifname
		check(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(host.NsHandle)}))
		configure(t, ifname, "192.0.2.1/24", "fe80::1/64")
	})
	host.do(t, func() { configure(t, "eth0", "192.0.2.10/24", "fe80::10/64") })
}

func configure(t *testing.T, ifname string, addrs ...string) {
	t.Helper()
	link, err := netlink.LinkByName(ifname)
	if check(t, err); err != nil {
		return
	}
	check(t, netlink.LinkSetUp(link))
	for _, a := range addrs {
		addr, err := netlink.ParseAddr(a)
		check(t, err)
		addr.Flags = unix.IFA_F_NODAD // usable at once
		check(t, netlink.AddrAdd(link, addr))
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// TestDialLeavesByTheInterface: two LANs have a host of the same address, and
// the routing table knows one of them. The connection goes to the subscriber's.
func TestDialLeavesByTheInterface(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root")
		}
		t.Skip("needs root for network namespaces")
	}
	gate, first, second := newNetNS(t), newNetNS(t), newNetNS(t)
	connect(t, gate, "lan0", first)
	connect(t, gate, "lan1", second)
	for _, tc := range []struct {
		name, iface, local, host string
		home                     netNS
	}{
		{"routed LAN", "lan0", "192.0.2.1", "192.0.2.10", first},
		{"the other LAN", "lan1", "192.0.2.1", "192.0.2.10", second},
		{"link-local", "lan0", "fe80::1", "fe80::10", first},
		{"link-local on the other LAN", "lan1", "fe80::1", "fe80::10", second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			local, host := netip.MustParseAddr(tc.local), netip.MustParseAddr(tc.host)
			sub := gena.Subscriber{Addr: host, Local: local, Interface: tc.iface}
			var l net.Listener
			tc.home.do(t, func() {
				var err error
				if l, err = net.Listen("tcp", netip.AddrPortFrom(unspecified(host), 49200).String()); err != nil {
					t.Error(err)
				}
			})
			if l == nil {
				return
			}
			defer l.Close()
			from := make(chan netip.Addr, 1)
			go func() {
				defer close(from)
				if conn, err := l.Accept(); err == nil {
					from <- netip.MustParseAddrPort(conn.RemoteAddr().String()).Addr().WithZone("")
					conn.Close()
				}
			}()
			gate.do(t, func() {
				to := netip.AddrPortFrom(host, 49200)
				if host.Is6() {
					to = netip.AddrPortFrom(host.WithZone(tc.iface), 49200)
				}
				conn, err := gena.DialBound(t.Context(), sub, to)
				if err != nil {
					t.Error(err)
					l.Close()
					return
				}
				conn.Close()
			})
			select {
			case got := <-from:
				if got != local {
					t.Errorf("came from %v, want %v", got, local)
				}
			case <-time.After(patience):
				t.Error("nobody came")
			}
		})
	}
}

func unspecified(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}
