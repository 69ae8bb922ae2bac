package front

import (
	"cmp"
	"sync"
	"time"

	"portcullis/igd"
	"portcullis/portmap"
)

// wanStatus is the WAN as UPnP shows it.
type wanStatus struct {
	uplink  func() (portmap.WAN, bool)
	kernel  Kernel
	changed chan struct{} // holds one: subscribers must be told

	rateUp, rateDown uint64 // that are told instead of the interface's; 0: not set

	mu    sync.Mutex
	up    bool      // guarded by mu
	since time.Time // guarded by mu; of the change to up
}

func newWANStatus(c *Config) *wanStatus {
	return &wanStatus{
		uplink: c.Warden.Uplink, kernel: c.Kernel, changed: make(chan struct{}, 1), rateUp: c.RateUp, rateDown: c.RateDown,
	}
}

// refresh notes when the connection came up, and has subscribers told.
func (w *wanStatus) refresh() {
	w.connected()
	select {
	case w.changed <- struct{}{}:
	default: // they will be told already
	}
}

func (w *wanStatus) connected() (up bool, since time.Time) {
	wan, _ := w.uplink()
	now := wan.Up
	w.mu.Lock()
	defer w.mu.Unlock()
	if now != w.up {
		w.up, w.since = now, time.Now()
	}
	return w.up, w.since
}

// Status reads the WAN's counters and rate from the kernel; what cannot be read
// stays zero, as for an interface that is not there.
func (w *wanStatus) Status() igd.WANStatus {
	v, _ := w.uplink()
	up, since := w.connected()
	s := igd.WANStatus{Up: up, Since: since}
	if !v.Private {
		s.External = v.External
	}
	s.RateUp, s.RateDown = w.rateUp, w.rateDown
	if v.Name == "" {
		return s
	}
	if stats, err := w.kernel.Stats(v.Name); err == nil {
		s.LinkUp = stats.Up && stats.Carrier
		s.BytesSent, s.BytesReceived = stats.TxBytes, stats.RxBytes
		s.PacketsSent, s.PacketsReceived = stats.TxPackets, stats.RxPackets
	}
	if rate, known := w.kernel.Speed(v.Name); known {
		s.RateUp, s.RateDown = cmp.Or(w.rateUp, rate), cmp.Or(w.rateDown, rate)
	}
	return s
}
