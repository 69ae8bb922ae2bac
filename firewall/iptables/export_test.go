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
