package presence

import (
	"sync"
	"time"

	"portcullis/portmap"
)

// maxHeard is how many devices are remembered to have answered.
const maxHeard = 4096

// heard are the devices that have answered a question of the kernel's in this run,
// which what somebody makes up does not by itself: a host that is quiet for long is
// not a stranger when it speaks again (abuse case K1). On which LAN does not matter: who
// takes the address of another LAN's machine could as well answer himself. Its methods are
// safe for concurrent use.
type heard struct {
	mu   sync.Mutex // guards what follows
	last map[portmap.MAC]time.Time
	news bool // since all
}

// note takes in that a device has answered, and reports whether it is new. Beyond maxHeard
// the one goes that has answered longest ago. The kernel counts groups among its
// neighbours, which are no devices.
func (h *heard) note(mac portmap.MAC, now time.Time) (isNew bool) {
	if mac[0]&1 != 0 {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	_, known := h.last[mac]
	if !known {
		if len(h.last) >= maxHeard {
			h.forget()
		}
		h.news = true
	}
	if h.last == nil {
		h.last = make(map[portmap.MAC]time.Time)
	}
	h.last[mac] = now
	return !known
}

// fresh reports whether there are others than at the last time of all.
func (h *heard) fresh() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.news
}

// forget forgets the device that has answered longest ago.
func (h *heard) forget() {
	var oldest portmap.MAC
	var at time.Time
	for mac, last := range h.last {
		if at.IsZero() || last.Before(at) {
			oldest, at = mac, last
		}
	}
	delete(h.last, oldest)
}

// has reports whether a device has answered.
func (h *heard) has(mac portmap.MAC) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, known := h.last[mac]
	return known
}

// all returns them when there are others than at the last time.
func (h *heard) all() (macs [][6]byte, news bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.news {
		return nil, false
	}
	h.news = false
	for mac := range h.last {
		macs = append(macs, mac)
	}
	return macs, true
}
