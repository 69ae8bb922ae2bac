package leasefile

import (
	"context"
	"time"
)

// Turn is what Run does when it is due.
func (k *Keeper) Turn(ctx context.Context, now time.Time) time.Duration {
	return k.turn(ctx, now, true)
}

// Dirty has the next turn write.
func (k *Keeper) Dirty() { k.dirty = true }

// NextBoot takes this run of the machine for another one.
func (k *Keeper) NextBoot(id string) { k.boot = id }

// Replace is replace where was is what is there now, and meanwhile is done before the names
// are exchanged.
func Replace(path string, data []byte, meanwhile func()) error {
	was, err := stampOf(path)
	if err != nil {
		return err
	}
	_, err = replace(path, data, was, func(stamp) error { meanwhile(); return nil })
	return err
}

// The bounds, and what a copy begins with.
const (
	MaxFile = maxFile
	Header  = header
)

// BootID is bootID.
func BootID() string { return bootID() }

// ErrTaken is errTaken.
var ErrTaken = errTaken
