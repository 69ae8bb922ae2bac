package restore

import (
	"context"
	"errors"
	"fmt"

	"portcullis/internal/journal"
	"portcullis/internal/slog"
	"portcullis/portmap"
)

// mostRestored is how many mappings are kept where the owner sets no limit.
const mostRestored = 1 << 17

// Journal is what is kept on disk; journal.Journal is one.
type Journal interface {
	Record(context.Context, []portmap.Change) error
	KeepEpochs(journal.Epochs) error
	Identity() (journal.Identity, error)
	HasIdentity() bool
	SaveIdentity(journal.Identity) error
	Answers() ([]byte, error)
	SaveAnswers([]byte) error
	SetAnswersAside() (string, error)
	Overdue() (over []uint64, more bool)
	Look()
	Resize(mappings int)
	Run(context.Context) error
	Close() error
}

// Open opens the state directory and reads what the last run left. The Journal is nil
// where it cannot be used, which costs no service, only that the next start knows
// nothing. Only a directory that another process uses is an error: two gateways would
// undo each other's mappings.
func Open(cfg journal.Config) (Journal, journal.Restored, error) {
	if cfg.MaxMappings <= 0 {
		cfg.MaxMappings = mostRestored
	}
	j, last, err := journal.Open(cfg)
	switch {
	case errors.Is(err, journal.ErrLocked):
		return nil, last, fmt.Errorf("is another portcullis running? %w", err)
	case err != nil:
		cfg.Log.Error("state.dir is unusable; mappings will not survive a restart", "err", err)
		return nil, last, nil
	}
	return j, last, nil
}

// Store is the journal as the engine uses it.
type Store struct {
	log     *slog.Logger
	journal Journal // nil: there is none
	behind  bool    // the owner was told
	epochs  *writes
}

// NewStore returns a Store; without a journal it keeps nothing.
func NewStore(log *slog.Logger, j Journal) *Store {
	return &Store{log: log, journal: j, epochs: newWrites()}
}

// Record implements portmap.Store.
func (s *Store) Record(ctx context.Context, changes []portmap.Change) error {
	if s.journal == nil {
		return nil
	}
	return s.journal.Record(ctx, changes)
}

// Recorded takes what came of each Record, one at a time. It logs once when mappings
// cannot be kept, and once when they can be again. The journal mends itself.
func (s *Store) Recorded(err error) {
	if behind := err != nil; behind != s.behind {
		s.behind = behind
		if behind {
			s.log.Error("cannot save mappings for a restart", "err", err)
		} else {
			s.log.Info("saving mappings for a restart again")
		}
	}
}

// KeepEpochs writes down when the epochs of NAT-PMP and PCP began, soon where that is
// asked for too often.
func (s *Store) KeepEpochs(e journal.Epochs) {
	if s.journal == nil {
		return
	}
	s.epochs.do(func() {
		if err := s.journal.KeepEpochs(e); err != nil {
			s.log.Warn("cannot save the PCP epochs", "err", err)
		}
	})
}

// Flush writes down what waits for its turn, before the journal is closed.
func (s *Store) Flush() { s.epochs.flush() }
