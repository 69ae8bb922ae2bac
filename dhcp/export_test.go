package dhcp

import "log/slog"

// NewUsual is New for usual places that a test can write to.
func NewUsual(log *slog.Logger, paths ...string) *Reader {
	r := New(Config{Log: log})
	r.sources = nil
	for _, path := range paths {
		r.sources = append(r.sources, newSource(path, systemOwn))
	}
	return r
}
