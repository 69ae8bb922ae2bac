package gena

import (
	"errors"
	"net/http"
	"strconv"
	"time"
)

// The headers as net/http files them. Answers carry them in capitals, as UDA
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
// methods. All have an empty body.
//
// w must be able to flush, itself or through Unwrap (http.ResponseController):
// the first event goes out only after the answer is on its way.
func (n *Notifier) Handle(w http.ResponseWriter, r *http.Request, service string, sub Subscriber, initial func() []Property) {
	switch r.Method {
	case "SUBSCRIBE":
		if len(r.Header[headerSID]) > 0 {
			n.handleRenew(w, r, service, sub)
		} else {
			n.handleSubscribe(w, r, service, sub, initial)
		}
	case "UNSUBSCRIBE":
		n.handleUnsubscribe(w, r, service, sub)
	default:
		w.Header().Set("Allow", "SUBSCRIBE, UNSUBSCRIBE")
		answer(w, http.StatusMethodNotAllowed)
	}
}

func (n *Notifier) handleSubscribe(w http.ResponseWriter, r *http.Request, service string, sub Subscriber, initial func() []Property) {
	urls, err := n.wanted(r.Header, sub)
	if err != nil {
		n.refuse(w, http.StatusPreconditionFailed, service, sub, err)
		return
	}
	lasts := grant(r.Header[headerTimeout], n.cfg.Timeout, n.cfg.MaxTimeout)
	s, err := n.subscribe(sub, service, urls, lasts, initial)
	if err != nil {
		n.refuse(w, http.StatusServiceUnavailable, service, sub, err)
		return
	}
	n.granted(w, s.id, lasts)
	if err := http.NewResponseController(w).Flush(); err != nil {
		n.abandon(s) // nobody knows its SID
		if errors.Is(err, http.ErrNotSupported) {
			n.cfg.Logger.Error("event subscriptions need a response writer that can flush", "service", service)
		}
		n.logSubscription("subscription not answered", service, sub, err)
		return
	}
	n.start(s)
	n.logSubscription("subscription begun", service, sub, nil)
}

// wanted checks the headers of a new subscription, and returns its URLs. A
// repeated line is refused rather than joined or picked from: another parser
// would pick otherwise.
func (n *Notifier) wanted(h http.Header, sub Subscriber) ([]callback, error) {
	if nt := h[headerNT]; len(nt) != 1 || nt[0] != eventType {
		return nil, errNT
	}
	if len(h[headerCallback]) != 1 {
		return nil, errNoCallback
	}
	if !n.neighbour(sub) {
		return nil, errForeignHost
	}
	return parseCallbacks(h[headerCallback][0], sub.Addr.WithZone(""))
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

func (n *Notifier) handleRenew(w http.ResponseWriter, r *http.Request, service string, sub Subscriber) {
	sid, status, err := theSID(r.Header)
	if err != nil {
		n.refuse(w, status, service, sub, err)
		return
	}
	lasts := grant(r.Header[headerTimeout], n.cfg.Timeout, n.cfg.MaxTimeout)
	if err := n.renew(sub, service, sid, lasts); err != nil {
		n.refuse(w, http.StatusPreconditionFailed, service, sub, err)
		return
	}
	n.granted(w, sid, lasts)
}

func (n *Notifier) handleUnsubscribe(w http.ResponseWriter, r *http.Request, service string, sub Subscriber) {
	sid, status, err := theSID(r.Header)
	if err != nil {
		n.refuse(w, status, service, sub, err)
		return
	}
	if err := n.unsubscribe(sub, service, sid); err != nil {
		n.refuse(w, http.StatusPreconditionFailed, service, sub, err)
		return
	}
	answer(w, http.StatusOK)
}

// theSID returns the SID of a request that must have one, and neither CALLBACK nor
// NT beside it; or the status to refuse with.
func theSID(h http.Header) (sid string, status int, err error) {
	values := h[headerSID]
	switch {
	case len(values) > 0 && (len(h[headerCallback]) > 0 || len(h[headerNT]) > 0):
		return "", http.StatusBadRequest, errMixed
	case len(values) != 1 || values[0] == "":
		return "", http.StatusPreconditionFailed, errNoSID
	}
	return values[0], 0, nil
}

// granted answers a subscription or its renewal. The durations are whole seconds
// or cut to such: a client must not believe it has longer than it has.
func (n *Notifier) granted(w http.ResponseWriter, sid string, lasts time.Duration) {
	h := w.Header()
	h["SID"] = []string{sid}
	h["TIMEOUT"] = []string{"Second-" + strconv.FormatInt(int64(lasts/time.Second), 10)}
	if n.cfg.Server != "" {
		delete(h, "Server") // one that the caller may have set in this case
		h["SERVER"] = []string{n.cfg.Server}
	}
	answer(w, http.StatusOK)
}

// answer writes a status without a body. DATE is net/http's to add.
func answer(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(status)
}

func (n *Notifier) refuse(w http.ResponseWriter, status int, service string, sub Subscriber, why error) {
	n.logSubscription("subscription request refused", service, sub, why)
	answer(w, status)
}

func (n *Notifier) logSubscription(what, service string, sub Subscriber, err error) {
	n.cfg.Logger.Debug(what, "service", service, "subscriber", sub.Addr, "interface", sub.Interface, "err", err)
}
