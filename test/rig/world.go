package rig

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"portcullis/internal/control"
	"portcullis/internal/lab"
)

// World is everything that a refused request must leave as it was: what the owner sees,
// what the kernel holds for us and for the owner, the flows through the gateway, and what
// the next run of the daemon would restore.
type World struct {
	Mappings []control.Mapping
	Ruleset  string
	Flows    map[string]time.Duration // each with the time after which the kernel forgets it
	Journal  map[string]string        // what the file says of each mapping, by its id

	at time.Time
}

// endingTime is more than flows take to end after their mapping.
const endingTime = 3 * time.Second

// World takes a picture of it, when the flows of mappings that have just been removed have
// ended: else they would be missed in the next picture.
func (r *Rig) World(t testing.TB) World {
	t.Helper()
	w := r.picture(t)
	for begun := time.Now(); time.Since(begun) < endingTime && slices.ContainsFunc(slices.Collect(maps.Keys(w.Flows)), w.ending); w = r.picture(t) {
		<-time.After(20 * time.Millisecond)
	}
	return w
}

// ending reports whether a flow comes from outside to a host, and no mapping leads there.
func (w World) ending(flow string) bool {
	there, back, _ := strings.Cut(flow, ", ")
	_, from, _ := strings.Cut(there, " ")
	return !inside(from) && inside(back) && !slices.ContainsFunc(w.Mappings, func(m control.Mapping) bool {
		return strings.HasPrefix(back, fmt.Sprintf("%s:%d ", m.InternalIP, m.InternalPort))
	})
}

// inside reports whether a text begins with an endpoint on the LAN.
func inside(text string) bool {
	endpoint, _, _ := strings.Cut(text, " ")
	a, err := netip.ParseAddr(endpoint[:max(0, strings.LastIndex(endpoint, ":"))])
	return err == nil && (lab.LANPrefix.Contains(a) || lab.LANPrefix6.Contains(a))
}

func (r *Rig) picture(t testing.TB) World {
	t.Helper()
	return World{Mappings: r.List(t), Ruleset: Ruleset(t, r.Gateway), Flows: flows(t, r.Gateway), Journal: r.journal(t), at: time.Now()}
}

// Unchanged fails the test when the world is not what it was. If it is, the log of the
// test says so, where test/cases finds it. The cases that this proves are those in the
// test's name, and these.
func (r *Rig) Unchanged(t testing.TB, before World, cases ...string) {
	t.Helper()
	after := r.World(t)
	if diff := before.diff(after); diff != "" {
		t.Errorf("something changed (-before +after):\n%s", diff)
		return
	}
	t.Logf("%s mappings %d=%d, elements %d=%d, flows %d=%d, journal %d=%d %s", Proof, len(before.Mappings), len(after.Mappings),
		elements(before), elements(after), len(before.Flows), len(after.Flows), len(before.Journal), len(after.Journal), strings.Join(cases, " "))
}

// Proof begins the line of a test's log that says that nothing changed.
const Proof = "unchanged:"

// Renewed fails the test when more has changed than how long things last.
func (r *Rig) Renewed(t testing.TB, before World) {
	t.Helper()
	if diff := before.lasting().diff(r.World(t).lasting()); diff != "" {
		t.Errorf("more than leases changed (-before +after):\n%s", diff)
	}
}

// timeout is how long an element of the ruleset lives, end how long a mapping does in
// the journal.
var (
	timeout = regexp.MustCompile(` timeout [0-9dhms]+`)
	end     = regexp.MustCompile(` (?:end|until)=\S+`)
)

// elements counts what the ruleset holds for a while: one or more for each mapping.
func elements(w World) int { return len(timeout.FindAllString(w.Ruleset, -1)) }

// lasting is the world without the ends of leases.
func (w World) lasting() World {
	w.Ruleset = timeout.ReplaceAllString(w.Ruleset, "")
	w.Journal = maps.Clone(w.Journal)
	for id, text := range w.Journal {
		w.Journal[id] = end.ReplaceAllString(text, "")
	}
	return w
}

// seconds are what of the life of an element may differ: the kernel hears of a longer lease up
// to a second later, and counts from then.
var seconds = regexp.MustCompile(`( timeout (?:\d+d)?(?:\d+h)?(?:\d+m\b)?)(?:\d+s)?(?:\d+ms)?`)

// diff is what differs, "" for nothing. Flows that the kernel forgets by itself may be
// gone, and no flow may have come.
func (before World) diff(after World) string {
	before.Ruleset, after.Ruleset = seconds.ReplaceAllString(before.Ruleset, "$1"), seconds.ReplaceAllString(after.Ruleset, "$1")
	opts := cmp.Options{
		cmpopts.IgnoreFields(World{}, "Flows", "at"),
		cmpopts.IgnoreFields(control.Mapping{}, "ExpiresIn", "Packets", "Bytes"),
	}
	s := cmp.Diff(before, after, opts)
	for _, flow := range slices.Sorted(maps.Keys(before.Flows)) {
		if _, there := after.Flows[flow]; !there && before.Flows[flow] > after.at.Sub(before.at)+time.Second {
			s += "- flow " + flow + "\n"
		}
	}
	for _, flow := range slices.Sorted(maps.Keys(after.Flows)) {
		if _, there := before.Flows[flow]; !there {
			s += "+ flow " + flow + "\n"
		}
	}
	return s
}

// flows lists what a gateway's connection tracking knows of flows through it. Those
// between a host and the gateway itself are none: each request is one.
func flows(t testing.TB, gateway *lab.Host) map[string]time.Duration {
	t.Helper()
	all := map[string]time.Duration{}
	err := gateway.Do(func() error {
		own, err := ownAddresses()
		if err != nil {
			return err
		}
		for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
			list, err := tracked(family)
			if err != nil {
				return err
			}
			for _, f := range list {
				if name, through := flowName(f, own); through {
					all[name] = time.Duration(f.TimeOut) * time.Second
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// tracked reads the kernel's list, again when it changed meanwhile.
func tracked(family netlink.InetFamily) (list []*netlink.ConntrackFlow, err error) {
	for range 5 {
		if list, err = netlink.ConntrackTableList(netlink.ConntrackTable, family); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return list, err
}

// flowName writes a flow down, both directions, and reports whether it goes through the
// gateway: to or from it without translation it does not. own has the gateway's addresses.
func flowName(f *netlink.ConntrackFlow, own func(net.IP) bool) (string, bool) {
	there, back := f.Forward, f.Reverse
	translated := !there.SrcIP.Equal(back.DstIP) || !there.DstIP.Equal(back.SrcIP) || there.SrcPort != back.DstPort || there.DstPort != back.SrcPort
	one := func(t netlink.IPTuple) string {
		return fmt.Sprintf("%s:%d > %s:%d", t.SrcIP, t.SrcPort, t.DstIP, t.DstPort)
	}
	return fmt.Sprintf("%d %s, %s", there.Protocol, one(there), one(back)), translated || !own(there.SrcIP) && !own(there.DstIP)
}

// ownAddresses tells the addresses of the machine whose thread this is, and those by
// which its networks are told something, from others.
func ownAddresses() (func(net.IP) bool, error) {
	addrs, err := netlink.AddrList(nil, unix.AF_UNSPEC)
	return func(ip net.IP) bool {
		a, _ := netip.AddrFromSlice(ip)
		if a = a.Unmap(); a.IsMulticast() || a.IsUnspecified() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
			return true
		}
		return slices.ContainsFunc(addrs, func(have netlink.Addr) bool {
			return have.IP.Equal(ip) || have.IP.To4() != nil && have.Contains(ip) && (ip.Equal(have.IP.Mask(have.Mask)) || ip.Equal(lastOf(have.IPNet)))
		})
	}, err
}

// lastOf is the broadcast address of an IPv4 network.
func lastOf(n *net.IPNet) net.IP {
	last := slices.Clone(n.IP.To4())
	for i := range last {
		last[i] |= ^n.Mask[i]
	}
	return last
}

// journal reads what the file of leases says of each mapping: how it was written
// last, with its last end.
func (r *Rig) journal(t testing.TB) map[string]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(r.Daemon.State(), "leases.journal"))
	if errors.Is(err, os.ErrNotExist) {
		return map[string]string{}
	}
	if err != nil {
		t.Fatal(err)
	}
	return kept(text)
}

// kept replays the lines of a journal (internal/journal).
func kept(text []byte) map[string]string {
	kept := map[string]string{}
	for l := range bytes.Lines(text) {
		// CRC SEQ/SYNCED AT VERB FIELDS
		f := strings.SplitN(strings.TrimSpace(string(l)), " ", 6)
		if len(f) < 5 {
			continue
		}
		switch verb, id := f[3], f[4]; verb {
		case "put":
			kept[id] = " " + f[5]
		case "lease":
			kept[id] = " " + f[5] + end.ReplaceAllString(kept[id], "")
		case "end":
			delete(kept, id)
		}
	}
	return kept
}
