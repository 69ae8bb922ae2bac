package iptables

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"portcullis/firewall"
	"portcullis/firewall/flows"
	"portcullis/portmap"
)

// maxRefused bounds the rules: each is looked at by every packet that is forwarded.
const maxRefused = 1024

// refusal is an ended flow whose host is refused for a while.
type refusal struct {
	transport    portmap.Transport
	host, remote netip.AddrPort
	until        time.Time
}

// refuse writes the refusals of one family.
func (r *ruleset) refuse(f family, list []refusal) {
	for _, x := range list {
		if x.host.Addr().Is6() != (f == six) {
			continue
		}
		name, with := "udp", ""
		if x.transport == portmap.TCP {
			name, with = "tcp", " --reject-with tcp-reset"
		}
		r.add("filter", chainEnded, "-s %s -d %s -p %s -m %[3]s --sport %d --dport %d -m conntrack --ctdir ORIGINAL -m time --datestop %s -j REJECT%s",
			x.host.Addr(), x.remote.Addr(), name, x.host.Port(), x.remote.Port(), date(x.until), with)
	}
}

// lend gives f the committed mappings and the facts, under the lock.
func (b *Backend) lend(f func(*firewall.State, firewall.Gateway)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(b.state, b.gateway)
}

// forgetRefusals drops those that are over. The lock is held.
func (b *Backend) forgetRefusals(now time.Time) {
	b.refused = slices.DeleteFunc(b.refused, func(x refusal) bool { return !x.until.After(now) })
}

// refuse adds the hosts of these flows to the refusals, and writes them. Without
// dates they would stay for ever.
func (b *Backend) refuse(list []flows.Flow) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.installed || b.closed || b.timeless {
		return nil
	}
	now := time.Now()
	b.forgetRefusals(now)
	until, n := now.Add(flows.RefuseTime), len(b.refused)
	for _, f := range list[:min(len(list), maxRefused-n)] {
		b.refused = append(b.refused, refusal{f.Transport, f.AnswersFrom, f.Src, until})
	}
	if len(b.refused) == n {
		return nil
	}
	if _, err := b.sync(context.Background(), b.state); err != nil {
		return fmt.Errorf("refusing the hosts of ended flows: %w", err)
	}
	return nil
}
