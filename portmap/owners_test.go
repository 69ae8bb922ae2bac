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
		if all := slices.Collect(r.Snapshot().Owners()); len(all) != 5 {
			t.Errorf("owners %v", all)
		}
		at := slices.Collect(r.Snapshot().OwnersAt("lan", hostA.Addr))
		if len(at) != 2 || at[0] != hostA.Owner() || at[1] != heir.Owner() {
			t.Errorf("at %s %v", hostA.Addr, at)
		}
		if none := slices.Collect(r.Snapshot().OwnersAt("guest", hostB.Addr)); len(none) != 0 {
			t.Errorf("on another interface %v", none)
		}
	})
}
