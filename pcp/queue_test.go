package pcp_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"portcullis/portmap"
)

// slowFirewall takes its time for each transaction, as iptables does on a small
// machine.
type slowFirewall struct {
	portmap.Firewall
	transactions int // of the engine's goroutine
}

const transaction = 2 * time.Second

func (f *slowFirewall) Apply(ctx context.Context, add, del []portmap.Mapping) error {
	f.transactions++
	time.Sleep(transaction)
	return f.Firewall.Apply(ctx, add, del)
}

// slowly makes a rig's firewall slow, and gives the LAN hosts 100 to 199.
func slowly(f *slowFirewall) func(*options) {
	return func(o *options) {
		f.Firewall = o.engine.Firewall
		o.engine.Firewall = f
	}
}

func neighbour(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 168, 1, byte(100 + i)}), 40000)
}

func (r *rig) known(n int) {
	r.world.mu.Lock()
	defer r.world.mu.Unlock()
	for i := range n {
		r.world.macs[neighbour(i).Addr()] = lateHost{mac: portmap.MAC{2, 0, 0, 0, 1, byte(i)}}
	}
}

// TestSlowFirewall: requests of different hosts share a transaction behind a firewall
// that is slow, and what needs none of it does not wait.
func TestSlowFirewall(t *testing.T) {
	t.Parallel()
	const hosts = 60
	slow := new(slowFirewall)
	inBubble(t, slowly(slow), func(r *rig) {
		r.known(hosts)
		r.take()
		began := time.Now()
		for i := range hosts {
			r.give(neighbour(i), octets(mapUDP6000))
		}
		r.asks(hostB, "0000", "00800000 00000e10 cb007107")
		if waited := time.Since(began); waited != 0 {
			t.Errorf("an address request waited %v for others' mappings", waited)
		}
		time.Sleep(2 * transaction) // the first goes alone, the others together
		answered := map[netip.AddrPort]bool{}
		for _, s := range r.replies() {
			if !like(s.bytes, "00810000 ........ 1770.... 00001c..") {
				t.Errorf("%v was answered %s", s.to, words(s.bytes))
			}
			answered[s.to] = true
		}
		if len(answered) != hosts || slow.transactions > 2 {
			t.Errorf("%d of %d hosts answered after %d transactions", len(answered), hosts, slow.transactions)
		}
	})
}

// TestSlowFirewallKeepsOrder: what one client asks is done in its order, and a
// question behind a wish is answered behind it.
func TestSlowFirewallKeepsOrder(t *testing.T) {
	t.Parallel()
	inBubble(t, slowly(new(slowFirewall)), func(r *rig) {
		r.take()
		for range 5 {
			r.give(hostA, octets(mapUDP6000))
			r.give(hostA, octets("00010000 17700000 00000000"))
		}
		r.give(hostA, octets("0000"))
		time.Sleep(20 * transaction)
		var got []string
		for _, s := range r.replies() {
			got = append(got, fmt.Sprintf("%x", s.bytes[1:2])+fmt.Sprint(len(s.bytes) == 16 && s.bytes[15] != 0))
		}
		want := "[81true 81false 81true 81false 81true 81false 81true 81false 81true 81false 80false]"
		if fmt.Sprint(got) != want {
			t.Errorf("answered %v, want %v", got, want)
		}
		r.holds()
	})
}

// TestSlowFirewallIsBounded: one device that asks without end has 32 requests in
// line, and a host that comes later is served with them.
func TestSlowFirewallIsBounded(t *testing.T) {
	t.Parallel()
	inBubble(t, slowly(new(slowFirewall)), func(r *rig) {
		r.take()
		for i := range 1000 {
			r.give(hostA, octets(fmt.Sprintf("00010000 %04x0000 00001c20", 2000+i)))
		}
		r.give(hostB, octets("00010000 17711771 00001c20"))
		time.Sleep(3 * transaction)
		b := 0
		for _, s := range r.replies() {
			if s.to == hostB {
				b++
			}
		}
		if b != 1 {
			t.Errorf("the other host was answered %d times behind a flood", b)
		}
		time.Sleep(2 * time.Minute)
		if more := len(r.replies()); more > 32 {
			t.Errorf("%d answers to one device's flood", more)
		}
	})
}

// TestSlowFirewallAskedAgain: PCP-40. What a client asks again while it waits is done
// once and answered as often.
func TestSlowFirewallAskedAgain(t *testing.T) {
	t.Parallel()
	slow := new(slowFirewall)
	inBubble(t, slowly(slow), func(r *rig) {
		r.take()
		for range 6 {
			r.give(hostA, octets(mapUDP6000))
			time.Sleep(transaction / 10)
		}
		time.Sleep(10 * transaction)
		got := r.replies()
		for _, s := range got {
			if !like(s.bytes, "00810000 ........ 17701770 00001c..") {
				t.Errorf("answered %s", words(s.bytes))
			}
		}
		if len(got) != 6 || slow.transactions != 1 {
			t.Errorf("%d answers after %d transactions", len(got), slow.transactions)
		}
	})
}
