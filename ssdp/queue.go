package ssdp

import (
	"net/netip"
	"slices"
	"time"
)

// maxQueued bounds the answers that wait for their time, over all clients: two
// seconds of what may go out at all.
const maxQueued = 2 * totalRate

// answer is one search response that waits.
type answer struct {
	due   time.Time
	scope *scope
	from  netip.Addr // the address that was asked, or the scope's
	to    netip.AddrPort
	row   row
}

// queue holds waiting answers in the order of their time.
type queue struct{ waiting []answer }

// fits reports whether n more answers find room; a search whose answers do not
// is dropped as a whole.
func (q *queue) fits(n int) bool { return len(q.waiting)+n <= maxQueued }

// holds reports whether a client still waits for answers. Its second search for
// everything then asks for what it will get anyway.
func (q *queue) holds(to netip.AddrPort) bool {
	return slices.ContainsFunc(q.waiting, func(a answer) bool { return a.to == to })
}

func (q *queue) add(a answer) {
	i, _ := slices.BinarySearchFunc(q.waiting, a.due, func(w answer, due time.Time) int {
		if w.due.After(due) {
			return 1
		}
		return -1
	})
	q.waiting = slices.Insert(q.waiting, i, a)
}

// next returns the time of the first answer.
func (q *queue) next() (time.Time, bool) {
	if len(q.waiting) == 0 {
		return time.Time{}, false
	}
	return q.waiting[0].due, true
}

// pop takes out the first answer whose time has come.
func (q *queue) pop(now time.Time) (answer, bool) {
	if len(q.waiting) == 0 || q.waiting[0].due.After(now) {
		return answer{}, false
	}
	first := q.waiting[0]
	q.waiting = slices.Delete(q.waiting, 0, 1)
	return first, true
}

// keep forgets the answers that would leave from other addresses than these.
func (q *queue) keep(locals []netip.Addr) {
	q.waiting = slices.DeleteFunc(q.waiting, func(a answer) bool { return !slices.Contains(locals, a.from) })
}

// drop forgets the answers of a scope.
func (q *queue) drop(s *scope) {
	q.waiting = slices.DeleteFunc(q.waiting, func(a answer) bool { return a.scope == s })
}
