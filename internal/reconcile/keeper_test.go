package reconcile_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/firewall"
	"portcullis/internal/reconcile"
	"portcullis/internal/slog"
)

// rules is a ruleset whose looks come out as they are told to; the last one stays.
type rules struct {
	mu      sync.Mutex // guards what follows
	looks   []look     // outcomes to come
	full    []bool     // of each look that was taken
	at      []time.Time
	changes int      // that Changed was told of
	settled []int    // how many looks had been taken each time that they had settled
	drifted []string // what Drifted was told
	log     bytes.Buffer
	broken  error // ends the watch

	changed chan firewall.Intrusion // what another program does
	*reconcile.Keeper
}

type look struct {
	drift string
	err   error
}

func (r *rules) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.Write(b)
}

func (r *rules) audit(_ context.Context, full bool) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.full, r.at = append(r.full, full), append(r.at, time.Now())
	now := r.looks[0]
	if len(r.looks) > 1 {
		r.looks = r.looks[1:]
	}
	return now.drift, now.err
}

func (r *rules) watch(ctx context.Context, changed func(firewall.Intrusion)) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case i := <-r.changed:
			if i.Program == "broken" {
				return r.broken
			}
			changed(i)
		}
	}
}

// start runs a Keeper within a bubble of time.
func start(t *testing.T, looks ...look) *rules {
	t.Helper()
	r := &rules{looks: looks, changed: make(chan firewall.Intrusion), broken: errors.New("broken")}
	r.Keeper = reconcile.New(reconcile.Config{
		Log:   slog.New(slog.NewTextHandler(r, nil)),
		Watch: r.watch,
		Changed: func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.changes++
		},
		Settled: func(context.Context) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.settled = append(r.settled, len(r.at))
		},
		Audits: []func(context.Context, bool) (string, error){
			r.audit, func(context.Context, bool) (string, error) { return "", nil },
		},
		Drifted: func(drift string) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.drifted = append(r.drifted, drift)
		},
	})
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = r.Run(ctx) })
	t.Cleanup(func() {
		stop()
		running.Wait()
	})
	synctest.Wait()
	return r
}

// levels returns the levels of the lines that the owner read.
func (r *rules) levels() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for line := range strings.Lines(r.log.String()) {
		_, level, _ := strings.Cut(line, "level=")
		level, _, _ = strings.Cut(level, " ")
		all = append(all, level)
	}
	return strings.Join(all, " ")
}

func (r *rules) taken() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.full)
}

// passes lets time pass.
func passes(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// TestLooksAgain: a look at the rules that came to nothing is taken again, in full
// where it was, and the owner hears of it when the third in a row did; of rules that
// only change too fast it is no alarm.
func TestLooksAgain(t *testing.T) {
	changing := look{err: fmt.Errorf("nft audit: %w", firewall.ErrChanging)}
	broken := look{err: errors.New("broken")}
	for name, tc := range map[string]struct {
		looks []look
		want  string // levels of the lines that are told
	}{
		"changes once":     {[]look{changing, {}}, ""},
		"changes for long": {[]look{changing, changing, changing, changing, {}}, "WARN INFO"},
		"a reload":         {[]look{broken, broken, {}}, ""},
		"stays broken":     {[]look{broken}, "ERROR"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := start(t, tc.looks...)
				r.changed <- firewall.Intrusion{Ours: true}
				passes(59 * time.Second)
				if got := r.levels(); got != tc.want {
					t.Errorf("told %q, want %q:\n%s", got, tc.want, &r.log)
				}
				if n := r.taken(); n < len(tc.looks) || n > 12 {
					t.Errorf("looked %d times", n)
				}
				for i := range min(r.taken(), len(tc.looks)) {
					if !r.full[i] && tc.looks[i].err != nil {
						t.Errorf("look %d was not in full", i+1)
					}
				}
			})
		})
	}
}

// TestSettles: a reload of many transactions is looked at once, a moment after its end,
// and one without an end after half a second; only then is it told that they have
// settled, which reads other programs' rules. Without any change there is a look a minute.
func TestSettles(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, look{})
		for range 4 {
			r.changed <- firewall.Intrusion{}
			passes(90 * time.Millisecond)
		}
		if n := r.taken(); n != 0 {
			t.Errorf("looked %d times within the reload", n)
		}
		passes(20 * time.Millisecond)
		if n := r.taken(); n != 1 || r.changes != 4 || !slices.Equal(r.settled, []int{1}) {
			t.Errorf("looked %d times after the reload, told of %d changes, settled after these looks: %d", n, r.changes, r.settled)
		}
		began := time.Now()
		for r.taken() == 1 && time.Since(began) < time.Minute {
			r.changed <- firewall.Intrusion{}
			passes(50 * time.Millisecond)
		}
		if d := time.Since(began); d > 600*time.Millisecond {
			t.Errorf("looked after %v of changes without an end", d)
		}
		passes(time.Second)
		n := r.taken()
		passes(3 * time.Minute)
		if more := r.taken() - n; more != 3 {
			t.Errorf("looked %d times in three quiet minutes", more)
		}
	})
}

// TestNoFight: L9. Against a program that undoes every repair there are six, and then one
// in ten seconds; the owner hears of each and, once, of the program.
func TestNoFight(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, look{drift: "all gone"})
		for range 600 {
			select {
			case r.changed <- firewall.Intrusion{Program: "fw", Ours: true}:
			default:
			}
			passes(200 * time.Millisecond)
		}
		if n := len(r.drifted); n < 10 || n > 6+12 {
			t.Errorf("repaired %d times in two minutes", n)
		}
		if n := strings.Count(r.log.String(), "level=ERROR"); n != 1 || !strings.Contains(r.log.String(), "program=fw") {
			t.Errorf("told %d times of the program:\n%s", n, &r.log)
		}
	})
}

// TestWaitsForChain: an accept chain that is not there is waited for, with a line a
// minute, and is no failure.
func TestWaitsForChain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, look{err: fmt.Errorf("nft: %w", &firewall.ChainError{})})
		passes(5*time.Minute + time.Second)
		if got := r.levels(); got != "WARN WARN WARN WARN WARN" {
			t.Errorf("told %s", got)
		}
		if n := r.taken(); n != 5 {
			t.Errorf("looked %d times", n)
		}
	})
}

// TestChainReloads: an accept chain that is away while its firewall is loaded again is
// news only when three looks have not found it.
func TestChainReloads(t *testing.T) {
	missing := look{err: fmt.Errorf("nft: %w", &firewall.ChainError{})}
	for name, tc := range map[string]struct {
		looks []look
		want  string
	}{
		"a moment":       {[]look{{}, missing, {drift: "our part was missing"}, {}}, "WARN"}, // repaired
		"two looks":      {[]look{{}, missing, missing, {}}, ""},
		"three looks":    {[]look{{}, missing, missing, missing, {}}, "WARN INFO"},
		"twice a moment": {[]look{{}, missing, missing, {}, missing, missing, {}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := start(t, tc.looks...)
				for range 2 { // there, and then not
					r.changed <- firewall.Intrusion{}
					passes(200 * time.Millisecond)
				}
				passes(50 * time.Second)
				r.changed <- firewall.Intrusion{}
				passes(9 * time.Second)
				if got := r.levels(); got != tc.want {
					t.Errorf("told %q, want %q:\n%s", got, tc.want, &r.log)
				}
			})
		})
	}
}

// TestWatchFails: a watch that ends is begun again.
func TestWatchFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, look{})
		r.changed <- firewall.Intrusion{Program: "broken"}
		passes(2 * time.Second)
		r.changed <- firewall.Intrusion{}
		passes(time.Second)
		if n := r.taken(); n != 1 || r.levels() != "WARN" {
			t.Errorf("looked %d times, told %q", n, r.levels())
		}
	})
}

// TestSuspect: who finds that something does not work has the rules looked at.
func TestSuspect(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, look{})
		for range 10 {
			r.Suspect()
		}
		passes(time.Second)
		if n := r.taken(); n != 1 || r.full[0] {
			t.Errorf("looked %d times, in full: %v", n, r.full)
		}
	})
}
