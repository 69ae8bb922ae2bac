package httpd

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// MaxBody is how long a request body may be, in bytes (abuse case G7).
const MaxBody = 16 << 10

// maxLines is how many header lines a request may have, Host included (abuse
// case G7). Control points send about ten.
const maxLines = 64

// methods that a handler may see. M-POST is retired (UDA 1.1 section 3.1).
var methods = map[string]bool{
	http.MethodGet: true, http.MethodHead: true, http.MethodPost: true,
	"SUBSCRIBE": true, "UNSUBSCRIBE": true,
}

// fromBrowsers are headers that browsers send and control points do not (abuse
// case D4), and so is every Sec-* but one: Sec-Fetch-Mode alone is what Node's
// own fetch sends, and js-libp2p's control point with it. A browser never sends
// that one without Sec-Fetch-Site.
var fromBrowsers = []string{"Origin", "Referer", "Cookie", "Upgrade"}

// guard lets only those requests through that a control point would send. What
// a handler cannot see any more (bare LF, folded lines, equal Content-Lengths)
// does no harm, because bytes after the first request are never parsed.
func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			r.RequestURI = origin(r)
		}
		if status := verdict(r); status != 0 {
			w.Header().Set("Connection", "close")
			if status == http.StatusMethodNotAllowed {
				w.Header().Set("Allow", "GET, HEAD, POST, SUBSCRIBE, UNSUBSCRIBE")
			}
			empty(w, status)
			return
		}
		if r.Method == http.MethodPost {
			r.Body = http.MaxBytesReader(w, r.Body, MaxBody)
		} else {
			r.Body = http.NoBody // nothing else has one that means anything
		}
		next.ServeHTTP(w, r)
	})
}

// verdict returns the status that refuses r, or 0. Nothing of the body has been
// read yet.
func verdict(r *http.Request) int {
	switch {
	case r.ProtoMajor != 1, !strings.HasPrefix(r.RequestURI, "/"):
		return http.StatusBadRequest // "PRI *", CONNECT, other schemes
	case len(r.TransferEncoding) > 0:
		return http.StatusNotImplemented // abuse cases G6, G10; a deviation from UDA 1.1 section 3.1
	case lines(r.Header) > maxLines:
		return http.StatusRequestHeaderFieldsTooLarge
	case r.Host == "":
		return http.StatusBadRequest
	case !ours(r):
		return http.StatusForbidden // DNS rebinding (D1)
	case browser(r.Header):
		return http.StatusForbidden
	case !methods[r.Method]:
		return http.StatusMethodNotAllowed
	case repeated(r.Header):
		return http.StatusBadRequest
	case r.Method == http.MethodPost && r.ContentLength < 0,
		r.Method == http.MethodPost && r.Header.Get("Content-Length") == "" && r.ContentLength == 0:
		return http.StatusLengthRequired
	case r.ContentLength > MaxBody:
		return http.StatusRequestEntityTooLarge
	}
	return 0
}

// origin returns the target of a request without "http://" and the authority before it,
// which every server must accept (RFC 9112 section 3.2.2) and a client in
// go-ethereum#21370 sends. The authority stands in for Host then, as it does in
// that section: net/http puts it there, and it must be ours like any other (D1). What a
// browser cannot write in one it cannot write in the other; it sends this form to a
// proxy alone, and then with the name of the page.
func origin(r *http.Request) string {
	rest, absolute := strings.CutPrefix(r.RequestURI, "http://"+r.Host)
	if absolute && r.URL.Host == r.Host && r.URL.User == nil {
		return rest
	}
	return r.RequestURI
}

// lines counts header lines. net/http keeps Host apart, and has joined folded
// lines into one.
func lines(h http.Header) int {
	n := 1
	for _, values := range h {
		n += len(values)
	}
	return n
}

// ours reports whether Host is the literal address that this connection came to,
// with our port or none. A zone means something to the client's machine only, and
// some leave theirs there. It was sent once: net/http refuses a second one.
func ours(r *http.Request) bool {
	at, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return false
	}
	local := addrPort(at)
	// Reading the bare address with a port of ours behind it has one parser say
	// what a literal is, and where brackets belong.
	if host, err := netip.ParseAddrPort(r.Host + ":0"); err == nil {
		return host.Addr().WithZone("") == local.Addr()
	}
	host, err := netip.ParseAddrPort(r.Host)
	return err == nil && host.Addr().WithZone("") == local.Addr() && host.Port() == local.Port()
}

func browser(h http.Header) bool {
	for _, name := range fromBrowsers {
		if _, there := h[name]; there {
			return true
		}
	}
	for name := range h {
		if strings.HasPrefix(name, "Sec-") && name != "Sec-Fetch-Mode" {
			return true
		}
	}
	return false
}

// repeated finds a header line that stands there twice and decides something:
// Get returns the first, another parser the last.
func repeated(h http.Header) bool {
	for _, name := range []string{"Soapaction", "Content-Type", "Callback", "Sid", "Nt", "Timeout"} {
		if len(h[name]) > 1 {
			return true
		}
	}
	return false
}
