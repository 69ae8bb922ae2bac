package iptables

import (
	"context"
	"errors"

	"portcullis/internal/inotify"
)

// HearLock returns when the lock has told of what change does.
func HearLock(ctx context.Context, change func()) error {
	w, err := inotify.New(nil)
	if err != nil {
		return err
	}
	defer w.Close()
	if !watchLocks(w) {
		return errors.New("there is no lock to watch")
	}
	change()
	select {
	case <-w.Told:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Sum returns the sum of a table of iptables-legacy, "" or "6".
func Sum(netns int, v, table string) (uint64, error) {
	p := &programs{netns: netns, flavour: legacy}
	if v == "6" {
		p.family = six
	}
	return p.sum(table)
}

// Forget sets the counters of entries to 0, and returns an error where they are none.
func Forget(v string, all []byte) error {
	e := entries[four]
	if v == "6" {
		e = entries[six]
	}
	return forget(all, e)
}
