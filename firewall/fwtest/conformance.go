package fwtest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"portcullis/firewall"
	"portcullis/portmap"
)

// Subject is a backend under test, alone with a kernel of its own.
type Subject struct {
	Firewall portmap.Firewall
	// Held reads back what the kernel holds, not what the backend remembers.
	// Expires is the end of the lease as the kernel will keep it.
	Held func(t *testing.T) []firewall.Entry
	// Wipe is somebody else who flushes the ruleset.
	Wipe func(t *testing.T)
	// Steal is somebody else who removes all that belongs to one entry.
	Steal func(t *testing.T, e firewall.Entry)
	// Blind has the kernel's answer to a change under the context that it returns be lost,
	// where one can be.
	Blind func(context.Context) context.Context
}

// Conformance runs the cases. open returns a fresh subject; with a capacity above
// zero it has room for that many mappings and no more. The cases run in
// parallel. sizes are how many mappings are written at once; none: around what fits
// a message, and 5000.
func Conformance(t *testing.T, open func(t *testing.T, capacity int) Subject, sizes ...int) {
	if len(sizes) == 0 {
		sizes = []int{1, 127, 128, 129, 5000}
	}
	for _, group := range []map[string]func(*run){basics, shapes, misfortunes, pinholes} {
		for name, f := range group {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				f(newRun(t, open(t, 0)))
			})
		}
	}
	for _, n := range sizes {
		t.Run(fmt.Sprintf("%d mappings", n), func(t *testing.T) {
			t.Parallel()
			r := newRun(t, open(t, 0))
			many(r, n, r.mapping)
		})
	}
	t.Run("258 mappings of both families", func(t *testing.T) {
		t.Parallel()
		r := newRun(t, open(t, 0))
		many(r, 258, r.either)
	})
	t.Run("C9/a change that fails leaves nothing", func(t *testing.T) {
		t.Parallel()
		full(newRun(t, open(t, 4)))
	})
}

// run is one case: a subject, and what it should hold.
type run struct {
	*testing.T
	Subject
	start time.Time
	want  *firewall.State
	late  time.Duration // that the longest change has taken: so much later its leases can end
}

func newRun(t *testing.T, s Subject) *run {
	return &run{T: t, Subject: s, start: time.Now(), want: firewall.NewState()}
}

// mapping makes mapping id: udp, external port 4000+id, for an hour.
func (r *run) mapping(id uint64, change ...func(*portmap.Mapping)) portmap.Mapping {
	m := portmap.Mapping{
		ID: id, Transport: portmap.UDP,
		ExternalPort: uint16(4000 + id),
		Internal:     netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 168, byte(id >> 8), byte(id)}), 5000),
		Created:      r.start.Add(time.Duration(id) * time.Millisecond), Expires: r.start.Add(time.Hour),
	}
	for _, c := range change {
		c(&m)
	}
	return m
}

// from restricts a mapping: "198.51.100.0/24", or with a source port
// "198.51.100.0/24 53".
func from(remotes ...string) func(*portmap.Mapping) {
	return func(m *portmap.Mapping) {
		m.Remotes = nil
		for _, text := range remotes {
			prefix, port, _ := strings.Cut(text, " ")
			r := portmap.Remote{Prefix: netip.MustParsePrefix(prefix)}
			if port != "" {
				fmt.Sscan(port, &r.Port)
			}
			m.Remotes = append(m.Remotes, r)
		}
	}
}

// refuses wants a mapping refused in every way, and nothing changed.
func (r *run) refuses(bad portmap.Mapping, want portmap.Reason) {
	r.Helper()
	errs := []error{r.Firewall.Apply(r.ctx(), list(r.mapping(9), bad), nil)}
	if want != portmap.PortTaken { // which depends on the others
		errs = append(errs, r.Firewall.Replace(r.ctx(), list(bad)))
	}
	for _, err := range errs {
		if portmap.ReasonOf(err) != want {
			r.Errorf("%s: %v, want %v", &bad, err, want)
		}
	}
	r.check()
}

func to(internal string) func(*portmap.Mapping) {
	return func(m *portmap.Mapping) { m.Internal = netip.MustParseAddrPort(internal) }
}

func at(port uint16) func(*portmap.Mapping) {
	return func(m *portmap.Mapping) { m.ExternalPort = port }
}

func (r *run) until(d time.Duration) func(*portmap.Mapping) {
	return func(m *portmap.Mapping) { m.Expires = r.start.Add(d) }
}

func forever(m *portmap.Mapping) { m.Expires = time.Time{} }

func disabled(m *portmap.Mapping) { m.Disabled = true }

func list(ms ...portmap.Mapping) []portmap.Mapping { return ms }

// expect notes what should be held after a change.
func (r *run) expect(add, del []portmap.Mapping) {
	r.Helper()
	c, err := r.want.Plan(add, del)
	if err != nil {
		r.Fatal(err)
	}
	r.want.Commit(c)
}

// apply must succeed, and leave what it says.
func (r *run) apply(add, del []portmap.Mapping) {
	r.Helper()
	r.applyUnder(r.ctx(), add, del)
}

func (r *run) applyUnder(ctx context.Context, add, del []portmap.Mapping) {
	r.Helper()
	began := time.Now()
	if err := r.Firewall.Apply(ctx, add, del); err != nil {
		r.Fatalf("Apply: %v", err)
	}
	r.late = max(r.late, time.Since(began))
	r.expect(add, del)
	r.check()
}

func (r *run) replaceUnder(ctx context.Context, want []portmap.Mapping) {
	r.Helper()
	began := time.Now()
	if err := r.Firewall.Replace(ctx, want); err != nil {
		r.Fatalf("Replace: %v", err)
	}
	r.late = max(r.late, time.Since(began))
	r.want = firewall.NewState()
	r.expect(want, nil)
	r.check()
}

// ctx bounds a call that hangs. How long one takes is measured elsewhere: 5,000
// mappings take the race detector half a minute on a busy machine.
func (r *run) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	r.Cleanup(cancel)
	return ctx
}

// slack is how far a lease may end from where it should. The kernel counts from when it is
// told, which is later than when we decide, by what the change takes at most; and what it
// has left is read before anybody looks at the clock.
const slack = 5 * time.Second

// check compares entries and leases.
func (r *run) check() {
	r.Helper()
	began := time.Now()
	held, want := r.Held(r.T), r.want.Entries()
	late := slack + r.late + time.Since(began)
	if diff := cmp.Diff(firewall.World(want), firewall.World(held)); diff != "" {
		r.Fatalf("the kernel holds (-want +got):\n%s", diff)
	}
	ends := make(map[firewall.Key]time.Time, len(want))
	for _, e := range want {
		ends[e.Key()] = e.Expires
	}
	for _, e := range held {
		end := ends[e.Key()]
		if end.IsZero() != e.Expires.IsZero() || end.Sub(e.Expires) > slack || e.Expires.Sub(end) > late {
			r.Fatalf("%s ends at %v, want %v; a change took %v", e, e.Expires, end, r.late)
		}
	}
}

var basics = map[string]func(*run){
	"add, delete": func(r *run) {
		r.apply(list(r.mapping(1)), nil)
		r.apply(nil, list(r.mapping(1)))
	},
	"apply twice": func(r *run) {
		r.apply(list(r.mapping(1), r.mapping(2)), nil)
		r.apply(list(r.mapping(1), r.mapping(2)), nil)
		r.apply(nil, list(r.mapping(1)))
		r.apply(nil, list(r.mapping(1)))
	},
	"delete unknown": func(r *run) {
		r.apply(nil, list(r.mapping(9)))
		r.apply(list(r.mapping(1)), list(r.mapping(9)))
	},
	"nothing": func(r *run) {
		r.apply(nil, nil)
	},
	"renew": func(r *run) {
		r.apply(list(r.mapping(1)), nil)
		r.apply(list(r.mapping(1, r.until(2*time.Hour))), list(r.mapping(1)))
		r.apply(list(r.mapping(1, r.until(time.Minute))), nil)
		r.apply(list(r.mapping(1, forever)), list(r.mapping(1)))
		r.apply(list(r.mapping(1)), list(r.mapping(1)))
	},
	"a lease that is over": func(r *run) {
		// Its end is no more than a minute late; it must not become endless.
		r.apply(list(r.mapping(1, r.until(-30*time.Second))), nil)
	},
	"another target, another port": func(r *run) {
		r.apply(list(r.mapping(1)), nil)
		r.apply(list(r.mapping(1, to("192.168.0.77:9"))), list(r.mapping(1)))
		r.apply(list(r.mapping(1, at(7777))), list(r.mapping(1)))
	},
	"two ports swap": func(r *run) {
		r.apply(list(r.mapping(1), r.mapping(2)), nil)
		r.apply(list(r.mapping(1, at(4002)), r.mapping(2, at(4001))), list(r.mapping(1), r.mapping(2)))
	},
	"take over in one change": func(r *run) {
		r.apply(list(r.mapping(1)), nil)
		r.apply(list(r.mapping(2, at(4001))), list(r.mapping(1)))
	},
	"replace": func(r *run) {
		r.replaceUnder(r.ctx(), list(r.mapping(1), r.mapping(2)))
		r.replaceUnder(r.ctx(), list(r.mapping(2, to("192.168.0.77:9")), r.mapping(3)))
		r.replaceUnder(r.ctx(), list(r.mapping(2), r.mapping(3)))
		r.apply(list(r.mapping(4)), list(r.mapping(2)))
	},
	"replace to empty": func(r *run) {
		r.apply(list(r.mapping(1), r.mapping(2)), nil)
		r.replaceUnder(r.ctx(), nil)
		r.apply(list(r.mapping(1)), nil)
	},
}

var shapes = map[string]func(*run){
	"tcp and udp": func(r *run) {
		tcp := r.mapping(2, at(4001), func(m *portmap.Mapping) { m.Transport = portmap.TCP })
		r.apply(list(r.mapping(1), tcp), nil)
		r.apply(nil, list(r.mapping(1)))
	},
	"one endpoint behind two ports": func(r *run) {
		one, two := r.mapping(1, to("192.168.0.9:80")), r.mapping(2, to("192.168.0.9:80"), r.until(2*time.Hour))
		r.apply(list(two), nil)
		r.apply(list(one), nil)
		r.apply(nil, list(one))
		r.apply(list(one), list(two))
	},
	"B10/remote host": func(r *run) {
		one := r.mapping(1, from("198.51.100.7/32"))
		r.apply(list(one), nil)
		r.apply(list(r.mapping(1, from("198.51.100.8/32"))), list(one))
		r.apply(list(r.mapping(1)), nil)
		r.apply(nil, list(r.mapping(1)))
	},
	"several remotes share a port": func(r *run) {
		anyone := r.mapping(1, at(4000))
		x := r.mapping(2, at(4000), from("198.51.100.7/32"))
		y := r.mapping(3, at(4000), from("198.51.100.8/32"))
		r.apply(list(anyone, x, y), nil)
		r.apply(nil, list(x))
		r.apply(list(x), list(anyone))
	},
	"B10/restrictions that cannot be kept": func(r *run) {
		r.apply(list(r.mapping(1)), nil)
		bad := []portmap.Mapping{
			r.mapping(2, from("2001:db8::/64")), r.mapping(2, from("198.51.100.7/24")),
			r.mapping(2, from("198.51.100.0/24", "198.51.101.0/24", "198.51.102.0/24", "198.51.103.0/24", "198.51.104.0/24",
				"198.51.105.0/24", "198.51.106.0/24", "198.51.107.0/24", "198.51.108.0/24")),
		}
		for i, want := range []portmap.Reason{portmap.BadRemote, portmap.BadRemote, portmap.TooManyRemotes} {
			r.refuses(bad[i], want)
		}
	},
	"B10/networks and source ports": func(r *run) {
		one := r.mapping(1, from("198.51.100.0/24"))
		r.apply(list(one), nil)
		r.apply(list(r.mapping(1, from("198.51.100.0/24 53"))), list(one))
		many := r.mapping(1, from("198.51.100.0/24", "198.51.0.0/16 53", "192.0.2.1/32", "192.0.2.2/32 53", "0.0.0.0/0 123"))
		r.apply(list(many), nil)
		r.apply(list(r.mapping(1, from("192.0.2.1/32"))), nil)
		r.apply(list(many), nil)
		many.Expires = many.Expires.Add(time.Hour)
		r.apply(list(many), nil)
		r.apply(list(r.mapping(1)), list(many))
		r.apply(list(many, r.mapping(2, func(m *portmap.Mapping) { m.Transport = portmap.TCP }, from("198.51.100.0/24"))), nil)
		r.replaceUnder(r.ctx(), list(many, r.mapping(3)))
		r.apply(nil, list(many))
	},
	"B10/restrictions that overlap": func(r *run) {
		wide := r.mapping(1, at(4000), from("198.51.0.0/16 53"))
		r.apply(list(wide, r.mapping(3, at(4000)), r.mapping(4, at(4000), from("198.51.100.7/32"))), nil)
		r.refuses(r.mapping(2, at(4000), from("198.51.100.0/24")), portmap.PortTaken)
		r.apply(list(r.mapping(2, at(4000), from("198.51.100.0/24 54"))), nil)
		r.apply(list(r.mapping(2, at(4001), from("198.51.100.0/24"))), nil)
		r.apply(list(r.mapping(2, at(4000), from("198.51.100.0/24"))), list(wide))
		r.refuses(wide, portmap.PortTaken)
	},
	"B11/disabled": func(r *run) {
		r.apply(list(r.mapping(1, disabled)), nil)
		r.apply(list(r.mapping(1)), list(r.mapping(1, disabled)))
		r.apply(list(r.mapping(1, disabled)), list(r.mapping(1)))
		r.replaceUnder(r.ctx(), list(r.mapping(1, disabled), r.mapping(2)))
	},
}

var misfortunes = map[string]func(*run){
	"K3/somebody flushes, then add": func(r *run) {
		r.apply(list(r.mapping(1), r.mapping(2)), nil)
		r.Wipe(r.T)
		r.apply(list(r.mapping(3)), nil)
	},
	"K3/somebody flushes, then delete": func(r *run) {
		r.apply(list(r.mapping(1), r.mapping(2)), nil)
		r.Wipe(r.T)
		r.apply(nil, list(r.mapping(1)))
	},
	"K3/somebody flushes, then renew": func(r *run) {
		r.apply(list(r.mapping(1), r.mapping(2)), nil)
		r.Wipe(r.T)
		r.apply(list(r.mapping(1, r.until(2*time.Hour))), list(r.mapping(1)))
	},
	"K3/somebody flushes, then replace": func(r *run) {
		r.apply(list(r.mapping(1), r.mapping(2)), nil)
		r.Wipe(r.T)
		r.replaceUnder(r.ctx(), list(r.mapping(2), r.mapping(3)))
	},
	"K3/an element is taken, then renewed": func(r *run) {
		r.apply(list(r.mapping(1), r.mapping(2)), nil)
		r.steal(r.mapping(1))
		r.apply(list(r.mapping(1, r.until(2*time.Hour))), list(r.mapping(1)))
	},
	"K3/an element is taken, then deleted": func(r *run) {
		r.apply(list(r.mapping(1), r.mapping(2)), nil)
		r.steal(r.mapping(1))
		r.apply(nil, list(r.mapping(1)))
	},
	"the outcome of an addition is lost": func(r *run) {
		r.apply(list(r.mapping(1)), nil)
		r.applyUnder(r.Blind(r.ctx()), list(r.mapping(2)), nil)
		r.apply(nil, list(r.mapping(2)))
	},
	"the outcome of a removal is lost": func(r *run) {
		r.apply(list(r.mapping(1), r.mapping(2)), nil)
		r.applyUnder(r.Blind(r.ctx()), nil, list(r.mapping(2)))
		r.apply(list(r.mapping(2)), nil)
	},
	"the outcome of a renewal is lost": func(r *run) {
		r.apply(list(r.mapping(1)), nil)
		r.applyUnder(r.Blind(r.ctx()), list(r.mapping(1, r.until(2*time.Hour))), list(r.mapping(1)))
		r.apply(list(r.mapping(1)), nil)
	},
	"the outcome of another target is lost": func(r *run) {
		r.apply(list(r.mapping(1)), nil)
		r.applyUnder(r.Blind(r.ctx()), list(r.mapping(1, to("192.168.0.77:9"))), list(r.mapping(1)))
		r.apply(list(r.mapping(1)), nil)
	},
	"the outcome of a replacement is lost": func(r *run) {
		r.apply(list(r.mapping(1)), nil)
		r.replaceUnder(r.Blind(r.ctx()), list(r.mapping(2), r.mapping(3)))
	},
	"a context that is over changes nothing": func(r *run) {
		r.apply(list(r.mapping(1)), nil)
		ctx, cancel := context.WithCancel(r.ctx())
		cancel()
		if err := r.Firewall.Apply(ctx, list(r.mapping(2)), list(r.mapping(1))); !errors.Is(err, context.Canceled) {
			r.Errorf("Apply: %v, want %v", err, context.Canceled)
		}
		if err := r.Firewall.Replace(ctx, nil); !errors.Is(err, context.Canceled) {
			r.Errorf("Replace: %v, want %v", err, context.Canceled)
		}
		r.check()
		r.apply(list(r.mapping(2)), nil)
	},
}

// steal takes all entries of a mapping.
func (r *run) steal(m portmap.Mapping) {
	r.Helper()
	for _, e := range r.want.Entries() {
		if e.Internal == m.Internal && (e.Kind == firewall.Pin || e.External == m.ExternalPort) {
			r.Steal(r.T, e)
		}
	}
}

// many adds n mappings at once, renews some, replaces all, and removes them.
func many(r *run, n int, one func(uint64, ...func(*portmap.Mapping)) portmap.Mapping) {
	all := make([]portmap.Mapping, n)
	for i := range all {
		all[i] = one(uint64(i + 1))
	}
	r.apply(all, nil)
	half := make([]portmap.Mapping, 0, n)
	for i := 0; i < n; i += 2 {
		half = append(half, one(uint64(i+1), r.until(2*time.Hour)))
	}
	r.apply(half, half)
	r.replaceUnder(r.ctx(), all)
	r.apply(nil, all)
}

// full asks for more than there is room for.
func full(r *run) {
	r.apply(list(r.mapping(1), r.mapping(2), r.mapping(3)), nil)
	err := r.Firewall.Apply(r.ctx(), list(r.mapping(4), r.mapping(5), r.mapping(6)), list(r.mapping(1)))
	if !errors.Is(err, firewall.ErrFull) {
		r.Errorf("Apply: %v, want %v", err, firewall.ErrFull)
	}
	r.check()
	err = r.Firewall.Replace(r.ctx(), list(r.mapping(4), r.mapping(5), r.mapping(6), r.mapping(7), r.mapping(8)))
	if !errors.Is(err, firewall.ErrFull) {
		r.Errorf("Replace: %v, want %v", err, firewall.ErrFull)
	}
	r.check()
	r.apply(list(r.mapping(4)), list(r.mapping(1)))
}
