package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"portcullis/portmap"
)

// Config is what a Journal needs.
type Config struct {
	Dir string       // the state directory; made if it is not there
	Log *slog.Logger // must not be nil
	// MaxMappings is how many mappings are kept and restored, at least 1. It is a
	// bound against nonsense, not a quota.
	MaxMappings int
	Clock       Clock // nil: the machine's
}

// The bounds of a Journal.
const (
	syncEvery   = time.Second      // what a loss of power can cost
	lookEvery   = 5 * time.Second  // whether the file is where it would be read again
	noteEvery   = 10 * time.Minute // how old the last line gets while there are leases
	retryFirst  = time.Second      // after a failure to write; doubled up to ...
	retryMost   = 10 * time.Second
	renewSlack  = 10 * time.Second // see Record
	deadAllowed = 64 << 10         // bytes of lines that no longer count
	leastLimit  = 16 << 20         // the file may always have this many bytes

	journalFile = "leases.journal"
)

// Errors of Record.
var (
	// ErrBehind means that the journal does not hold what it should: the disk is
	// full or broken. After a crash mappings may be missing. All is written anew
	// as soon as the disk allows it.
	ErrBehind = errors.New("the journal is behind: mappings would not survive a crash")
	// ErrClosed means that the journal was closed.
	ErrClosed = errors.New("the journal is closed")
)

// Restored is what a journal knew when it was opened.
type Restored struct {
	// Mappings are those that were granted and have not ended, by ID. Their times
	// carry a monotonic reading of this process. Nobody has asked today's policy
	// about them.
	Mappings []portmap.Mapping
	// Whole is true when nothing that was recorded can be missing: the machine
	// has run all the time, and the file was in order and complete.
	Whole bool
	// Epochs are what KeepEpochs was given, zero unless Whole: a gateway that may
	// have forgotten a mapping must begin a new epoch (RFC 6887 section 8.5).
	Epochs Epochs
}

// Epochs are the moments at which the epochs of NAT-PMP and PCP began, of IPv4 and
// of IPv6.
type Epochs struct{ V4, V6 time.Time }

// entry is one mapping that the journal keeps.
type entry struct {
	made    int64
	lease   lease
	fixed   string
	told    time.Time // the end that portmap knows of
	written int64     // when a renewal was last written, on the run's clock
	late    bool      // ends earlier than portmap knows, and Overdue has not said so yet
}

// Journal keeps mappings and the identity on disk. Its methods may be called at the
// same time. The sync that Run makes each second keeps nobody waiting; writing the file
// anew does, for as long as the disk takes.
type Journal struct {
	log   *slog.Logger
	clock Clock
	boot  string
	max   int
	limit int64         // bytes of the file
	wake  chan struct{} // something was written

	mu      sync.Mutex // guards what follows
	disk    disk
	live    map[uint64]*entry
	epochs  epochs
	f       file // nil: there is none to append to, and behind is not
	size    int64
	fresh   int64  // its size when it was last written anew
	seq     uint64 // of the next line
	synced  uint64 // lines on the disk for certain
	last    int64  // the run's clock at the last line
	pair    int64  // the day's clock less the run's, as written last; see stamp
	paired  bool
	behind  error // why the file does not hold what it should, or nil
	retryAt int64 // it is not written anew before this, on the run's clock
	retry   int64 // how long to wait after the next failure
	buf     []byte
	closed  bool
}

// Open locks the directory, reads the journal there, and begins a new one with
// what is left. Without a journal there is nothing to restore, which is no error;
// nor is damage, or a disk that cannot be read or written: all are logged. An error
// (ErrLocked, ErrUnsafe, or the system's about the directory) means that there is no
// journal to be had.
func Open(cfg Config) (*Journal, Restored, error) {
	d, err := openDirectory(cfg.Dir)
	if err != nil {
		return nil, Restored{}, fmt.Errorf("open the journal: %w", err)
	}
	return open(cfg, d)
}

func open(cfg Config, d disk) (*Journal, Restored, error) {
	j, err := prepare(cfg, d)
	var got Restored
	if err == nil {
		got, err = j.restore()
	}
	if err != nil {
		_ = d.Close()
		return nil, Restored{}, fmt.Errorf("open the journal: %w", err)
	}
	now := j.clock.Moment()
	if err := j.rewrite(now); err != nil && j.behind == nil {
		j.fail(now, err)
	}
	return j, got, nil
}

func prepare(cfg Config, d disk) (*Journal, error) {
	if cfg.Log == nil || cfg.MaxMappings < 1 {
		return nil, errors.New("Log must not be nil and MaxMappings at least 1")
	}
	if cfg.Clock == nil {
		cfg.Clock = SystemClock{}
	}
	return &Journal{
		log: cfg.Log, clock: cfg.Clock, boot: cfg.Clock.BootID(), disk: d, max: cfg.MaxMappings,
		limit: max(leastLimit, int64(cfg.MaxMappings)*maxLine*5/4),
		wake:  make(chan struct{}, 1),
		live:  map[uint64]*entry{},
	}, nil
}

// restore reads the journal and fills the live set.
func (j *Journal) restore() (Restored, error) {
	in, short, err := j.disk.Open(journalFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Restored{}, nil
	case errors.Is(err, ErrUnsafe):
		return Restored{}, err
	}
	p := &replay{}
	if err == nil {
		p, err = read(in, j.max, j.limit)
		_ = in.Close()
	}
	now := j.clock.Moment()
	// A clock that is behind its own past is another one, whatever it is called.
	sameRun := p.boot != "" && p.boot == j.boot && p.last <= now.at()
	switch {
	case err != nil:
	case p.newer:
		err = errVersion
	case p.next == 0:
		err = errors.New("the header is missing")
	case p.damaged(!sameRun):
		err = fmt.Errorf("line %d is damaged", p.next+1)
	default:
		return j.adopt(p, now, sameRun, short), nil
	}
	j.log.Error("cannot read the journal; no mapping is restored, clients have to ask again", "err", err)
	return Restored{}, nil
}

// adopt takes over what an old journal says, onto the clocks of today. One that is
// short lacks what could not be written to it.
func (j *Journal) adopt(p *replay, now Moment, sameRun, short bool) Restored {
	got := Restored{Whole: sameRun && !short && p.overflow == 0, Mappings: make([]portmap.Mapping, 0, len(p.live))}
	over := 0
	for _, id := range slices.Sorted(maps.Keys(p.live)) {
		k := p.live[id]
		e := &entry{made: k.made, lease: k.lease, fixed: k.fixed, written: now.at() - longest}
		if !sameRun {
			e.carry(p, &k, now)
		}
		if e.lease.end <= now.at() {
			over++
			continue
		}
		j.live[id] = e
		m := k.mapping
		m.Created = now.ofNow(e.made)
		if e.lease.end != never {
			m.Expires = now.ofNow(e.lease.end)
		}
		e.told = m.Expires
		settleTimes(&m, now.Now)
		got.Mappings = append(got.Mappings, m)
	}
	if got.Whole && p.epochs != (epochs{}) {
		j.epochs = p.epochs
		got.Epochs = Epochs{now.ofNow(p.epochs.v4), now.ofNow(p.epochs.v6)}
	}
	if p.overflow > 0 {
		j.log.Warn("the journal has more mappings than limits.mappings; the rest is not restored", "mappings", p.overflow)
	}
	if sameRun && p.paired {
		j.paired, j.pair = true, p.pairWall-p.pairAt
	}
	j.log.Info("leases restored", "mappings", len(got.Mappings), "ended_meanwhile", over, "torn", p.bad || p.torn, "machine_restarted", !sameRun)
	return got
}

// carry takes a mapping from another run of the machine to this one. How long it
// was off only the clock of the day can tell, if it is right now and was right
// then; otherwise that time counts for nothing, and the lease has what it had
// left at the last line.
func (e *entry) carry(p *replay, k *kept, now Moment) {
	passed := now.at() - p.last // from a place on the old run's clock to the same on ours
	e.made = max(k.made+passed-p.off(now), -longest)
	if k.lease.end == never {
		return
	}
	e.lease = lease{end: min(k.lease.end+passed, longest), until: p.until(k.lease)}
	e.settle(now)
}

// settle takes the end on the clock of the day for true where that is possible,
// and reports whether it was. An end by that clock cannot be later than the one
// without the time off: such a clock is wrong, whatever the kernel thinks.
func (e *entry) settle(now Moment) bool {
	if e.lease.until == 0 || !now.Synced {
		return false
	}
	const jitter = 1000
	end := now.at() + e.lease.until - now.Wall.UnixMilli()
	if end > e.lease.end+jitter {
		return false
	}
	e.lease = lease{end: max(min(end, e.lease.end), -longest)}
	return true
}
