package pcp

import (
	"bytes"
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"portcullis/internal/datagram"
	"portcullis/portmap"
)

// How many requests wait for the engine. It takes many together in one kernel
// transaction, so those of different clients go there at once; those of one client
// go one after the other and keep their order.
const (
	maxBusy     = 64  // with the engine: as many as one transaction has
	maxJobs     = 512 // in all
	maxOfDevice = 32  // of one device
)

// job is a request whose client is known.
type job struct {
	packet datagram.Packet
	bytes  []byte
	client portmap.Client
	device datagram.Device
	again  int // how often the same came while it was not done
}

// maxAgain is how often a request may come again and be answered each time.
const maxAgain = 8

// same reports whether a job is another's request once more: UDP doubles some, and
// clients ask again while they wait.
func (j *job) same(other *job) bool {
	return j.packet.Source == other.packet.Source && j.packet.Destination == other.packet.Destination && bytes.Equal(j.bytes, other.bytes)
}

// done is what became of a job.
type done struct {
	job      job
	reply    []byte
	panicked *datagram.Panic
}

// queue is the jobs that are not done. All but the handler's work is done by the
// goroutine that owns it.
type queue struct {
	handler handler
	lines   map[netip.Addr][]job // of each client, in order; the first is with the engine, or ready
	ready   []netip.Addr         // clients whose first job waits for a place there
	devices map[datagram.Device]int
	jobs    int
	busy    int
	done    chan done // has room for all that are with the engine
	wake    func()    // is called when done has one more
	working sync.WaitGroup
}

func newQueue(h handler, wake func()) *queue {
	return &queue{
		handler: h, wake: wake,
		lines: map[netip.Addr][]job{}, devices: map[datagram.Device]int{}, done: make(chan done, maxBusy),
	}
}

// holds reports whether a client waits for an answer.
func (q *queue) holds(client netip.Addr) bool { return len(q.lines[client]) > 0 }

// add takes a job, and clones its bytes; false means that there is no room. A client's
// last request once more is done once.
func (q *queue) add(ctx context.Context, j job) bool {
	client := j.client.Addr
	if line := q.lines[client]; len(line) > 0 && line[len(line)-1].same(&j) {
		last := &line[len(line)-1]
		last.again = min(last.again+1, maxAgain)
		return true
	}
	if q.jobs >= maxJobs || q.devices[j.device] >= maxOfDevice {
		return false
	}
	q.jobs++
	q.devices[j.device]++
	j.bytes = slices.Clone(j.bytes)
	q.lines[client] = append(q.lines[client], j)
	if len(q.lines[client]) == 1 {
		q.ready = append(q.ready, client)
	}
	q.start(ctx)
	return true
}

// finish takes a job out that is done, starts another, and returns how often it is
// to be answered.
func (q *queue) finish(ctx context.Context, j job) (answers int) {
	answers = 1 + q.lines[j.client.Addr][0].again
	q.busy--
	q.jobs--
	if q.devices[j.device]--; q.devices[j.device] == 0 {
		delete(q.devices, j.device)
	}
	client := j.client.Addr
	if q.lines[client] = slices.Delete(q.lines[client], 0, 1); len(q.lines[client]) > 0 {
		q.ready = append(q.ready, client)
	} else {
		delete(q.lines, client)
	}
	q.start(ctx)
	return answers
}

// start hands ready jobs to the engine, as many as it may have.
func (q *queue) start(ctx context.Context) {
	for q.busy < maxBusy && len(q.ready) > 0 {
		j := q.lines[q.ready[0]][0]
		q.ready = slices.Delete(q.ready, 0, 1)
		q.busy++
		q.working.Go(func() {
			d := done{job: j}
			d.panicked = datagram.Recovered(func() { d.reply = q.handler.answer(ctx, time.Now(), j.client, j.bytes) })
			q.done <- d
			q.wake()
		})
	}
}
