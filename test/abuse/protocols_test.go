package abuse

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// protocols are the ways to ask for UDP port p of a host, the same inside and
// outside; none accepts another.
var protocols = []struct {
	name      string
	ask       func(t *testing.T, r *rig, host string, p uint16) string // "" or what went wrong
	deleteAll func(t *testing.T, r *rig, host string)
	delete    func(t *testing.T, r *rig, host string, p uint16)
}{
	{
		"UPnP",
		func(t *testing.T, r *rig, host string, p uint16) string {
			if err := r.v2(t, host).Add(t.Context(), udp(p, p)); err != nil {
				return err.Error()
			}
			return ""
		},
		func(t *testing.T, r *rig, host string) {
			c := r.v2(t, host)
			for _, protocol := range []string{"UDP", "TCP"} {
				_, err := c.Call(t.Context(), "DeletePortMappingRange", "NewStartPort", "1", "NewEndPort", "65535",
					"NewProtocol", protocol, "NewManage", "1")
				if n := code(err); n != 0 && n != 730 {
					t.Errorf("UPnP deletes all: %v", err)
				}
			}
		},
		func(t *testing.T, r *rig, host string, p uint16) {
			if err := r.v1(t, host).Delete(t.Context(), p, "UDP"); err != nil {
				t.Error(err)
			}
		},
	},
	{
		"NAT-PMP",
		func(t *testing.T, r *rig, host string, p uint16) string {
			result, port := r.talker(t, host).mapping(t, 1, p, p, 3600)
			if result != 0 || port != p {
				return fmt.Sprintf("result %d, port %d", result, port)
			}
			return ""
		},
		func(t *testing.T, r *rig, host string) {
			for op := byte(1); op <= 2; op++ {
				if result, _ := r.talker(t, host).mapping(t, op, 0, 0, 0); result != 0 {
					t.Errorf("NAT-PMP deletes all: %d", result)
				}
			}
		},
		func(t *testing.T, r *rig, host string, p uint16) {
			if result, _ := r.talker(t, host).mapping(t, 1, p, 0, 0); result != 0 {
				t.Errorf("NAT-PMP deletes: %d", result)
			}
		},
	},
	{
		"PCP",
		func(t *testing.T, r *rig, host string, p uint16) string {
			m := r.talker(t, host).mapPCP(t, pcpMap{internal: p, suggested: p, options: preferFailure})
			if m.code != 0 || m.external.Port() != p {
				return fmt.Sprintf("%+v", m)
			}
			return ""
		},
		func(t *testing.T, r *rig, host string) {
			c := r.talker(t, host)
			for _, protocol := range []byte{0, 6, 17} {
				request := pcpMap{client: c.host.Addr, delete: true}.octets(t)
				request[36], request[40], request[41] = protocol, 0, 0
				if reply := c.ask(t, request); reply[3] != 0 {
					t.Errorf("PCP deletes all: % x", reply)
				}
			}
		},
		func(t *testing.T, r *rig, host string, p uint16) {
			if m := r.talker(t, host).mapPCP(t, pcpMap{internal: p, delete: true}); m.code != 0 {
				t.Errorf("PCP deletes: %+v", m)
			}
		},
	},
}

// TestHeldInAnotherProtocol: SOAP-44. A port that one host has in one protocol is a
// conflict for another host in every protocol.
func TestHeldInAnotherProtocol(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	b := r.talker(t, "b")
	b1, b2 := r.v1(t, "b"), r.v2(t, "b")
	for i, holder := range protocols {
		port := uint16(6000 + i)
		if wrong := holder.ask(t, r, "a", port); wrong != "" {
			t.Fatalf("%s: %s", holder.name, wrong)
		}
		t.Run(holder.name+"/exactly", func(t *testing.T) {
			r.refused(t, b1, udp(port, 9000), 718)
			before := r.World(t)
			if n := code(b2.Add(t.Context(), udp(port, 9000))); n != 718 && n != 729 {
				t.Errorf("UPnP, version 2: %d", n)
			}
			if m := b.mapPCP(t, pcpMap{internal: 9000, suggested: port, options: preferFailure}); m.code != 11 {
				t.Errorf("PCP: %+v", m)
			}
			r.Unchanged(t, before)
		})
		t.Run(holder.name+"/or another", func(t *testing.T) {
			result, pmp := b.mapping(t, 1, 9100+port, port, 3600)
			if result != 0 || pmp == port || !r.Passes(t, "UDP", pmp, r.Host("b"), 9100+port) {
				t.Errorf("NAT-PMP: result %d, port %d", result, pmp)
			}
			m := b.mapPCP(t, pcpMap{internal: 9200 + port, suggested: port})
			if p := m.external.Port(); m.code != 0 || p == port || !r.Passes(t, "UDP", p, r.Host("b"), 9200+port) {
				t.Errorf("PCP: %+v", m)
			}
			if p, err := b2.AddAny(t.Context(), udp(port, 9300+port)); err != nil || p == port {
				t.Errorf("UPnP: %d, %v", p, err)
			}
		})
		if !r.Passes(t, "UDP", port, r.Host("a"), port) {
			t.Errorf("%s: a's port no longer works", holder.name)
		}
	}
}

// TestOneMapping: the same wish in two protocols is one mapping and one element in the
// kernel. Each of them closes it, by its port and by its way to name all that it has
// opened, and then it is closed; who deletes everything in a protocol ends nothing that
// only another one opened.
func TestOneMapping(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	port := uint16(6000)
	for i, first := range protocols {
		for j, second := range protocols {
			t.Run(first.name+","+second.name, func(t *testing.T) {
				port++
				one := []string{fmt.Sprintf("udp %d -> 192.168.77.10:%d", port, port)}
				must := func(step string, want []string) {
					t.Helper()
					if got := r.ports(t); !slices.Equal(got, want) {
						t.Errorf("%s: mapped: %q, want %q", step, got, want)
					}
					if n := r.elements(t, "udp", port); n != len(want) {
						t.Errorf("%s: %d elements in the kernel", step, n)
					}
				}
				open := func() {
					t.Helper()
					for _, l := range []int{i, j, i} {
						if wrong := protocols[l].ask(t, r, "a", port); wrong != "" {
							t.Fatalf("%s: %s", protocols[l].name, wrong)
						}
						must(protocols[l].name, one)
					}
				}
				for _, closing := range []int{i, j} {
					open()
					before := r.World(t)
					protocols[closing].deleteAll(t, r, "b")
					r.Unchanged(t, before)
					protocols[closing].delete(t, r, "a", port)
					must("closed by "+protocols[closing].name, []string{})
					if !r.Blocked(t, "UDP", port, r.Host("a"), port) {
						t.Error("a packet came through what is closed")
					}
				}
				open()
				if second.name == "PCP" { // names all ports, and closes none (PCP-50)
					second.deleteAll(t, r, "a")
					must("PCP deletes all", one)
					second.delete(t, r, "a", port)
				} else {
					second.deleteAll(t, r, "a")
				}
				must("all closed by "+second.name, []string{})
				if i == j {
					return
				}
				if wrong := first.ask(t, r, "a", port); wrong != "" {
					t.Fatal(wrong)
				}
				second.deleteAll(t, r, "a")
				must(first.name+" alone has opened it", one)
				if !r.Passes(t, "UDP", port, r.Host("a"), port) {
					t.Error("it does not work any more")
				}
				first.delete(t, r, "a", port)
			})
		}
	}
}

// TestCloseOrSayOpen: NAT-PMP and PCP do not close what they did not open (abuse case
// C4) and say so; UPnP, which shows it to its client, does.
func TestCloseOrSayOpen(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	a := r.talker(t, "a")
	for i, first := range protocols {
		port := uint16(6000 + i)
		if wrong := first.ask(t, r, "a", port); wrong != "" {
			t.Fatalf("%s: %s", first.name, wrong)
		}
		before := r.World(t)
		if result, _ := a.mapping(t, 1, port, 0, 0); first.name != "NAT-PMP" && result != 2 {
			t.Errorf("%s, NAT-PMP deletes: result %d, want 2", first.name, result)
		}
		if first.name == "NAT-PMP" {
			continue // which has closed it
		}
		if m := a.mapPCP(t, pcpMap{internal: port, delete: true}); first.name != "PCP" && m.code != 2 {
			t.Errorf("%s, PCP deletes: %+v, want NOT_AUTHORIZED", first.name, m)
		}
		if first.name == "PCP" {
			continue
		}
		r.Unchanged(t, before, "C4")
	}
	if got, want := r.ports(t), []string{"udp 6000 -> 192.168.77.10:6000"}; !slices.Equal(got, want) {
		t.Errorf("open: %q, want %q", got, want)
	}
	protocols[2].ask(t, r, "a", 6010)
	protocols[0].delete(t, r, "a", 6010)
	protocols[0].delete(t, r, "a", 6000)
	if got := r.ports(t); len(got) != 0 {
		t.Errorf("UPnP has closed all, and %q is open", got)
	}
}

// TestLeaseOfEachProtocol: an hour in NAT-PMP or PCP is an hour, also when UPnP has
// asked for ever before or asks after it.
func TestLeaseOfEachProtocol(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	a := r.talker(t, "a")
	endless := udp(6000, 6000)
	endless.Lease = 0
	if err := r.v1(t, "a").Add(t.Context(), endless); err != nil {
		t.Fatal(err)
	}
	reply := a.ask(t, pmp(1, 6000, 6000, 3600))
	if !like(reply, "00810000 ........ 17701770 00000e10") {
		t.Errorf("NAT-PMP is answered % x", reply)
	}
	if m := a.mapPCP(t, pcpMap{suggested: 6000}); m.code != 0 || m.lifetime > 3600 {
		t.Errorf("PCP is answered %+v", m)
	}
	if list := r.List(t); len(list) != 1 || !list[0].Endless || list[0].ExpiresIn < 604_000 {
		t.Errorf("the owner sees %+v", list)
	}
}

// TestDescriptionsOwnNothing: C4. What a description says decides nothing.
func TestDescriptionsOwnNothing(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	a := r.v1(t, "a")
	for i, description := range []string{"NAT-PMP 6000 udp", "PCP MAP 000000000000000000000000", "PCP MAP " + nonceOne} {
		m := udp(6000+uint16(i), 6000+uint16(i))
		m.Description = description
		if err := a.Add(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	before := r.World(t)
	for _, l := range protocols[1:] {
		l.deleteAll(t, r, "a")
	}
	for port := uint16(6000); port < 6003; port++ {
		if result, _ := r.talker(t, "a").mapping(t, 1, port, 0, 0); result != 2 {
			t.Errorf("NAT-PMP deletes: result %d", result)
		}
		if m := r.talker(t, "a").mapPCP(t, pcpMap{internal: port, delete: true}); m.code != 2 {
			t.Errorf("PCP deletes: %+v", m)
		}
	}
	r.Unchanged(t, before, "C4")
}

// TestCompanion: C2, PMP-7, PMP-8. A number that a host has through NAT-PMP for one
// transport is kept for it for the other, in every protocol.
func TestCompanion(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	a, b := r.talker(t, "a"), r.talker(t, "b")
	for port := uint16(50001); port < 50005; port++ {
		grant(t, a, 2, port)
	}
	before := r.World(t)
	if n := code(r.v1(t, "b").Add(t.Context(), udp(50001, 9000))); n != 718 {
		t.Errorf("UPnP: %d", n)
	}
	if m := b.mapPCP(t, pcpMap{internal: 9000, suggested: 50001, options: preferFailure}); m.code != 11 {
		t.Errorf("PCP, this port or nothing: %+v", m)
	}
	r.Unchanged(t, before, "C2")
	if result, port := b.mapping(t, 1, 9001, 50001, 3600); result != 0 || port == 50001 { // PMP-7
		t.Errorf("NAT-PMP: result %d, port %d", result, port)
	}
	if m := b.mapPCP(t, pcpMap{internal: 9002, suggested: 50001}); m.code != 0 || m.external.Port() == 50001 {
		t.Errorf("PCP: %+v", m)
	}
	for i, l := range protocols { // PMP-8
		if wrong := l.ask(t, r, "a", 50001+uint16(i)); wrong != "" {
			t.Errorf("its own, %s: %s", l.name, wrong)
		}
	}
	if result, _ := a.mapping(t, 2, 50004, 0, 0); result != 0 {
		t.Fatalf("delete: %d", result)
	}
	if err := r.v1(t, "b").Add(t.Context(), udp(50004, 50004)); err != nil {
		t.Errorf("after the end of the other: %v", err)
	}
	// PCP and UPnP reserve nothing.
	if m := a.mapPCP(t, pcpMap{protocol: 6, internal: 50005, suggested: 50005}); m.code != 0 {
		t.Fatalf("PCP: %+v", m)
	}
	if err := r.v1(t, "b").Add(t.Context(), udp(50005, 50005)); err != nil {
		t.Errorf("beside a PCP mapping: %v", err)
	}
}

// TestNonceOwners: PCP-4, I9, CHOICE-20. Strict: only who knows the nonce renews or deletes; as we
// are by default, who has the same address and the same MAC does. Another
// machine never does.
func TestNonceOwners(t *testing.T) {
	t.Parallel()
	for mode, extra := range map[string]string{"default": "", "strict": "[pcp]\nnonce = \"strict\"\n"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			r := start(t, noRates+extra)
			a := r.talker(t, "a")
			ask := func(m pcpMap, code byte) mapped {
				t.Helper()
				got := a.mapPCP(t, m)
				if got.code != code {
					t.Errorf("answered %+v, want code %d", got, code)
				}
				return got
			}
			mine := pcpMap{suggested: 6000}
			ask(mine, 0)
			before := r.World(t)
			other, deletion := pcpMap{suggested: 6000, nonce: nonceTwo}, pcpMap{nonce: nonceTwo, delete: true}
			if mode == "strict" {
				for _, m := range []pcpMap{other, deletion, {nonce: strings.Repeat("\x00", 12)}} {
					if got := ask(m, 2); got.lifetime < 3590 || got.lifetime > 3600 {
						t.Errorf("the error lasts %d s, the mapping an hour", got.lifetime)
					}
					r.Unchanged(t, before, "I9")
				}
			} else {
				if got := ask(other, 0); got.external.Port() != 6000 {
					t.Errorf("a client that lost its nonce got %v", got.external)
				}
				for id, text := range before.Journal { // the new nonce is the mapping's from here on
					before.Journal[id] = strings.Replace(text, fmt.Sprintf("nonce=%x", nonceOne), fmt.Sprintf("nonce=%x", nonceTwo), 1)
				}
				r.Renewed(t, before)
				ask(deletion, 0)
			}
			ask(pcpMap{delete: true}, 0)
			if list := r.ports(t); len(list) != 0 {
				t.Errorf("left: %q", list)
			}

			ask(mine, 0)
			r.changeMAC(t, "a")
			ask(pcpMap{delete: true, nonce: nonceTwo}, 0) // the newcomer is heard of
			testrig.Eventually(t, soon, "C6: what the predecessor mapped is closed", func() bool { return r.List(t)[0].Suspended })
			before = r.World(t)
			for _, m := range []pcpMap{{delete: true}, deletion} {
				ask(m, 0) // there is nothing of its own
			}
			ask(pcpMap{suggested: 6000, options: preferFailure}, 11)
			r.Unchanged(t, before, "I9")
			if got := ask(mine, 0); got.external.Port() == 6000 {
				t.Errorf("another machine at the same address got %v", got.external)
			}
		})
	}
}

// TestNoncesStaySecret: C5. Who asks the owner, the log, the kernel or the
// gateway in another protocol does not learn a nonce.
func TestNoncesStaySecret(t *testing.T) {
	t.Parallel()
	r := start(t, noRates+"[log]\nlevel = \"debug\"\n[pcp]\nnonce = \"strict\"\n")
	const secret = "sEcReT-nOnCe"
	a := r.talker(t, "a")
	for _, m := range []pcpMap{
		{suggested: 6000}, {suggested: 6000}, {internal: 6001, suggested: 6001, delete: true}, // granted, renewed, nothing to delete
		{internal: 445, protocol: 6}, {internal: 6002, client: hostB}, {internal: 6003, options: "03000190"}, // refused
	} {
		m.nonce = secret
		a.mapPCP(t, m)
	}
	if m := a.mapPCP(t, pcpMap{nonce: nonceTwo}); m.code != 2 {
		t.Errorf("another nonce: %+v", m)
	}
	a.silent(t, append([]byte{2, 0x81}, pcpMap{nonce: secret}.octets(t)[2:]...))

	own, other := r.v2(t, "a"), r.v2(t, "b")
	seen := map[string]string{"ruleset": r.ruleset(t)}
	for name, c := range map[string]*lab.ControlPoint{"a": own, "b": other} {
		for action, args := range map[string][]string{
			"GetGenericPortMappingEntry":  {"NewPortMappingIndex", "0"},
			"GetSpecificPortMappingEntry": {"NewRemoteHost", "", "NewExternalPort", "6000", "NewProtocol", "UDP"},
			"GetListOfPortMappings": {"NewStartPort", "1", "NewEndPort", "65535", "NewProtocol", "UDP",
				"NewManage", "1", "NewNumberOfPorts", "0"},
		} {
			out, err := c.Call(t.Context(), action, args...)
			if (err == nil) != (name == "a") { // K7: only its own
				t.Errorf("%s by %s: %v", action, name, err)
			}
			seen[action+" by "+name] = fmt.Sprint(out, err)
		}
	}
	for _, command := range []string{"list", "status"} {
		out, err := exec.Command(testrig.Exe, command, "--json", "--config", r.Daemon.Config).CombinedOutput()
		if err != nil || command == "list" && !bytes.Contains(out, []byte("6000")) {
			t.Errorf("%s: %v\n%s", command, err, out)
		}
		seen[command] = string(out)
	}
	seen["log"] = r.Daemon.Log()
	if !strings.Contains(seen["log"], "level=DEBUG") {
		t.Error("the log says nothing at debug level")
	}
	for _, form := range nonceForms(secret) {
		for where, text := range seen {
			if strings.Contains(strings.ToLower(text), strings.ToLower(form)) {
				t.Errorf("the nonce is in %s, as %q", where, form)
			}
		}
	}
}

// nonceForms are the ways in which twelve octets may be written; a part of them
// tells too much already.
func nonceForms(nonce string) []string {
	part := nonce[3:9] // on a boundary of base64
	join := func(format, sep string) string {
		var s []string
		for _, o := range []byte(part) {
			s = append(s, fmt.Sprintf(format, o))
		}
		return strings.Join(s, sep)
	}
	return []string{part, hex.EncodeToString([]byte(part)), base64.StdEncoding.EncodeToString([]byte(part)),
		join("%d", " "), join("%d", ","), join("%02x", " "), join("%02x", ":"), join("0x%x", ", ")}
}
