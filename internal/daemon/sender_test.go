package daemon

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/firewall"
	"portcullis/firewall/witness"
	"portcullis/internal/datagram"
	"portcullis/internal/netif"
	"portcullis/internal/reconcile"
)

// K4: a flood of forged datagrams is three lines and one a minute, with the count of
// what was left out.
func TestReports(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r reporter
		lines, leftOut := 0, 0
		for range 2 * 60 * 100 {
			if n, now := r.allow(); now {
				lines++
				leftOut += n
			}
			time.Sleep(10 * time.Millisecond)
		}
		if lines != reportBurst+1 || leftOut != 60*100-reportBurst {
			t.Errorf("%d lines in two minutes, %d left out", lines, leftOut)
		}
	})
}

// TestUnseenLooks: a host whose frames are never seen, by its choice of MAC address,
// does not make the daemon look at the kernel's rules without end.
func TestUnseenLooks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		looks := 0
		g := &gate{log: slog.New(slog.DiscardHandler), witness: &witness.Witness{}}
		g.rules = reconcile.New(reconcile.Config{
			Log: g.log, Changed: func() {}, Settled: func(context.Context) {},
			Watch: func(ctx context.Context, _ func(firewall.Intrusion)) error {
				<-ctx.Done()
				return ctx.Err()
			},
			Audits: []func(context.Context, bool) (string, error){func(context.Context, bool) (string, error) {
				looks++
				return "", nil
			}},
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- g.rules.Run(ctx) }()
		const minutes = 10
		from := datagram.Packet{Source: netip.MustParseAddrPort("192.168.1.66:40000")}
		for range minutes * 60 * 2 {
			g.unseen(netif.LAN{Name: "br-lan"}, from)
			time.Sleep(time.Second / 2) // each could have a look of its own
		}
		cancel()
		<-done
		// One a minute is taken whatever happens.
		if looks < reportBurst || looks > reportBurst+2*minutes {
			t.Errorf("looked %d times in %d minutes", looks, minutes)
		}
	})
}
