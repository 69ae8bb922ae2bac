package gena

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"portcullis/internal/http1"
)

// The headers by their canonical names. Responses carry them in capitals, as UDA
// prints them and as some clients look for them.
const (
	headerCallback = "Callback"
	headerNT       = "Nt"
	headerSID      = "Sid"
	headerTimeout  = "Timeout"
	eventType      = "upnp:event"
)

var (
	errMixed       = errors.New("SID together with CALLBACK or NT")
	errNoSID       = errors.New("SID missing, empty or repeated")
	errNT          = errors.New("NT missing, repeated or not upnp:event")
	errNoCallback  = errors.New("CALLBACK missing or repeated")
	errForeignHost = errors.New("the subscriber is not a host of this link")
)

// Handle answers a request for the event URL of a service: SUBSCRIBE, which
// begins a subscription or with a SID renews one, and UNSUBSCRIBE. sub is the
// client as its socket has it, initial returns all evented variables of the service
// with their values as they are when it is called; it is called once, on
// another goroutine, and must not block for long.
//
// Answers: 200; 400 for SID together with CALLBACK or NT; 412 for what else is
// wrong with those headers, a CALLBACK that leads elsewhere, and a SID that is
// unknown, ended, or another host's; 503 when a cap is reached; 405 for other
// methods. All have an empty body. The first event goes out only when the response
// has been sent.
func (n *Notifier) Handle(r *http1.Request, service string, sub Subscriber, initial func() []Property) *http1.Response {
	switch {
	case r.Method == "SUBSCRIBE" && len(r.Header[headerSID]) > 0:
		return n.handleRenew(r, service, sub)
	case r.Method == "SUBSCRIBE":
		return n.handleSubscribe(r, service, sub, initial)
	case r.Method == "UNSUBSCRIBE":
		return n.handleUnsubscribe(r, service, sub)
	}
	return http1.Empty(http1.MethodNotAllowed, http1.Field{Name: "Allow", Value: "SUBSCRIBE, UNSUBSCRIBE"})
}

func (n *Notifier) handleSubscribe(r *http1.Request, service string, sub Subscriber, initial func() []Property) *http1.Response {
	urls, err := n.wanted(r.Header, sub)
	if err != nil {
		return n.refuse(http1.PreconditionFailed, service, sub, err)
	}
	lasts := grant(r.Header[headerTimeout], n.cfg.Timeout, n.cfg.MaxTimeout)
	s, err := n.subscribe(sub, service, urls, lasts, initial)
	if err != nil {
		return n.refuse(http1.ServiceUnavailable, service, sub, err)
	}
	answer := n.granted(s.id, lasts)
	answer.Sent = func(err error) {
		if err != nil {
			n.abandon(s) // nobody knows its SID
			n.logSubscription("subscription not answered", service, sub, err)
			return
		}
		n.start(s)
		n.logSubscription("subscription begun", service, sub, nil)
	}
	return answer
}

// wanted checks the headers of a new subscription, and returns its URLs. A
// repeated line is refused rather than joined or picked from: another parser
// would pick otherwise.
func (n *Notifier) wanted(h http1.Header, sub Subscriber) ([]callback, error) {
	if nt := h[headerNT]; len(nt) != 1 || nt[0] != eventType {
		return nil, errNT
	}
	if len(h[headerCallback]) != 1 {
		return nil, errNoCallback
	}
	if !n.neighbour(sub) {
		return nil, errForeignHost
	}
	// A copy: a subscription keeps its URLs, and would keep the whole head by them.
	return parseCallbacks(strings.Clone(h[headerCallback][0]), sub.Addr.WithZone(""))
}

// neighbour reports whether events may be sent to sub at all (UDA 2.0 section 4.1.2 as
// revised in 2020; F1): it is one other host, on the link. Loopback, where both ends
// are the same host, serves nobody but tests, for the sockets of a gateway are on its
// LAN.
func (n *Notifier) neighbour(sub Subscriber) bool {
	a := sub.Addr
	switch {
	case !a.IsValid(), a.Is4In6(), a.IsUnspecified(), a.IsMulticast():
		return false
	case a.WithZone("") == sub.Local.WithZone("") && !a.IsLoopback():
		return false
	}
	return n.cfg.OnLink == nil || n.cfg.OnLink(sub.Interface, a)
}

func (n *Notifier) handleRenew(r *http1.Request, service string, sub Subscriber) *http1.Response {
	sid, status, err := theSID(r.Header)
	if err != nil {
		return n.refuse(status, service, sub, err)
	}
	lasts := grant(r.Header[headerTimeout], n.cfg.Timeout, n.cfg.MaxTimeout)
	if err := n.renew(sub, service, sid, lasts); err != nil {
		return n.refuse(http1.PreconditionFailed, service, sub, err)
	}
	return n.granted(sid, lasts)
}

func (n *Notifier) handleUnsubscribe(r *http1.Request, service string, sub Subscriber) *http1.Response {
	sid, status, err := theSID(r.Header)
	if err != nil {
		return n.refuse(status, service, sub, err)
	}
	if err := n.unsubscribe(sub, service, sid); err != nil {
		return n.refuse(http1.PreconditionFailed, service, sub, err)
	}
	return http1.Empty(http1.OK)
}

// theSID returns the SID of a request that must have one, and neither CALLBACK nor
// NT beside it; or the status to refuse with.
func theSID(h http1.Header) (sid string, status int, err error) {
	values := h[headerSID]
	switch {
	case len(values) > 0 && (len(h[headerCallback]) > 0 || len(h[headerNT]) > 0):
		return "", http1.BadRequest, errMixed
	case len(values) != 1 || values[0] == "":
		return "", http1.PreconditionFailed, errNoSID
	}
	return values[0], 0, nil
}

// granted answers a subscription or its renewal. The durations are whole seconds
// or cut to such: a client must not believe it has longer than it has.
func (n *Notifier) granted(sid string, lasts time.Duration) *http1.Response {
	answer := http1.Empty(http1.OK, http1.Field{Name: "SID", Value: sid},
		http1.Field{Name: "TIMEOUT", Value: "Second-" + strconv.FormatInt(int64(lasts/time.Second), 10)})
	if n.cfg.Server != "" {
		answer.Header = append(answer.Header, http1.Field{Name: "SERVER", Value: n.cfg.Server})
	}
	return answer
}

func (n *Notifier) refuse(status int, service string, sub Subscriber, why error) *http1.Response {
	n.logSubscription("subscription request refused", service, sub, why)
	return http1.Empty(status)
}

func (n *Notifier) logSubscription(what, service string, sub Subscriber, err error) {
	n.cfg.Logger.Debug(what, "service", service, "subscriber", sub.Addr, "interface", sub.Interface, "err", err)
}
