package nft_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"portcullis/firewall"
	"portcullis/firewall/homenet"
	"portcullis/firewall/nft"
	"portcullis/internal/netns/netnstest"
	"portcullis/portmap"
)

// tables lists the tables of a namespace.
func tables(t *testing.T, n *netnstest.Space) []string {
	t.Helper()
	q, err := nftables.New(nftables.WithNetNSFd(n.FD()))
	if err != nil {
		t.Fatal(err)
	}
	all, err := q.ListTables()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, tb := range all {
		names = append(names, tb.Name)
	}
	return names
}

// bare is a backend that was told nothing yet.
func bare(t *testing.T, n *netnstest.Space) *nft.Backend {
	t.Helper()
	b := unconfigured(t, n)
	t.Cleanup(func() { _ = b.Close(context.Background(), true) })
	return b
}

// A run that was told to keep its mappings leaves them to the next one, which
// replaces them in one step and writes nothing before.
func TestKeptTableIsReplaced(t *testing.T) {
	t.Parallel()
	n := netnstest.New(t, "gateway")
	one, two := homenet.Mapping(1, "udp 5000", homenet.Alice+":6000"), homenet.Mapping(2, "udp 5001", homenet.Alice+":6001")

	first := bare(t, n)
	if got := tables(t, n); len(got) != 0 {
		t.Errorf("Open wrote %v", got)
	}
	if err := first.Configure(ctx(t), homenet.Facts()); err != nil {
		t.Fatal(err)
	}
	if err := first.Apply(ctx(t), []portmap.Mapping{one, two}, nil); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(ctx(t), true); err != nil {
		t.Fatal(err)
	}

	second := bare(t, n)
	if diff := cmp.Diff([]string{"portcullis"}, tables(t, n)); diff != "" {
		t.Errorf("after keeping (-want +got):\n%s", diff)
	}
	if got := world(t, second); !strings.Contains(got, "udp 5001") {
		t.Errorf("Open removed what was kept:\n%s", got)
	}
	if err := second.Replace(ctx(t), []portmap.Mapping{one}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("udp 5000 -> 192.168.1.10:6000\nudp 192.168.1.10:6000 keeps 5000\nudp 5000 is mapped\n", world(t, second)); diff != "" {
		t.Errorf("replaced (-want +got):\n%s", diff)
	}
	if err := second.Close(ctx(t), false); err != nil {
		t.Fatal(err)
	}
	if got := tables(t, n); len(got) != 0 {
		t.Errorf("Close left %v", got)
	}
}

func TestClosed(t *testing.T) {
	t.Parallel()
	n := netnstest.New(t, "gateway")
	b := bare(t, n)
	for range 2 {
		if err := b.Close(ctx(t), false); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	_, errCounters := b.Counters(ctx(t))
	_, errCounter := b.Counter(ctx(t), 1)
	_, errForwarded := b.Forwarded(ctx(t))
	_, errAudit := b.Audit(ctx(t), true)
	_, errEntries := b.Entries(ctx(t))
	for name, err := range map[string]error{
		"Entries": errEntries,
		"Apply":   b.Apply(ctx(t), nil, nil), "Replace": b.Replace(ctx(t), nil), "Configure": b.Configure(ctx(t), homenet.Facts()),
		"Counters": errCounters, "Counter": errCounter, "Forwarded": errForwarded, "Audit": errAudit,
	} {
		if !errors.Is(err, firewall.ErrClosed) {
			t.Errorf("%s: %v, want %v", name, err, firewall.ErrClosed)
		}
	}
	if got := tables(t, n); len(got) != 0 {
		t.Errorf("a closed backend wrote %v", got)
	}
}

// Somebody else's hand in our table is found and undone.
func TestAudit(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		foreign string
		full    bool
		want    string
	}{
		"nothing":            {"", true, ""},
		"all is flushed":     {"flush ruleset", false, "our table was gone"},
		"our table":          {"delete table inet portcullis", false, "our table was gone"},
		"our rules":          {"flush table inet portcullis", false, "our rules were changed"},
		"one chain":          {"flush chain inet portcullis own_ports", false, "our rules were changed"},
		"a rule of theirs":   {"insert rule inet portcullis allow_mapped accept", false, "our rules were changed"},
		"an interface":       {`delete element inet portcullis lan_ifaces { "lan0" }`, false, "our sets of interfaces and addresses were changed"},
		"another interface":  {`add element inet portcullis lan_ifaces { "wan0" }`, false, "our sets of interfaces and addresses were changed"},
		"a prefix":           {"add element inet portcullis lan_prefixes { 10.0.0.0/8 }", false, "our sets of interfaces and addresses were changed"},
		"a private network":  {"delete element inet portcullis inside { 10.0.0.0/8 }", false, "our sets of interfaces and addresses were changed"},
		"a mapping":          {"delete element inet portcullis mapped { udp . 5000 }", true, "our mappings were changed"},
		"its flows":          {"delete element inet portcullis mapped_flows { udp . 5000 . 192.168.1.10 . 6000 }", true, "our mappings were changed"},
		"one of theirs":      {"add element inet portcullis mapped { tcp . 22 : 192.168.1.10 . 22 }", true, "our mappings were changed"},
		"a pinhole":          {"delete element inet portcullis pinholes { 2001:db8:77::10 . udp . 6000 }", true, "our mappings were changed"},
		"J/one of theirs":    {"add element inet portcullis pinholes { 2001:db8:77::10 . tcp . 22 }", true, "our mappings were changed"},
		"the IPv6 WAN":       {`delete element inet portcullis wan6_ifaces { "wan0" }`, false, "our sets of interfaces and addresses were changed"},
		"a rule of theirs 6": {"insert rule inet portcullis allow_pinholes accept", false, "our rules were changed"},
		"a kept port":        {"delete element inet portcullis kept_ports { 192.168.1.10 . udp . 6000 }", true, "our mappings were changed"},
		"a table of theirs":  {"table inet theirs {\nchain x {\ntype filter hook forward priority 0; policy drop;\n}\n}", true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := netnstest.New(t, "gateway")
			b := open(t, n)
			both := []portmap.Mapping{homenet.Mapping(1, "udp 5000", homenet.Alice+":6000"), homenet.Pinhole(2, "udp", homenet.Alice6+":6000")}
			if err := b.Apply(ctx(t), both, nil); err != nil {
				t.Fatal(err)
			}
			rules := func() string { return run(t, n, "", "-s", "list", "table", "inet", "portcullis") }
			want, before := world(t, b), b.Repaired()
			skeleton, _, _ := strings.Cut(rules(), "map mapped ")
			if tc.foreign != "" {
				do(t, n, tc.foreign)
			}
			drift, err := b.Audit(ctx(t), tc.full)
			if err != nil || drift != tc.want {
				t.Errorf("found %q, %v; want %q", drift, err, tc.want)
			}
			if got := b.Repaired() - before; got != map[bool]uint64{true: 1}[tc.want != ""] {
				t.Errorf("%d repairs counted", got)
			}
			if diff := cmp.Diff(want, world(t, b)); diff != "" {
				t.Errorf("after the audit (-want +got):\n%s", diff)
			}
			if got, _, _ := strings.Cut(rules(), "map mapped "); got != skeleton {
				t.Errorf("after the audit:\n%s", cmp.Diff(skeleton, got))
			}
			if drift, err := b.Audit(ctx(t), true); err != nil || drift != "" {
				t.Errorf("the next audit found %q, %v", drift, err)
			}
		})
	}
}

func TestOpenWithoutCapability(t *testing.T) {
	t.Parallel()
	n := netnstest.New(t, "gateway")
	err := n.In(func() error { // a thread that ends with it
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&header, &data[0]); err != nil {
			return err
		}
		data[0].Effective &^= 1 << unix.CAP_NET_ADMIN
		if err := unix.Capset(&header, &data[0]); err != nil {
			return err
		}
		_, err := nft.Open(ctx(t), nft.Config{Log: quiet()})
		runtime.KeepAlive(&data)
		return err
	})
	if !errors.Is(err, firewall.ErrPermission) || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
		t.Errorf("Open: %v, want %v", err, firewall.ErrPermission)
	}
}

func TestOpenWithoutLogger(t *testing.T) {
	t.Parallel()
	if _, err := nft.Open(ctx(t), nft.Config{}); err == nil {
		t.Error("opened without a logger")
	}
}

// When the answer to a change is lost, one element tells what became of it, and
// nothing is written anew.
func TestLostAnswerIsLookedUp(t *testing.T) {
	t.Parallel()
	n := netnstest.New(t, "gateway")
	b := open(t, n)
	one, two := homenet.Mapping(1, "udp 5000", homenet.Alice+":6000"), homenet.Mapping(2, "udp 5001", homenet.Alice+":6001")
	moved := homenet.Mapping(1, "udp 5000", homenet.Bob+":6000")
	list := func(ms ...portmap.Mapping) []portmap.Mapping { return ms }
	for _, step := range []struct {
		what     string
		add, del []portmap.Mapping
	}{
		{"addition", list(one, two), nil},
		{"another target", list(moved), list(one)},
		{"removal", nil, list(two)},
		{"removal of the last", nil, list(moved)},
	} {
		b.Deafen()
		if err := b.Apply(ctx(t), step.add, step.del); err != nil {
			t.Errorf("%s: %v", step.what, err)
		}
		if got := b.Repaired(); got != 0 {
			t.Fatalf("%s: all was written anew", step.what)
		}
	}
	if got := world(t, b); got != "" {
		t.Errorf("the kernel holds\n%s", got)
	}
}

// A state too large for one transaction is written in parts. When a part of it is
// refused, nothing of it stays, and what was there before comes back.
func TestLargeChangeThatFails(t *testing.T) {
	t.Parallel()
	n := netnstest.New(t, "gateway")
	b := open(t, n, func(c *nft.Config) { c.Size, c.Buffer = 600, 24<<10 })
	if err := b.Replace(ctx(t), crowd(1000)); !errors.Is(err, firewall.ErrFull) {
		t.Errorf("the first Replace: %v, want %v", err, firewall.ErrFull)
	}
	if got := world(t, b); got != "" {
		t.Errorf("the kernel holds %d bytes of it", len(got))
	}
	if err := b.Replace(ctx(t), crowd(100)); err != nil {
		t.Fatal(err)
	}
	want := world(t, b)
	if err := b.Apply(ctx(t), crowd(1000), nil); !errors.Is(err, firewall.ErrFull) {
		t.Errorf("Apply: %v, want %v", err, firewall.ErrFull)
	}
	if diff := cmp.Diff(want, world(t, b)); diff != "" {
		t.Errorf("after Apply (-want +got):\n%s", diff)
	}
	if err := b.Replace(ctx(t), crowd(1000)); !errors.Is(err, firewall.ErrFull) {
		t.Errorf("Replace: %v, want %v", err, firewall.ErrFull)
	}
	if diff := cmp.Diff(want, world(t, b)); diff != "" {
		t.Errorf("after Replace (-want +got):\n%s", diff)
	}
	if drift, err := b.Audit(ctx(t), true); err != nil || drift != "" {
		t.Errorf("audit found %q, %v", drift, err)
	}
	if err := b.Replace(ctx(t), crowd(600)); err != nil {
		t.Errorf("what just fits: %v", err)
	}
}

// What the kernel lacks is named; this one lacks only what nobody has.
func TestFeatures(t *testing.T) {
	t.Parallel()
	n := netnstest.New(t, "gateway")
	b := bare(t, n)
	for name, err := range b.TryFeatures(ctx(t)) {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	err := b.TryNoSuchFeature(ctx(t))
	var missing *firewall.FeatureError
	if !errors.As(err, &missing) || !errors.Is(err, firewall.ErrUnsupported) || missing.Module != "xt_nosuch" {
		t.Errorf("a feature nobody has: %v", err)
	}
	if got := tables(t, n); len(got) != 0 {
		t.Errorf("trying left %v", got)
	}
}

// Renewals and removals from several goroutines, with readers beside them.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	n := netnstest.New(t, "gateway")
	b := open(t, n, func(c *nft.Config) { c.Log = quiet() })
	done := make(chan error)
	const workers = 4
	for w := range workers {
		go func() {
			var err error
			for i := range 20 {
				m := homenet.Mapping(uint64(w+1), "udp "+[]string{"5000", "5001", "5002", "5003"}[w], homenet.Alice+":6000")
				m.Expires = m.Expires.Add(time.Duration(i) * time.Second)
				err = errors.Join(err, b.Apply(ctx(t), []portmap.Mapping{m}, nil))
				_, errCounters := b.Counters(ctx(t))
				_, errForwarded := b.Forwarded(ctx(t))
				_, errAudit := b.Audit(ctx(t), false)
				err = errors.Join(err, errCounters, errForwarded, errAudit, b.Configure(ctx(t), homenet.Facts()))
				if i%5 == 4 {
					err = errors.Join(err, b.Apply(ctx(t), nil, []portmap.Mapping{m}))
				}
			}
			done <- err
		}()
	}
	for range workers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if got := world(t, b); got != "" {
		t.Errorf("the kernel holds\n%s", got)
	}
	if got := b.Repaired(); got != 0 {
		t.Errorf("%d repairs, where nobody interfered", got)
	}
}
