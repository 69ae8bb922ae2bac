package fwtest_test

import (
	"context"
	"errors"
	"testing"

	"portcullis/firewall"
	"portcullis/firewall/fwtest"
)

func TestFake(t *testing.T) {
	fwtest.Conformance(t, func(t *testing.T, capacity int) fwtest.Subject {
		f := &fwtest.Fake{}
		f.Limit(capacity)
		return fwtest.Subject{
			Firewall: f,
			Held:     func(*testing.T) []firewall.Entry { return f.Entries() },
			Wipe:     func(*testing.T) { f.Wipe() },
			Steal:    func(_ *testing.T, e firewall.Entry) { f.Steal(e) },
			Blind:    func(ctx context.Context) context.Context { return ctx },
		}
	})
}

func TestFakeFails(t *testing.T) {
	var f fwtest.Fake
	want := errors.New("no")
	f.Fail(want)
	if err := f.Apply(context.Background(), nil, nil); !errors.Is(err, want) {
		t.Errorf("first call: %v, want %v", err, want)
	}
	if err := f.Apply(context.Background(), nil, nil); err != nil {
		t.Errorf("second call: %v", err)
	}
	if f.Calls() != 2 {
		t.Errorf("%d calls, want 2", f.Calls())
	}
}
