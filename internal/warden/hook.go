package warden

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"portcullis/config"
	"portcullis/internal/control"
	"portcullis/internal/hook"
	"portcullis/internal/json"
	"portcullis/portmap"
)

// startHook starts the process that starts the owner's program, where he has one. One that
// cannot be does not keep the gateway from working.
func (w *Warden) startHook() {
	command := w.cfg.Hook.Command
	if len(command) == 0 {
		return
	}
	var err error
	if _, err = os.Stat(command[0]); err == nil {
		w.hook, err = hook.Start(hook.Config{Log: w.log, Command: command})
	}
	if err != nil {
		w.hookFailed = err
		w.log.Error("hook is not started", "err", err)
	}
}

// runHook tells it of events, until ctx ends.
func (w *Warden) runHook(ctx context.Context) error {
	watcher := w.engine.Watch(256)
	defer watcher.Close()
	wanted := w.cfg.Hook.Events
	if len(wanted) == 0 {
		wanted = []config.HookEvent{config.HookEvent(portmap.Pending.String())}
	}
	room := newBells()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case ev, open := <-watcher.C:
			if !open {
				return ctx.Err()
			}
			if ev.Type == portmap.Resync {
				w.hook.Miss()
			} else if slices.Contains(wanted, config.HookEvent(ev.Type.String())) {
				w.tellHook(&ev, room)
			}
		}
	}
}

func (w *Warden) tellHook(ev *portmap.Event, room *bells) {
	if ev.Type == portmap.Pending {
		id, missed := w.approvals.Announce(ev, func() bool { return room.ring(&ev.Client, time.Now()) })
		if missed {
			w.hook.Miss()
		}
		if ev.Waiting = id; id == 0 {
			return
		}
	}
	if line, err := json.Marshal(control.NewEvent(ev)); err == nil { // which no type of ours makes fail
		w.hook.Tell(line)
	}
}

// showHook returns what the status says of it, nil where there is none.
func (w *Warden) showHook() *control.Hook {
	switch {
	case w.hookFailed != nil:
		return &control.Hook{Command: w.cfg.Hook.Command, Over: true, LastEnd: fmt.Sprint("not started: ", w.hookFailed)}
	case w.hook == nil:
		return nil
	}
	s := w.hook.Status()
	return &control.Hook{Command: w.cfg.Hook.Command, PID: s.PID, Over: s.Over, Ended: s.Ended, LastEnd: s.Last, Missed: s.Missed}
}

// closeHook has it end.
func (w *Warden) closeHook() error {
	if w.hook == nil {
		return nil
	}
	if err := w.hook.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// ownerEvents is Events for the owner, who is told by which number he can answer.
func (w *Warden) ownerEvents(ctx context.Context) <-chan portmap.Event {
	from, to := w.Events(ctx), make(chan portmap.Event)
	go func() {
		defer close(to)
		for ev := range from {
			if ev.Type == portmap.Pending {
				ev.Waiting = w.approvals.Number(&ev)
			}
			select {
			case to <- ev:
			case <-ctx.Done():
				return
			}
		}
	}()
	return to
}
