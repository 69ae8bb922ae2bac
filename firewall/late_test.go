package firewall_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/firewall"
	"portcullis/portmap"
)

// lasting returns a mapping whose lease ends so long from now.
func lasting(t *testing.T, text string, lease time.Duration) portmap.Mapping {
	m := mapping(t, text)
	m.Expires = time.Now().Add(lease)
	return m
}

// renewing is a driver on a kernel that gives elements another end, with two mappings to one
// endpoint whose leases have an hour left, and a pinhole's.
func renewing(t *testing.T) (*spy, *firewall.Driver, []portmap.Mapping) {
	t.Helper()
	k := &spy{retimes: true}
	d := drive(k)
	all := []portmap.Mapping{
		lasting(t, "1 udp 5000 -> 10.0.0.2:5000", time.Hour), lasting(t, "2 udp 5001 -> 10.0.0.2:5000", time.Hour),
		lasting(t, "3 udp pin -> [2001:db8::2]:5000", time.Hour),
	}
	if err := errors.Join(d.Prepare(facts), d.Replace(t.Context(), all)); err != nil {
		t.Fatal(err)
	}
	k.calls = nil
	return k, d, all
}

func later(all []portmap.Mapping, by time.Duration) []portmap.Mapping {
	var out []portmap.Mapping
	for _, m := range all {
		m.Expires = m.Expires.Add(by)
		out = append(out, m)
	}
	return out
}

// TestDriverTellsLater: of longer leases the kernel hears once in a second, whatever is
// renewed how often, and the last is what it hears.
func TestDriverTellsLater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k, d, all := renewing(t)
		k.ends = make(map[string]time.Time)
		for n := range 10 {
			if err := d.Apply(t.Context(), later(all, time.Duration(n+1)*time.Minute), nil); err != nil {
				t.Fatal(err)
			}
		}
		renewals := fmt.Sprintf("%s\n", "flows: 0 gone, 0 new")
		for range 9 {
			renewals += "flows: 0 gone, 0 new\n"
		}
		k.wants(t, "the renewals", renewals)
		time.Sleep(time.Second)
		synctest.Wait()
		k.wants(t, "a second later", "write: -0 +0 ~6")
		for entry, end := range k.ends {
			if want := all[0].Expires.Add(10 * time.Minute); !end.Equal(want) {
				t.Errorf("%s ends at %v, want %v", entry, end, want)
			}
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		k.wants(t, "an hour later", "")
		if err := d.Close(t.Context(), true); err != nil {
			t.Error(err)
		}
	})
}

// TestDriverTellsAtOnce: what closes anything, and what must not wait, does not.
func TestDriverTellsAtOnce(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change  func(t *testing.T, k *spy, d *firewall.Driver, all []portmap.Mapping) error
		want    string
		settles string // a minute later
	}{
		"a shorter lease": {
			change: func(t *testing.T, _ *spy, d *firewall.Driver, all []portmap.Mapping) error {
				return d.Apply(t.Context(), later(all[:1], -time.Minute), nil)
			},
			want: "write: -0 +0 ~3\nflows: 0 gone, 0 new",
		},
		"one that had ended": {
			change: func(t *testing.T, _ *spy, d *firewall.Driver, all []portmap.Mapping) error {
				time.Sleep(time.Hour)
				return d.Apply(t.Context(), later(all[2:], time.Hour), nil)
			},
			want: "write: -0 +0 ~1\nflows: 0 gone, 0 new",
		},
		"a renewal beside a new mapping": {
			change: func(t *testing.T, _ *spy, d *firewall.Driver, all []portmap.Mapping) error {
				return d.Apply(t.Context(), append(later(all[2:], time.Hour), lasting(t, "4 udp 5004 -> 10.0.0.4:5000", time.Hour)), nil)
			},
			want: "read counters of: 1\nwrite: -0 +3 ~1\nflows: 0 gone, 1 new",
		},
		"a renewed mapping that is removed": {
			change: func(t *testing.T, _ *spy, d *firewall.Driver, all []portmap.Mapping) error {
				return errors.Join(d.Apply(t.Context(), later(all[2:], time.Hour), nil), d.Apply(t.Context(), nil, all[2:]))
			},
			want: "flows: 0 gone, 0 new\nwrite: -1 +0 ~0\nflows: 1 gone, 0 new",
		},
		"who reads what the kernel holds": {
			change: func(t *testing.T, _ *spy, d *firewall.Driver, all []portmap.Mapping) error {
				_, err := d.Entries(t.Context())
				return errors.Join(err, d.Apply(t.Context(), later(all[2:], time.Hour), nil), func() error { _, err := d.Entries(t.Context()); return err }())
			},
			want: "read entries\nflows: 0 gone, 0 new\nwrite: -0 +0 ~1\nread entries",
		},
		"the end of a run that leaves them": {
			change: func(t *testing.T, _ *spy, d *firewall.Driver, all []portmap.Mapping) error {
				return errors.Join(d.Apply(t.Context(), later(all[2:], time.Hour), nil), d.Close(t.Context(), true))
			},
			want: "flows: 0 gone, 0 new\nwrite: -0 +0 ~1\nflows end: 0",
		},
		"the end of one that does not": {
			change: func(t *testing.T, _ *spy, d *firewall.Driver, all []portmap.Mapping) error {
				return errors.Join(d.Apply(t.Context(), later(all[2:], time.Hour), nil), d.Close(t.Context(), false))
			},
			want: "flows: 0 gone, 0 new\nremove\nflows end: 3",
		},
		"all is written anew": {
			change: func(t *testing.T, _ *spy, d *firewall.Driver, all []portmap.Mapping) error {
				return errors.Join(d.Apply(t.Context(), later(all[2:], time.Hour), nil), d.Replace(t.Context(), all))
			},
			want: "flows: 0 gone, 0 new\nread counters: quick true\nrewrite: 6\nflows: 0 gone, 0 new\nrewrite owners: 3",
		},
		"nobody knows what became of it": {
			change: func(t *testing.T, k *spy, d *firewall.Driver, all []portmap.Mapping) error {
				k.answers = map[string][]error{"write": {firewall.ErrUnknown}}
				err := d.Apply(t.Context(), later(all[2:], time.Hour), nil)
				time.Sleep(time.Second)
				synctest.Wait()
				return err
			},
			want: "flows: 0 gone, 0 new\nwrite: -0 +0 ~1", settles: "rewrite: 6",
		},
		"something lacks in the owner's tables": {
			change: func(t *testing.T, k *spy, d *firewall.Driver, all []portmap.Mapping) error {
				k.lacking = true
				err := d.Apply(t.Context(), later(all[2:], time.Hour), nil)
				time.Sleep(time.Second)
				synctest.Wait()
				return err
			},
			want: "flows: 0 gone, 0 new\nwrite: -0 +0 ~1\nrewrite owners: 3",
		},
		"the kernel refuses, and then nothing waits": {
			change: func(t *testing.T, k *spy, d *firewall.Driver, all []portmap.Mapping) error {
				k.answers = map[string][]error{"write": {errors.New("refused")}}
				err := d.Apply(t.Context(), later(all[2:], time.Hour), nil)
				time.Sleep(time.Second)
				synctest.Wait()
				return errors.Join(err, d.Apply(t.Context(), later(all[2:], 2*time.Hour), nil))
			},
			want:    "flows: 0 gone, 0 new\nwrite: -0 +0 ~1\nwrite: -0 +0 ~1\nflows: 0 gone, 0 new",
			settles: "write: -0 +0 ~1",
		},
		"the kernel refuses, then all is written anew, and renewals wait again": {
			change: func(t *testing.T, k *spy, d *firewall.Driver, all []portmap.Mapping) error {
				k.answers = map[string][]error{"write": {errors.New("refused")}}
				err := d.Apply(t.Context(), later(all[2:], time.Hour), nil)
				time.Sleep(time.Second)
				synctest.Wait()
				err = errors.Join(err, d.Replace(t.Context(), later(all, time.Hour)))
				time.Sleep(time.Minute)
				synctest.Wait()
				return errors.Join(err, d.Apply(t.Context(), later(all[2:], 2*time.Hour), nil))
			},
			want: "flows: 0 gone, 0 new\nwrite: -0 +0 ~1\nread counters: quick true\nrewrite: 6\nflows: 0 gone, 0 new\nrewrite owners: 3\n" +
				"flows: 0 gone, 0 new",
			settles: "write: -0 +0 ~1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				k, d, all := renewing(t)
				if err := c.change(t, k, d, all); err != nil {
					t.Error(err)
				}
				k.wants(t, "the change", c.want)
				time.Sleep(time.Minute)
				synctest.Wait()
				k.wants(t, "a minute later", c.settles)
			})
		})
	}
}

// TestDriverTellsMany: what is renewed at once is told in transactions of a bounded size.
func TestDriverTellsMany(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := &spy{retimes: true}
		d := drive(k)
		var all []portmap.Mapping
		for n := range 150 {
			all = append(all, lasting(t, fmt.Sprintf("%d udp %d -> 10.0.0.2:%d", n+1, 5000+n, 5000+n), time.Hour))
		}
		if err := d.Replace(t.Context(), all); err != nil {
			t.Fatal(err)
		}
		k.calls = nil
		if err := d.Apply(t.Context(), later(all, time.Hour), nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		k.wants(t, "a minute later", "flows: 0 gone, 0 new\nwrite: -0 +0 ~192\nwrite: -0 +0 ~192\nwrite: -0 +0 ~66")
	})
}
