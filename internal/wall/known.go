package wall

import (
	"slices"
	"sync"

	"portcullis/portmap"
)

// maxKnown bounds how many answers a front remembers.
const maxKnown = 128

// known is what the front has read of the table that there still is: control points ask the
// same again and again, while hardly anything changes. It keeps no answer that may be older
// than the turn it was asked in.
type known struct {
	turn int // the descriptor of a Turn, until the end of the process; -1: nothing can be known

	mu      sync.Mutex // guards what follows
	at      uint32     // the turn of answers
	answers map[any]recalled
}

// recalled is the answer to a question: a page, of one mapping where the question was for
// one, or that there is no such mapping.
type recalled struct {
	page    portmap.Page
	missing *portmap.Error
}

// recall returns an answer that still holds, or the turn in which the question is asked, for
// note. A key is a value of a type for each sort of question.
func (k *known) recall(key any) (r recalled, turn uint32, found bool) {
	turn, some := turnOf(k.turn)
	if !some {
		return recalled{}, 0, false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.at == turn {
		r, found = k.answers[key]
		r.page.Mappings = slices.Clone(r.page.Mappings)
	}
	return r, turn, found
}

// note keeps the answer to a question that was asked in a turn.
func (k *known) note(key any, turn uint32, r recalled) {
	if now, some := turnOf(k.turn); !some || now != turn {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.at != turn || len(k.answers) >= maxKnown {
		k.at, k.answers = turn, nil
	}
	if k.answers == nil {
		k.answers = make(map[any]recalled)
	}
	r.page.Mappings = slices.Clone(r.page.Mappings)
	k.answers[key] = r
}
