package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/firewall"
	"portcullis/internal/wiring"
)

// looked is a backend whose looks come out as they are told to; the last one stays.
type looked struct {
	wiring.Backend
	full []bool
	errs []error
}

func (l *looked) Audit(_ context.Context, full bool) (string, error) {
	l.full = append(l.full, full)
	err := l.errs[0]
	if len(l.errs) > 1 {
		l.errs = l.errs[1:]
	}
	return "", err
}

func (l *looked) Watch(ctx context.Context, _ func(firewall.Intrusion)) error {
	<-ctx.Done()
	return ctx.Err()
}

// TestLooksAgain: a look at the rules that came to nothing is taken again, in full
// where it was, and the owner hears of it when the third in a row did; of rules that
// only change too fast it is no alarm.
func TestLooksAgain(t *testing.T) {
	changing := fmt.Errorf("nft audit: %w", firewall.ErrChanging)
	broken := errors.New("broken")
	for name, tc := range map[string]struct {
		errs []error
		want string // levels of the lines that are told
	}{
		"changes once":     {[]error{changing, nil}, ""},
		"changes for long": {[]error{changing, changing, changing, changing, nil}, "WARN INFO"},
		"a reload":         {[]error{broken, broken, nil}, ""},
		"stays broken":     {[]error{broken}, "ERROR"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				rules := &looked{errs: tc.errs}
				k := newDriftKeeper(&gate{firewall: rules, network: (&machine{}).gateway(), log: slog.New(slog.NewTextHandler(&log, nil))})
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- k.run(ctx) }()
				k.note(firewall.Intrusion{Ours: true})
				time.Sleep(auditEvery - time.Second)
				cancel()
				<-done
				var levels []string
				for line := range strings.Lines(log.String()) {
					_, level, _ := strings.Cut(line, "level=")
					level, _, _ = strings.Cut(level, " ")
					levels = append(levels, level)
				}
				if got := strings.Join(levels, " "); got != tc.want {
					t.Errorf("told %q, want %q:\n%s", got, tc.want, &log)
				}
				if n := len(rules.full); n < len(tc.errs) || n > 12 {
					t.Errorf("looked %d times", n)
				}
				for i := range min(len(rules.full), len(tc.errs)) {
					if !rules.full[i] && tc.errs[i] != nil {
						t.Errorf("look %d was not in full", i+1)
					}
				}
			})
		})
	}
}
