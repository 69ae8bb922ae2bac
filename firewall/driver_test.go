package firewall_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"portcullis/firewall"
	"portcullis/internal/slog"
	"portcullis/portmap"
)

// spy is a kernel that does and tells what a test says, and writes down what it is asked.
type spy struct {
	calls   []string
	answers map[string][]error // by call; the first is given once
	lacking bool
	retimes bool
	held    firewall.Held
	whole   firewall.Whole
	ends    map[string]time.Time // where set, what entries were given as their ends
}

func (k *spy) call(format string, args ...any) error {
	name := fmt.Sprintf(format, args...)
	k.calls = append(k.calls, name)
	word, _, _ := strings.Cut(name, ":")
	if list := k.answers[word]; len(list) > 0 {
		k.answers[word] = list[1:]
		return list[0]
	}
	return nil
}

func (k *spy) Write(_ context.Context, u firewall.Update) (bool, error) {
	switch {
	case u.Facts != nil:
		return k.lacking, k.call("write facts")
	case u.Delta != nil:
		for _, e := range u.Delta.Retime {
			if k.ends != nil {
				end := e.Expires
				e.Expires = time.Time{}
				k.ends[fmt.Sprint(e)] = end
			}
		}
		return k.lacking, k.call("write: -%d +%d ~%d", len(u.Delta.Del), len(u.Delta.Add), len(u.Delta.Retime))
	}
	return k.lacking, k.call("refuse: %d", len(u.Refuse))
}

func (k *spy) Rewrite(_ context.Context, p firewall.Part, w firewall.Whole) error {
	if p == firewall.OwnersTables {
		k.lacking = false
		return k.call("rewrite owners: %d", countOf(w.Entries))
	}
	k.whole = w
	return k.call("rewrite: %d", countOf(w.Entries))
}

func (k *spy) Read(_ context.Context, q firewall.Query) (firewall.Held, error) {
	switch {
	case q.Rules:
		return firewall.Held{Drift: k.held.Drift}, k.call("read rules")
	case q.OwnersTables:
		return firewall.Held{Lost: k.held.Lost, Lacking: k.held.Lacking}, k.call("read owners")
	case q.Copies != nil:
		return firewall.Held{Lost: k.held.Lost}, k.call("read copies")
	case q.Holds != nil:
		h := firewall.Held{}
		if firewall.World(slices.Collect(q.Holds)) != firewall.World(k.held.Entries) {
			h.Drift = "our mappings were changed"
		}
		return h, k.call("read entries")
	case q.Entries:
		return firewall.Held{Entries: k.held.Entries}, k.call("read entries")
	case q.Counters:
		return firewall.Held{Counters: k.held.Counters}, k.call("read counters: quick %v", q.Quick)
	}
	return firewall.Held{Counters: k.held.Counters}, k.call("read counters of: %d", len(q.CountersOf))
}

func (k *spy) Retimes() bool { return k.retimes }

func (k *spy) Watch(context.Context, func(firewall.Intrusion)) error { return nil }

func (k *spy) Remove(context.Context) error { return k.call("remove") }

// flows writes down what the driver has ended.
type flows struct{ k *spy }

func (f flows) Changed(c *firewall.Delta) {
	_ = f.k.call("flows: %d gone, %d new", len(c.Gone), len(c.New))
}
func (f flows) Free(*firewall.Delta)              {}
func (f flows) AddressesGone(_, _ firewall.Facts) { _ = f.k.call("addresses") }
func (f flows) Close(_ context.Context, ms []portmap.Mapping) error {
	return f.k.call("flows end: %d", len(ms))
}

func drive(k *spy) *firewall.Driver {
	return firewall.NewDriver(slog.New(slog.DiscardHandler), k, func(*firewall.Driver) firewall.Flows { return flows{k} })
}

// wants compares the calls since the last time, a line each.
func (k *spy) wants(t *testing.T, what, want string) {
	t.Helper()
	if diff := cmp.Diff(strings.Fields(strings.ReplaceAll(want, " ", "_")), strings.Fields(strings.ReplaceAll(strings.Join(k.calls, "\n"), " ", "_"))); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
	k.calls = nil
}

var facts = firewall.Facts{WAN: []firewall.Uplink{{Interface: "wan0", Addrs: []netip.Addr{netip.MustParseAddr("203.0.113.5")}}}}

// TestDriver: what a driver makes of a change, and of a kernel that has it, has it not, or
// does not know.
func TestDriver(t *testing.T) {
	t.Parallel()
	one, two := mapping(t, "1 udp 5000 -> 10.0.0.2:5000 for 60s"), mapping(t, "2 udp 5001 -> 10.0.0.2:5001")
	list := func(ms ...portmap.Mapping) []portmap.Mapping { return ms }
	refused := errors.New("refused")
	for name, tc := range map[string]struct {
		answers  map[string][]error
		lacking  bool
		err      error
		want     string
		repaired uint64
		next     string // the calls of a change after it
	}{
		"a change": {
			want: "write: -0 +3 ~0\nflows: 0 gone, 1 new", next: "write: -3 +0 ~0\nflows: 1 gone, 0 new",
		},
		"something lacks in the owner's tables": {
			lacking: true, want: "write: -0 +3 ~0\nflows: 0 gone, 1 new\nrewrite owners: 2", next: "write: -3 +0 ~0\nflows: 1 gone, 0 new",
		},
		"refused": {
			answers: map[string][]error{"write": {refused}}, err: refused, want: "write: -0 +3 ~0",
			next: "write: -3 +0 ~0\nflows: 1 gone, 0 new",
		},
		"more than one transaction": {
			answers: map[string][]error{"write": {firewall.ErrTooLarge}},
			want:    "write: -0 +3 ~0\nread counters: quick true\nrewrite: 6\nflows: 0 gone, 1 new\nrewrite owners: 2",
			next:    "write: -3 +0 ~0\nflows: 1 gone, 0 new",
		},
		"K3/the kernel holds something else": {
			answers: map[string][]error{"write": {firewall.ErrDrifted}}, repaired: 1,
			want: "write: -0 +3 ~0\nread counters: quick true\nrewrite: 6\nflows: 0 gone, 1 new\nrewrite owners: 2",
			next: "write: -3 +0 ~0\nflows: 1 gone, 0 new",
		},
		"the outcome is unknown": {
			answers: map[string][]error{"write": {firewall.ErrUnknown}}, err: firewall.ErrUnknown, want: "write: -0 +3 ~0",
			next: "rewrite: 0\nflows: 1 gone, 0 new\nrewrite owners: 0",
		},
		"C9/nothing is left, and what was there comes back": {
			answers: map[string][]error{"write": {firewall.ErrTooLarge}, "rewrite": {firewall.ErrNothingLeft}}, err: firewall.ErrNothingLeft,
			want: "write: -0 +3 ~0\nread counters: quick true\nrewrite: 6\nrewrite: 3", next: "write: -3 +0 ~0\nflows: 1 gone, 0 new",
		},
		"nothing is left, and nothing comes back": {
			answers: map[string][]error{"write": {firewall.ErrTooLarge}, "rewrite": {firewall.ErrNothingLeft, refused}}, err: firewall.ErrNothingLeft,
			want: "write: -0 +3 ~0\nread counters: quick true\nrewrite: 6\nrewrite: 3", next: "rewrite: 0\nflows: 1 gone, 0 new\nrewrite owners: 0",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := &spy{}
			d := drive(k)
			if err := errors.Join(d.Prepare(facts), d.Replace(t.Context(), list(one))); err != nil {
				t.Fatal(err)
			}
			k.wants(t, "the first Replace", "rewrite: 3\nflows: 0 gone, 1 new\nrewrite owners: 1")
			k.answers, k.lacking = tc.answers, tc.lacking
			if err := d.Apply(t.Context(), list(two), nil); !errors.Is(err, tc.err) {
				t.Errorf("Apply: %v, want %v", err, tc.err)
			}
			k.wants(t, "the change", tc.want)
			if n := d.Repaired(); n != tc.repaired {
				t.Errorf("%d repairs counted", n)
			}
			if tc.err == nil {
				if err := d.Apply(t.Context(), nil, list(two)); err != nil {
					t.Error(err)
				}
			} else if err := d.Apply(t.Context(), nil, list(one)); err != nil {
				t.Error(err)
			}
			k.wants(t, "the next one", tc.next)
		})
	}
}

// TestDriverRenews: what is renewed goes on counting, by the kernel where that gives an
// element another end, and else by us. A lease that never ends is not one that it gives.
func TestDriverRenews(t *testing.T) {
	t.Parallel()
	finite, longer, endless := "1 udp 5000 -> 10.0.0.2:5000 for 60s", "1 udp 5000 -> 10.0.0.2:5000 for 90s", "1 udp 5000 -> 10.0.0.2:5000"
	for name, tc := range map[string]struct {
		retimes  bool
		old, now string
		want     string
		counted  uint64 // in all, where 3 packets came before and 1 is on the counter after
	}{
		"as Linux 6.12 does":       {true, finite, longer, "write: -0 +0 ~3\nflows: 0 gone, 0 new", 3},
		"as an older one does":     {false, finite, longer, "read counters of: 1\nwrite: -0 +0 ~3\nflows: 0 gone, 0 new", 4},
		"a lease that had no end":  {true, endless, longer, "read counters of: 1\nwrite: -0 +0 ~3\nflows: 0 gone, 0 new", 4},
		"a lease that has no more": {true, finite, endless, "read counters of: 1\nwrite: -0 +0 ~3\nflows: 0 gone, 0 new", 4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := &spy{retimes: tc.retimes}
			d := drive(k)
			one := mapping(t, tc.old)
			if err := errors.Join(d.Prepare(facts), d.Replace(t.Context(), []portmap.Mapping{one})); err != nil {
				t.Fatal(err)
			}
			all := slices.Collect(k.whole.Entries)
			hole := all[slices.IndexFunc(all, func(e firewall.Entry) bool { return e.Kind == firewall.Hole })]
			k.held.Counters = []firewall.Count{{Entry: hole, Counter: firewall.Counter{Packets: 3}}}
			if _, err := d.Counter(t.Context(), one.ID); err != nil {
				t.Fatal(err)
			}
			k.calls = nil
			if err := d.Apply(t.Context(), []portmap.Mapping{mapping(t, tc.now)}, nil); err != nil {
				t.Fatal(err)
			}
			k.wants(t, "the renewal", tc.want)
			k.held.Counters[0].Counter.Packets = 1
			if c, err := d.Counter(t.Context(), one.ID); err != nil || c.Packets != tc.counted {
				t.Errorf("%d packets counted, %v; want %d", c.Packets, err, tc.counted)
			}
		})
	}
}

// TestDriverAudit: L20. What is found is repaired, and no more than that.
func TestDriverAudit(t *testing.T) {
	t.Parallel()
	one := mapping(t, "1 udp 5000 -> 10.0.0.2:5000")
	var entries []firewall.Entry
	whole := firewall.NewState()
	if c, err := whole.Plan([]portmap.Mapping{one}, nil); err == nil {
		whole.Commit(c)
		entries = whole.Entries()
	}
	const all = "read rules\nread owners\nread entries\nread copies"
	chain := &firewall.ChainError{Detail: "there is none"}
	for name, tc := range map[string]struct {
		held     firewall.Held
		answers  map[string][]error
		want     string
		drift    string
		err      error
		repaired uint64
	}{
		"nothing": {held: firewall.Held{Entries: entries}, want: all},
		"K3/the rules": {
			held: firewall.Held{Drift: "our rules were changed"}, drift: "our rules were changed", repaired: 1,
			want: "read rules\nread counters: quick true\nrewrite: 3\nrewrite owners: 1",
		},
		"K3/the owner's table": {
			held: firewall.Held{Lost: true}, drift: "our part of the accept chain was missing", repaired: 1,
			want: "read rules\nread owners\nrewrite owners: 1",
		},
		"an accept chain that is not there": {
			held: firewall.Held{Lacking: true}, answers: map[string][]error{"rewrite owners": {chain}},
			drift: "the accept chain is missing", err: chain, want: "read rules\nread owners\nrewrite owners: 1",
		},
		"K3/a mapping": {
			held: firewall.Held{Entries: entries[:2]}, drift: "our mappings were changed", repaired: 1,
			want: "read rules\nread owners\nread entries\nread counters: quick true\nrewrite: 3\nrewrite owners: 1",
		},
		"it goes while it is read": {
			held: firewall.Held{Entries: entries}, answers: map[string][]error{"read entries": {firewall.ErrDrifted}},
			want: "read rules\nread owners\nread entries\nread rules\nread owners",
		},
		"it keeps changing": {
			answers: map[string][]error{"read entries": {firewall.ErrChanging}}, err: firewall.ErrChanging,
			want: "read rules\nread owners\nread entries",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := &spy{}
			d := drive(k)
			if err := d.Replace(t.Context(), []portmap.Mapping{one}); err != nil {
				t.Fatal(err)
			}
			k.calls, k.held, k.answers = nil, tc.held, tc.answers
			drift, err := d.Audit(t.Context(), true)
			if drift != tc.drift || !errors.Is(err, tc.err) {
				t.Errorf("found %q, %v; want %q, %v", drift, err, tc.drift, tc.err)
			}
			k.wants(t, "the audit", tc.want)
			if n := d.Repaired(); n != tc.repaired {
				t.Errorf("%d repairs counted, want %d", n, tc.repaired)
			}
		})
	}
}

// TestDriverCounters: counts go on where entries are written anew.
func TestDriverCounters(t *testing.T) {
	t.Parallel()
	k := &spy{}
	d := drive(k)
	one := mapping(t, "1 udp 5000 -> 10.0.0.2:5000 for 60s")
	apply := func(add, del []portmap.Mapping) {
		t.Helper()
		if err := d.Apply(t.Context(), add, del); err != nil {
			t.Fatal(err)
		}
	}
	kernel := func(n uint64) {
		k.held.Counters = nil
		if n > 0 {
			hole := firewall.Entry{Kind: firewall.Hole, Transport: portmap.UDP, External: 5000, Internal: one.Internal}
			k.held.Counters = []firewall.Count{{Entry: hole, Counter: firewall.Counter{Packets: n, Bytes: 10 * n}}}
		}
	}
	counted := func(what string, want uint64) {
		t.Helper()
		one, err := d.Counter(t.Context(), 1)
		all, errAll := d.Counters(t.Context())
		if err != nil || errAll != nil || one.Packets != want || one.Bytes != 10*want || all[1] != one {
			t.Errorf("%s: %+v, %+v, %v, %v; want %d", what, one, all[1], err, errAll, want)
		}
	}
	apply([]portmap.Mapping{one}, nil)
	counted("at first", 0)
	kernel(3)
	counted("what the kernel counts", 3)
	kernel(5)
	renewed := mapping(t, "1 udp 5000 -> 10.0.0.2:5000 for 90s")
	apply([]portmap.Mapping{renewed}, nil) // the kernel is asked once more before
	kernel(0)
	counted("after a renewal", 5)
	kernel(2)
	counted("and on", 7)
	k.answers = map[string][]error{"write": {firewall.ErrDrifted}}
	apply([]portmap.Mapping{mapping(t, "2 udp 5001 -> 10.0.0.2:5001")}, nil)
	kernel(1)
	counted("after all was written anew", 8)
	k.answers = map[string][]error{"read counters of": {firewall.ErrDrifted}}
	kernel(0)
	counted("what was last seen of what was taken away", 8)
	apply(nil, []portmap.Mapping{renewed})
	counted("what has ended", 0)
}

// TestDriverLife: nothing is written before it is time, nor after it is over.
func TestDriverLife(t *testing.T) {
	t.Parallel()
	k := &spy{}
	d := drive(k)
	one := mapping(t, "1 udp 5000 -> 10.0.0.2:5000")
	if err := errors.Join(d.Prepare(facts), d.Refuse(nil)); err != nil {
		t.Fatal(err)
	}
	k.wants(t, "before anything is in force", "")
	if err := errors.Join(d.Configure(t.Context(), facts), d.Apply(t.Context(), []portmap.Mapping{one}, nil), d.Refuse(make([]firewall.Refusal, 2))); err != nil {
		t.Fatal(err)
	}
	k.wants(t, "the first Configure", "rewrite: 0\naddresses\nread owners\nwrite: -0 +3 ~0\nflows: 0 gone, 1 new\nrefuse: 2")
	if d.Prepare(facts) == nil {
		t.Error("prepared when it was in force")
	}
	refused := errors.New("refused")
	k.answers = map[string][]error{"write facts": {refused}}
	if err := d.Configure(t.Context(), firewall.Facts{LAN: []string{"lan0"}}); !errors.Is(err, refused) {
		t.Errorf("Configure: %v", err)
	}
	if g, err := d.Facts(); err != nil || len(g.LAN) != 0 {
		t.Errorf("after a refusal the gateway is %+v, %v", g, err)
	}
	k.calls = nil
	for range 2 {
		if err := d.Close(t.Context(), false); err != nil {
			t.Error(err)
		}
	}
	k.wants(t, "the end", "remove\nflows end: 1")
	_, errAudit := d.Audit(t.Context(), true)
	for _, err := range []error{d.Apply(t.Context(), nil, nil), d.Replace(t.Context(), nil), d.Configure(t.Context(), facts), d.Prepare(facts), errAudit} {
		if !errors.Is(err, firewall.ErrClosed) {
			t.Errorf("after the end: %v", err)
		}
	}
	k.wants(t, "after the end", "")
}

func countOf(all iter.Seq[firewall.Entry]) (n int) {
	for range all {
		n++
	}
	return n
}

// TestCountersOfSome: of some mappings one whose entries somebody took away has what was last
// seen of it, and hides no other.
func TestCountersOfSome(t *testing.T) {
	t.Parallel()
	k := &spy{}
	d := drive(k)
	all := []portmap.Mapping{mapping(t, "1 udp 5000 -> 10.0.0.2:5000"), mapping(t, "2 udp 5001 -> 10.0.0.2:5001")}
	if err := d.Replace(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	k.calls = nil
	hole := firewall.Entry{Kind: firewall.Hole, Transport: portmap.UDP, External: 5001, Internal: all[1].Internal}
	k.held.Counters = []firewall.Count{{Entry: hole, Counter: firewall.Counter{Packets: 3}}}
	for _, tc := range []struct {
		answers []error
		err     error
		want    string
	}{
		{nil, nil, "read counters of: 2"},
		{[]error{firewall.ErrDrifted, firewall.ErrDrifted}, nil, "read counters of: 2\nread counters of: 1\nread counters of: 1"},
		{[]error{firewall.ErrUnknown}, firewall.ErrUnknown, "read counters of: 2"},
	} {
		k.answers = map[string][]error{"read counters of": tc.answers}
		got, err := d.CountersOf(t.Context(), []uint64{1, 2, 9})
		if !errors.Is(err, tc.err) || err == nil && (got[2].Packets != 3 || got[1].Packets != 0 || len(got) != 3) {
			t.Errorf("%v: %v, %v", tc.answers, got, err)
		}
		k.wants(t, fmt.Sprint(tc.answers), tc.want)
	}
}

// TestReplaceAtAStart: what is taken over at once into a driver that holds nothing makes no
// change of many parts, whose memory is several times that of what is held. A start is a
// Replace, and so is its peak (docs/performance.md).
func TestReplaceAtAStart(t *testing.T) {
	const mappings, most = 4_000, 8
	all := make([]portmap.Mapping, mappings)
	for i := range all {
		all[i] = mapping(t, fmt.Sprintf("%d udp %d -> 192.168.1.%d:%d", i+1, 10_000+i, i%200, 10_000+i))
	}
	got := testing.AllocsPerRun(1, func() {
		k := &spy{}
		if err := drive(k).Replace(t.Context(), all); err != nil {
			t.Fatal(err)
		}
		if n := countOf(k.whole.Entries); n != 3*mappings {
			t.Fatalf("%d entries are written, want %d", n, 3*mappings)
		}
	}) / mappings
	if t.Logf("%.1f allocations a mapping", got); got > most {
		t.Errorf("%.1f allocations for a mapping, and not %d at most", got, most)
	}
}
