package portmap_test

import (
	"slices"
	"testing"
	"testing/synctest"

	"portcullis/portmap"
)

// TestOwners: who has mappings, and who has them at one address.
func TestOwners(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, portmap.EngineConfig{})
		heir := hostA
		heir.MAC = portmap.MAC{9}
		elsewhere := hostA
		elsewhere.Interface = "guest"
		for port, c := range map[uint16]portmap.Client{5000: hostA, 5001: hostA, 5002: heir, 5003: elsewhere, 5004: hostB} {
			r.mustMap(t, ask(c, portmap.UDP, port))
		}
		r.mustMap(t, open(sixA, 9000))
		if all := slices.Collect(r.Snapshot().Clients()); len(all) != 5 {
			t.Errorf("owners %v", all)
		}
		at := slices.Collect(r.Snapshot().ClientsAt("lan", hostA.Addr))
		if len(at) != 2 || at[0] != hostA.ID() || at[1] != heir.ID() {
			t.Errorf("at %s %v", hostA.Addr, at)
		}
		if none := slices.Collect(r.Snapshot().ClientsAt("guest", hostB.Addr)); len(none) != 0 {
			t.Errorf("on another interface %v", none)
		}
	})
}

// TestRevoke: C6 and C11. What the gate ends because another device has the
// address keeps its port for its owner for a moment; nobody else gets it, least of
// all the newcomer.
func TestRevoke(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, portmap.EngineConfig{})
		w := r.Watch(16)
		defer w.Close()
		m, pin := r.mustMap(t, ask(hostA, portmap.UDP, 5000)), r.mustMap(t, open(sixA, 9000))
		gone := r.mustMap(t, ask(hostA, portmap.UDP, 5001))
		for x, reason := range map[*portmap.Mapping]portmap.Reason{&m: portmap.IdentityChanged, &pin: portmap.IdentityChanged, &gone: portmap.Revoked} {
			if err := r.Revoke(t.Context(), *x, reason); err != nil {
				t.Fatal(err)
			}
			if err := r.Revoke(t.Context(), *x, reason); portmap.ReasonOf(err) != portmap.NoSuchMapping {
				t.Errorf("revoked twice: %v", err)
			}
		}
		r.kernelHas(t)
		heir := hostA
		heir.MAC = portmap.MAC{9}
		r.refuses(t, ask(heir, portmap.UDP, 5000), portmap.IdentityChanged)
		r.refuses(t, ask(hostB, portmap.UDP, 5000), portmap.PortReserved)
		r.mustMap(t, ask(heir, portmap.UDP, 5001)) // nobody waits for it
		if back := r.mustMap(t, ask(hostA, portmap.UDP, 5000)); back.ID == m.ID {
			t.Error("it was not gone")
		}
		if err := r.Revoke(t.Context(), m, portmap.Revoked); portmap.ReasonOf(err) != portmap.NoSuchMapping {
			t.Errorf("an earlier mapping of the same place: %v", err)
		}
		for n := range 6 {
			if ev := <-w.C; n >= 3 && ev.Type != portmap.RevokedEvent {
				t.Errorf("event %d: %+v", n, ev)
			}
		}
	})
}
