package gena

import (
	"io"
	"net/netip"
)

// What the tests of the decoders and of the wrap of SEQ need from inside.
const (
	MaxAnswer = maxAnswer
	MaxURL    = maxURL
	MaxURLs   = maxURLs
)

var ParseTimeout = parseTimeout

type Callback struct {
	Port   uint16
	Target string
}

func ParseCallbacks(header string, self netip.Addr) ([]Callback, error) {
	urls, err := parseCallbacks(header, self)
	var out []Callback
	for _, u := range urls {
		out = append(out, Callback{u.port, u.target})
	}
	return out, err
}

func ReadAnswer(r io.Reader) (int, error) { return readAnswer(r, func() {}) }

// SetSeq makes seq the event key of the next message.
func (n *Notifier) SetSeq(sid string, seq uint32) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.subs[sid].seq = seq
}

// Hosts counts the parties that are remembered.
func (n *Notifier) Hosts() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.loads)
}
