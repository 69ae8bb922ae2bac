package portmap_test

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/portmap"
)

// byHand is the owner's wish for a port of a host.
func byHand(host netip.Addr, port uint16) portmap.Request {
	return portmap.Request{
		Client: portmap.Owner(host), Transport: portmap.TCP, Exact: true, ExternalPort: port,
		Internal: netip.AddrPortFrom(host, 443), Description: "by hand",
	}
}

// TestByOwner: what the owner opens for a host by hand is not the host's. It does not end by
// itself, is in nobody's quota, and nobody but he can change or end it.
func TestByOwner(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, portmap.EngineConfig{LeaseMax: time.Hour})
		m := r.mustMap(t, byHand(hostA.Addr, 8443))
		if m.Left(time.Now()) != -1 || m.Client.Via != portmap.ViaOwner || m.Client.ID() == hostA.ID() {
			t.Errorf("mapped %+v", m)
		}
		if n := r.Snapshot().Of(hostA.ID()).Len(); n != 0 {
			t.Errorf("the host has %d mappings", n)
		}

		// The host itself, and one whose interface an owned front leaves out.
		nowhere := hostA
		nowhere.Interface, nowhere.MAC = "", portmap.MAC{}
		for _, c := range []portmap.Client{hostA, hostB, nowhere, by(hostA, portmap.ViaPCP)} {
			same := ask(c, portmap.TCP, 8443)
			same.Internal = netip.AddrPortFrom(c.Addr, 443)
			r.refuses(t, same, portmap.PortTaken)
			for _, s := range []portmap.Selector{
				{Client: c, Transport: portmap.TCP, FirstPort: 8443, LastPort: 8443},
				{Client: c, Transport: portmap.TCP, FirstPort: 8443, LastPort: 8443, ExactRemotes: true},
				{Client: c, ID: m.ID},
				{Client: c, Transport: portmap.TCP, Internal: 443},
				{Client: c},
			} {
				if gone, err := r.Unmap(t.Context(), s); len(gone) > 0 || err == nil {
					t.Errorf("%+v ended %v", s, gone)
				}
			}
		}
		// Whatever becomes of the device: its presence is not the owner's.
		if err := r.RevokeAll(t.Context(), hostA.ID(), portmap.Revoked); err != nil {
			t.Error(err)
		}
		for at := range r.Snapshot().ClientsAt(hostA.Interface, hostA.Addr) {
			t.Errorf("%+v is looked after", at)
		}
		time.Sleep(1000 * time.Hour)
		r.kernelHas(t, "tcp 8443 -> 192.168.1.10:443")

		again := byHand(hostA.Addr, 8443)
		again.Lifetime = 2 * time.Hour // longer than a client's may be
		if again := r.mustMap(t, again); again.ID != m.ID || again.Left(time.Now()) != 2*time.Hour {
			t.Errorf("renewed as %+v", again)
		}
		r.refuses(t, byHand(hostB.Addr, 8443), portmap.PortTaken)
		r.mustMap(t, byHand(hostB.Addr, 8444))
		time.Sleep(3 * time.Hour)
		r.kernelHas(t, "tcp 8444 -> 192.168.1.20:443")
		gone, err := r.Unmap(t.Context(), portmap.Selector{Client: portmap.Client{Via: portmap.ViaOwner}, Anybody: true, Transport: portmap.TCP, FirstPort: 8444, LastPort: 8444})
		if err != nil || len(gone) != 1 {
			t.Errorf("the owner ends %v: %v", gone, err)
		}
		r.kernelHas(t)
	})
}

// TestByOwnerRestored: it goes on in the next run, without an end.
func TestByOwnerRestored(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s memory
		r := start(t, portmap.EngineConfig{Store: &s})
		year := byHand(hostA.Addr, 8444)
		year.Lifetime = 8760 * time.Hour
		for _, req := range []portmap.Request{byHand(hostA.Addr, 8443), year, ask(hostB, portmap.UDP, 6000)} {
			r.mustMap(t, req)
		}
		next, dropped := restored(t, &s, portmap.EngineConfig{})
		if dropped != nil {
			t.Errorf("dropped %q", dropped)
		}
		run(t, next.Engine)
		time.Sleep(1000 * time.Hour)
		next.kernelHas(t, "tcp 8443 -> 192.168.1.10:443", "tcp 8444 -> 192.168.1.10:443")
		next.refuses(t, ask(hostA, portmap.TCP, 8443), portmap.PortTaken)
	})
}
