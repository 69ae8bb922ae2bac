package journal_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"sync"

	"portcullis/internal/journal"
)

// fakeDisk is a directory in memory. It can be full, fail, die with the process,
// or lose its power.
type fakeDisk struct {
	lost    error // what Lost says once
	looks   int   // whether a file is still there
	mu      sync.Mutex
	names   map[string]*inode // as the system shows it
	durable map[string]*inode // as it is after a loss of power
	space   int               // bytes, 0: no limit
	steps   int               // operations so far
	failAt  int               // the step that fails, 0: none
	crash   bool              // and so do all after it
	fault   error
	hook    func(op string) // called before each operation, without mu
}

type inode struct {
	data, synced []byte
	marked       bool
}

var (
	errCrash = errors.New("the process is dead")
	errFull  = errors.New("no space left on the fake")
)

func newFakeDisk() *fakeDisk {
	return &fakeDisk{names: map[string]*inode{}, durable: map[string]*inode{}, fault: errCrash}
}

// step reports whether the operation fails. mu is held.
func (d *fakeDisk) step() error {
	d.steps++
	if d.steps == d.failAt || d.crash && d.failAt != 0 && d.steps > d.failAt {
		return d.fault
	}
	return nil
}

func (d *fakeDisk) enter(op string) func() {
	if d.hook != nil {
		d.hook(op)
	}
	d.mu.Lock()
	return d.mu.Unlock
}

// set arms the next failure: the n-th operation from now, 0 for none.
func (d *fakeDisk) set(n int, fault error, crash bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.steps, d.failAt, d.fault, d.crash = 0, n, fault, crash
}

// named returns what the system shows under a name.
func (d *fakeDisk) named(name string) *inode {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.names[name]
}

// all reports whether the whole journal is on the disk.
func (d *fakeDisk) all() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.durable[journal.JournalFile]
	return n != nil && n == d.names[journal.JournalFile] && bytes.Equal(n.data, n.synced)
}

// copy gives another disk with the same on it.
func (d *fakeDisk) copy() *fakeDisk {
	c := newFakeDisk()
	for name, n := range d.names {
		c.names[name] = &inode{bytes.Clone(n.data), bytes.Clone(n.synced), n.marked}
	}
	return c
}

func (d *fakeDisk) Open(name string) (io.ReadCloser, bool, error) {
	defer d.enter("open")()
	if err := d.step(); err != nil {
		return nil, false, err
	}
	n := d.names[name]
	if n == nil {
		return nil, false, fs.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(bytes.Clone(n.data))), n.marked, nil
}

func (d *fakeDisk) Create(name string) (journal.File, error) {
	defer d.enter("create")()
	if err := d.step(); err != nil {
		return nil, err
	}
	n := &inode{}
	d.names[name] = n
	return &fakeFile{d, n}, nil
}

func (d *fakeDisk) Rename(from, to string) error {
	defer d.enter("rename")()
	if err := d.step(); err != nil {
		return err
	}
	d.names[to] = d.names[from]
	delete(d.names, from)
	return nil
}

func (d *fakeDisk) Remove(name string) error {
	defer d.enter("remove")()
	if err := d.step(); err != nil {
		return err
	}
	if d.names[name] == nil {
		return fs.ErrNotExist
	}
	delete(d.names, name)
	return nil
}

func (d *fakeDisk) Lost(string, journal.File) error {
	if err := d.lost; err != nil {
		d.lost = nil
		return err
	}
	d.looks++
	return nil
}

func (d *fakeDisk) Return() error { return nil }

func (d *fakeDisk) Mark(name string) error {
	defer d.enter("mark")()
	if err := d.step(); err != nil {
		return err
	}
	if n := d.names[name]; n != nil {
		n.marked = true
	}
	return nil
}

func (d *fakeDisk) Sync() error {
	defer d.enter("syncdir")()
	if err := d.step(); err != nil {
		return err
	}
	d.durable = map[string]*inode{}
	for name, n := range d.names {
		d.durable[name] = n
	}
	return nil
}

func (d *fakeDisk) Close() error { return nil }

// losePower leaves what was synced, and of the rest, in pieces of 512 bytes,
// what a file system happened to write: the others are zero, or the file ends.
func (d *fakeDisk) losePower(r *rand.Rand) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.names = map[string]*inode{}
	for name, n := range d.durable {
		data := bytes.Clone(n.synced)
		if len(n.data) > len(data) && bytes.HasPrefix(n.data, data) {
			rest := bytes.Clone(n.data[len(data):])
			for at := 0; at < len(rest); at += 512 {
				if r.IntN(3) == 0 {
					clear(rest[at:min(at+512, len(rest))])
				}
			}
			data = append(data, rest[:r.IntN(len(rest)+1)]...)
		}
		d.names[name] = &inode{data, bytes.Clone(data), n.marked}
	}
}

type fakeFile struct {
	d *fakeDisk
	n *inode
}

func (f *fakeFile) Write(b []byte) (int, error) {
	defer f.d.enter("write")()
	err := f.d.step()
	used := 0
	for _, n := range f.d.names {
		used += len(n.data)
	}
	n := len(b)
	if f.d.space > 0 && used+n > f.d.space {
		n, err = max(0, f.d.space-used), errors.Join(err, errFull)
	}
	if err != nil {
		n = min(n, len(b)*2/3)
	}
	f.n.data = append(f.n.data, b[:n]...)
	return n, err
}

func (f *fakeFile) Truncate(size int64) error {
	defer f.d.enter("truncate")()
	if err := f.d.step(); err != nil {
		return err
	}
	f.n.data = f.n.data[:size]
	return nil
}

func (f *fakeFile) Sync() error {
	defer f.d.enter("sync")()
	if err := f.d.step(); err != nil {
		return err
	}
	f.n.synced = bytes.Clone(f.n.data)
	return nil
}

func (f *fakeFile) Close() error { return nil }
