package flows

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/portmap"
)

// survey is which external ports flows leave from: of all that there were when they were
// listed, and of each that has begun since, of which the kernel tells before its first
// packet is sent. Grants in a row are told by it that nobody holds their port; the kernel's
// table is gone through again only for a port that a flow was seen to leave from.
//
// Flows that are over count until the next survey. Where the owner has the kernel keep
// quiet about some flows ("ct event" of nftables, "--ctevents"), it lacks those that have
// begun since the last one; the pass that each change leads to finds them.
type survey struct {
	wan    []netip.Addr // the gateway's own
	began  time.Time
	events *socket // what has begun since
	idle   *time.Timer
	tcp    ports
	udp    ports
}

// ports is a set of them.
type ports [1 << 16 / 64]uint64

const (
	surveyAge   = time.Second      // that one is good for, and after the last grant
	surveyFlows = 16384            // that are listed for one
	surveyPause = 10 * time.Second // after one that was not made, or did not last
)

// newFlows is the group of conntrack's messages about flows that begin
// (NFNLGRP_CONNTRACK_NEW).
const newFlows = 1

// eventsFile says whether the kernel tells of flows at all; without it, it cannot.
const eventsFile = "/proc/sys/net/netfilter/nf_conntrack_events"

var errQuiet = errors.New("the kernel does not tell of new flows")

// newSurvey lists all flows, and has the kernel tell of new ones before.
func newSurvey(kernel *conntrack, wan []netip.Addr) (*survey, error) {
	if text, err := readIn(kernel.netns, eventsFile); err != nil || strings.TrimSpace(string(text)) == "0" {
		return nil, errors.Join(errQuiet, err)
	}
	events, err := openSocket(kernel.netns, kernel.patience, newFlows)
	if err != nil {
		return nil, err
	}
	s := &survey{wan: wan, began: time.Now(), events: events}
	q, seen := query{family: unix.AF_INET}, 0
	if len(wan) == 1 {
		q.at = wan[0] // less to tell: not what hosts have with the gateway itself
	}
	err = kernel.walk(q, func(f found) error {
		if seen++; seen > surveyFlows {
			return errMany
		}
		s.note(f)
		return nil
	})
	if err != nil {
		events.close()
		return nil, err
	}
	return s, nil
}

// note adds a flow.
func (s *survey) note(f found) {
	if slices.Contains(s.wan, f.AnswersTo.Addr()) {
		n := f.AnswersTo.Port()
		s.of(f.Transport)[n/64] |= 1 << (n % 64)
	}
}

func (s *survey) of(t portmap.Transport) *ports {
	if t == portmap.TCP {
		return &s.tcp
	}
	return &s.udp
}

// has reports whether a flow leaves from a port, or did lately.
func (s *survey) has(p port) bool { return s.of(p.transport)[p.number/64]&(1<<(p.number%64)) != 0 }

// update adds what has begun. With an error some of that is not known.
func (s *survey) update() error {
	for range surveyFlows {
		_, err := s.events.receive(func(payload []byte) error {
			if f, ok := decode(payload); ok {
				s.note(f)
			}
			return nil
		})
		if errors.Is(err, unix.EAGAIN) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return errMany
}

// surveyed returns what is known of all ports, or nil where each has to be looked at: for
// the first grant in a while a look at its port alone is cheaper. It is called by a look.
func (q *quick) surveyed(wan []netip.Addr, many bool) *survey {
	now := time.Now()
	inRow := now.Sub(q.granted) < surveyAge
	q.granted = now
	if s := q.survey; s != nil {
		fresh := now.Sub(s.began) < surveyAge && slices.Equal(s.wan, wan)
		err := s.update()
		if err == nil && fresh {
			return s
		}
		if err != nil && now.Sub(s.began) < quickFresh {
			q.failed = now
		}
		q.endSurvey()
	}
	if !inRow && !many || now.Sub(q.failed) < surveyPause {
		return nil
	}
	s, err := newSurvey(&q.kernel, wan)
	if err != nil {
		q.failed = now
		return nil
	}
	s.idle = time.AfterFunc(surveyAge, func() { q.unneeded(s) })
	q.survey = s
	return s
}

// unneeded ends a survey when no grant has needed it for a while: that the kernel tells
// of every flow costs it a little of each.
func (q *quick) unneeded(s *survey) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch left := surveyAge - time.Since(q.granted); {
	case q.survey != s:
	case left > 0:
		s.idle.Reset(left)
	default:
		q.endSurvey()
	}
}

func (q *quick) endSurvey() {
	if q.survey != nil {
		q.survey.idle.Stop()
		q.survey.events.close()
		q.survey = nil
	}
}
