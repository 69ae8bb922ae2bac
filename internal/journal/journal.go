package journal

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"sort"
	"sync"
	"time"

	"portcullis/internal/pace"
	"portcullis/internal/slog"
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
	lookEvery   = pace.Minute      // whether the file is where it would be read again, though nobody has told
	noteEvery   = 10 * time.Minute // how old the last line gets while there are leases
	retryEvery  = 10 * time.Second // after a failure to write anew
	renewSlack  = 10 * time.Second // see Record
	deadAllowed = 64 << 10         // bytes of lines that no longer count
	leastLimit  = 16 << 20         // the file may always have this many bytes

	journalFile = "leases.journal"
)

// Files returns the names of what is always in the directory.
func Files() map[string]bool { return map[string]bool{journalFile: true, identityFile: true} }

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

// Journal keeps mappings and the identity on disk. Its methods may be called at the
// same time. The sync that Run makes each second keeps nobody waiting; writing the file
// anew does, for as long as the disk takes.
type Journal struct {
	log   *slog.Logger
	clock Clock
	boot  string
	max   int
	limit int64 // bytes of the file

	written chan struct{} // holds one: Run has something to do within the second

	mu      sync.Mutex // guards what follows
	state              // what the file should say
	disk    disk
	f       file // nil: there is none to append to, and behind is not
	size    int64
	fresh   int64  // its size when it was last written anew
	seq     uint64 // of the next line
	synced  uint64 // lines on the disk for certain: the checkpoint
	behind  error  // why the file does not say what it should, or nil
	retryAt int64  // it is not written anew before this, on the run's clock
	closed  bool
}

// Open locks the directory, reads the journal there, and begins a new one with
// what is left. Without a journal there is nothing to restore, which is no error;
// nor is damage, or a disk that cannot be read or written: all are logged. An error
// (ErrLocked, ErrUnsafe, or the system's about the directory) means that there is no
// journal to be had.
func Open(cfg Config) (*Journal, Restored, error) {
	if cfg.Log == nil || cfg.MaxMappings < 1 {
		return nil, Restored{}, errors.New("open the journal: Log must not be nil and MaxMappings at least 1")
	}
	d, err := openDirectory(cfg.Dir)
	if err != nil {
		return nil, Restored{}, fmt.Errorf("open the journal: %w", err)
	}
	return open(cfg, d)
}

func open(cfg Config, d disk) (*Journal, Restored, error) {
	if cfg.Clock == nil {
		cfg.Clock = SystemClock{}
	}
	j := &Journal{
		log: cfg.Log, clock: cfg.Clock, boot: cmp.Or(cfg.Clock.BootID(), noBoot), disk: d,
		written: make(chan struct{}, 1), state: state{leases: map[uint64]*kept{}},
	}
	j.room(cfg.MaxMappings)
	got, err := j.restore()
	if err != nil {
		_ = d.Close()
		return nil, Restored{}, fmt.Errorf("open the journal: %w", err)
	}
	now := j.clock.Moment()
	if err := j.rewrite(now); err != nil {
		j.fail(now, err)
	}
	return j, got, nil
}

// Resize has the journal keep so many mappings, at least 1. What it has already it keeps.
func (j *Journal) Resize(mappings int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.room(mappings)
}

func (j *Journal) room(mappings int) {
	j.max, j.limit = mappings, max(leastLimit, int64(mappings)*maxLine*5/4)
}

// restore reads the journal and fills the live set.
func (j *Journal) restore() (Restored, error) {
	in, incomplete, err := j.disk.Open(journalFile)
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
	sameRun := p.boot != noBoot && p.boot == j.boot && p.last <= now.at()
	switch {
	case err != nil:
	case p.newer:
		err = errVersion
	case p.next == 0:
		err = errors.New("the header is missing")
	case p.damaged(!sameRun):
		err = fmt.Errorf("line %d is damaged", p.next+1)
	default:
		return j.adopt(p, now, sameRun, incomplete), nil
	}
	j.log.Error("cannot read the journal; no mapping is restored, clients have to ask again", "err", err)
	return Restored{}, nil
}

// ids returns the numbers of all leases, the smallest first.
func (j *Journal) ids() []uint64 {
	ids := make([]uint64, 0, len(j.leases))
	for id := range j.leases {
		ids = append(ids, id)
	}
	sort.Slice(ids, func(a, b int) bool { return ids[a] < ids[b] }) // slices.Sort would be 10 kB more
	return ids
}

// adopt takes over what the log of the last run says, onto the clocks of today.
func (j *Journal) adopt(p *replay, now Moment, sameRun, incomplete bool) Restored {
	got := Restored{Whole: sameRun && !incomplete && p.left == 0, Mappings: make([]portmap.Mapping, 0, len(p.leases))}
	j.leases = p.leases
	ended := 0
	for _, id := range j.ids() {
		k := j.leases[id]
		if k.written = now.at() - longest; !sameRun {
			p.carry(k, now)
		}
		if k.lease.end <= now.at() {
			delete(j.leases, id)
			ended++
			continue
		}
		m := decodeMapping(id, k.mapping)
		m.Created = now.ofNow(k.created)
		if k.lease.end != never {
			m.Expires = now.ofNow(k.lease.end)
		}
		k.expires = m.Expires
		settleTimes(&m, now.Now)
		got.Mappings = append(got.Mappings, m)
	}
	if got.Whole && p.epochs != (epochs{}) {
		j.epochs = p.epochs
		got.Epochs = Epochs{now.ofNow(p.epochs.v4), now.ofNow(p.epochs.v6)}
	}
	if sameRun {
		j.day = p.day
	}
	if p.left > 0 {
		j.log.Warn("the journal has more mappings than limits.mappings; the rest is not restored", "mappings", p.left)
	}
	j.log.Info("journal read", "mappings", len(got.Mappings), "ended_meanwhile", ended, "torn", p.bad || p.torn, "machine_restarted", !sameRun)
	return got
}
