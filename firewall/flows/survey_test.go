package flows

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"portcullis/portmap"
)

// surveyed is a kernel with a survey of it, which ends when the test says so.
func surveyed(t *testing.T, there ...Flow) (*tracked, *survey) {
	t.Helper()
	k := track(t)
	t.Cleanup(func() {
		if err := k.Close(context.Background(), nil); err != nil {
			t.Error(err)
		}
	})
	for _, f := range there {
		k.add(f)
	}
	s := k.survey()
	if s == nil {
		t.Fatal("there is no survey")
	}
	s.idle.Stop()
	return k, s
}

// survey returns what a grant of many ports would be told by.
func (k *tracked) survey() *survey {
	k.quick.mu.Lock()
	defer k.quick.mu.Unlock()
	return k.quick.surveyed(k.wan(), true)
}

// rich lets looks cost what they do on a busy machine.
func (k *tracked) rich() { k.quick.last = time.Time{} }

// TestSurvey: grants in a row go through the kernel's table once, and again only for a
// port that a flow leaves from, also one that has begun since.
func TestSurvey(t *testing.T) {
	inbound := flow(peer, wan+":5001", alice)
	elsewhere := out(bob, "5001", 3)
	elsewhere.AnswersTo = at("203.0.113.99:5001")
	k, s := surveyed(t, out(bob, "5000", 1), inbound, elsewhere)
	s.began = time.Now().Add(time.Hour)

	k.quick.kernel.close() // opened again by whoever looks
	host := at(alice).Addr()
	for port := range uint16(1000) {
		if k.Held(portmap.UDP, 5001+port, host) || k.Held(portmap.TCP, 5000+port, host) {
			t.Fatalf("somebody holds one of the ports of %d", port)
		}
		k.Free(k.change([]portmap.Mapping{mapping(uint64(port)+1, fmt.Sprint(5001+port), alice)}, nil))
	}
	if k.quick.kernel.list != nil {
		t.Error("the kernel's flows were looked through")
	}

	k.add(out(bob, "6500", 2))
	k.rich()
	if !k.Held(portmap.UDP, 5000, host) || !k.Held(portmap.UDP, 6500, host) {
		t.Error("flows are overlooked")
	}
	k.rich()
	k.Free(k.change([]portmap.Mapping{mapping(2000, "6500", alice)}, nil))
	if got := k.count(); got != 3 {
		t.Errorf("%d flows are left, want 3", got)
	}
}

// However many ports one change maps, flows of others that leave from them end with it.
func TestFreeMany(t *testing.T) {
	k := track(t)
	var all []portmap.Mapping
	for i := range uint16(3 * quickPorts) {
		k.add(out(bob, fmt.Sprint(7000+i), 1+i))
		all = append(all, mapping(uint64(i)+1, fmt.Sprint(5000+i), alice))
	}
	k.add(out(bob, "5003", 1000))
	k.Free(k.change(all, nil))
	if got := k.count(); got != len(all) {
		t.Errorf("%d flows are left, want %d", got, len(all))
	}
	if err := k.Close(context.Background(), nil); err != nil {
		t.Error(err)
	}
}

// flood begins more flows than wait for who does not read of them, from a port above 7000.
func (k *tracked) flood(port uint16) {
	for i := range uint16(3000) {
		src := netip.AddrPortFrom(at(bob).Addr(), 10_000+(port-7000)*3000+i).String()
		k.add(out(src, fmt.Sprint(port), 100+i))
	}
}

// TestSurveyHears: what a busy gateway begins between two grants does not end it.
func TestSurveyHears(t *testing.T) {
	k, s := surveyed(t)
	s.idle.Stop()
	s.began = time.Now().Add(time.Hour)
	for i := range uint16(600) {
		k.add(out(netip.AddrPortFrom(at(bob).Addr(), 10_000+i).String(), "7001", 100+i))
	}
	k.add(out(bob, "5000", 1))
	if !k.Held(portmap.UDP, 5000, at(alice).Addr()) {
		t.Error("the last of many flows is overlooked")
	}
	if k.survey() != s {
		t.Error("a survey does not outlast 600 flows")
	}
}

// A survey that lacks what the kernel told is none.
func TestSurveyLacks(t *testing.T) {
	k, s := surveyed(t)
	host := at(alice).Addr()
	k.flood(7001)
	k.add(out(bob, "5000", 1))
	s.began = time.Now().Add(-2 * quickFresh)
	k.rich()
	if !k.Held(portmap.UDP, 5000, host) {
		t.Error("a flow that the kernel could not tell of is overlooked")
	}
	if k.survey() == s {
		t.Error("a survey that lacks flows is kept")
	}

	// Who floods does not have one made for each grant.
	s = k.survey()
	s.idle.Stop()
	s.began = time.Now().Add(time.Hour)
	k.flood(7002)
	k.add(out(bob, "5001", 2))
	if k.survey() != nil {
		t.Error("a survey that did not last is made anew at once")
	}
	k.rich()
	if !k.Held(portmap.UDP, 5001, host) {
		t.Error("without a survey a flow is overlooked")
	}
}

// One is not used longer than it is good for, nor for addresses that it is not of, nor
// kept when nobody asks.
func TestSurveyEnds(t *testing.T) {
	k, s := surveyed(t, out(bob, "5000", 1))
	s.began = time.Now().Add(-surveyAge)
	next := k.survey()
	if next == nil || next == s {
		t.Fatal("it is used longer than it is good for")
	}
	next.idle.Stop()
	next.began = time.Now().Add(time.Hour)
	others := []netip.Addr{netip.MustParseAddr("203.0.113.99"), netip.MustParseAddr(wan)}
	s = k.quick.surveyed(others, true)
	if s == nil || s == next {
		t.Error("it is of addresses that are no longer ours")
	}
	if p := (port{portmap.UDP, 5000}); !s.has(p) || !next.has(p) {
		t.Error("a flow from one of the gateway's addresses is overlooked")
	}
	k.quick.granted = time.Now().Add(-surveyAge)
	k.quick.unneeded(next) // its own timer, late
	if k.quick.survey != s {
		t.Error("another one's timer has ended it")
	}
	k.quick.unneeded(s)
	if k.quick.survey != nil {
		t.Error("it is kept though nobody asks")
	}
}

// The first grant in a while looks at its own port alone.
func TestSurveyForRowsOnly(t *testing.T) {
	k := track(t)
	if got := k.quick.surveyed(k.wan(), false); got != nil {
		t.Error("one grant makes a survey")
	}
	k.quick.granted = time.Now().Add(time.Hour) // the machine may be slow
	if got := k.quick.surveyed(k.wan(), false); got == nil {
		t.Error("a second one makes none")
	}
	if err := k.Close(context.Background(), nil); err != nil {
		t.Error(err)
	}
}

// A kernel that keeps quiet about new flows is looked at for each grant.
func TestQuietKernel(t *testing.T) {
	k := track(t)
	k.space.Sysctl("net/netfilter/nf_conntrack_events", "0")
	if k.survey() != nil {
		t.Error("there is a survey, though the kernel would not tell of new flows")
	}
	k.add(out(bob, "5000", 1))
	if k.rich(); !k.Held(portmap.UDP, 5000, at(alice).Addr()) {
		t.Error("a flow is overlooked")
	}
	if err := k.Close(context.Background(), nil); err != nil {
		t.Error(err)
	}
}

// Where there are too many flows for one, each port is looked at.
func TestManyFlowsNoSurvey(t *testing.T) {
	k := track(t)
	many := func(from, seen string) {
		for i := range surveyFlows + 1 {
			p := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}), 443)
			k.add(Flow{Src: at(from), Dst: p, AnswersFrom: p, AnswersTo: at(seen)})
		}
	}
	many(carol, carol) // these do not count
	if k.survey() == nil {
		t.Error("no survey, because of flows that leave from none of the gateway's ports")
	}
	many(bob, wan+":6000")
	k.add(out(bob, "5000", 1))
	if k.survey() != nil {
		t.Error("a survey of too many flows")
	}
	if k.rich(); !k.Held(portmap.UDP, 5000, at(alice).Addr()) {
		t.Error("a flow is overlooked")
	}
	if err := k.Close(context.Background(), nil); err != nil {
		t.Error(err)
	}
}
