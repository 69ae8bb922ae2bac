package dhcp

import "portcullis/internal/slog"

// ErrBusy says that a file is not what it was.
var ErrBusy = errBusy

// Parse reads one file of a format.
func Parse(f Format, data []byte) Parsed {
	c := newCollector()
	c.parse(f, data)
	return c.parsed()
}

// ReadAfter looks at a file, and reads it when between has ended.
func ReadAfter(path string, between func()) ([]byte, error) {
	s, err := lookAt(path, anyOwner)
	if err != nil {
		return nil, err
	}
	between()
	return readFile(path, s)
}

// NewUsual is New for usual places that a test can write to.
func NewUsual(log *slog.Logger, paths ...string) *Reader {
	r := New(Config{Log: log})
	r.sources = nil
	for _, path := range paths {
		r.sources = append(r.sources, newSource(path, systemOwn))
	}
	return r
}

// Poll has Run look by itself, as where the kernel tells nothing.
func (r *Reader) Poll() { r.watches = nil }

// OnRest has Run call f whenever it waits for the kernel to tell something.
func (r *Reader) OnRest(f func()) { r.rests = f }
