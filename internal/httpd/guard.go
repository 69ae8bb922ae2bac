package httpd

import (
	"net/netip"
	"strings"

	"portcullis/internal/http1"
)

// MaxBody is how long a request body may be, in bytes (abuse case G7).
const MaxBody = 16 << 10

// maxLines is how many header lines a request may have, Host included (abuse
// case G7). Control points send about ten.
const maxLines = 64

// methods that a handler may see. M-POST is retired (UDA 1.1 section 3.1).
const methods = "GET, HEAD, POST, SUBSCRIBE, UNSUBSCRIBE"

// fromBrowsers are headers that browsers send and control points do not (abuse
// case D4), and so is every Sec-* but one: Sec-Fetch-Mode alone is what Node's
// own fetch sends, and js-libp2p's control point with it. A browser never sends
// that one without Sec-Fetch-Site.
var fromBrowsers = []string{"Origin", "Referer", "Cookie", "Upgrade"}

// guard lets only those requests through that a control point would send: it returns
// the response that refuses r, or nil. Nothing of the body has been read yet.
func guard(r *http1.Request) *http1.Response {
	if r.Target[0] != '/' {
		r.Host, r.Target = origin(r)
	}
	switch status := verdict(r); status {
	case 0:
		return nil
	case http1.MethodNotAllowed:
		return http1.Empty(status, http1.Field{Name: "Allow", Value: methods})
	default:
		return http1.Empty(status)
	}
}

// verdict returns the status that refuses r, or 0.
func verdict(r *http1.Request) int {
	switch {
	case r.Target == "": // "PRI *", CONNECT, other schemes
		return http1.BadRequest
	case r.Encoded(): // abuse cases G6, G10; a deviation from UDA 1.1 section 3.1
		return http1.NotImplemented
	case r.Lines > maxLines:
		return http1.HeaderFieldsTooLarge
	case r.Host == "":
		return http1.BadRequest
	case !ours(r): // DNS rebinding (D1)
		return http1.Forbidden
	case browser(r.Header):
		return http1.Forbidden
	case !allowed(r.Method):
		return http1.MethodNotAllowed
	case repeated(r.Header):
		return http1.BadRequest
	case r.Method == http1.Post && r.Length < 0:
		return http1.LengthRequired
	case r.Length > MaxBody:
		return http1.ContentTooLarge
	case r.Header.Get("Expect") != "" && !continues(r):
		return http1.ExpectationFailed
	}
	return 0
}

func allowed(method string) bool {
	for rest := methods; rest != ""; {
		var one string
		if one, rest, _ = strings.Cut(rest, ", "); one == method {
			return true
		}
	}
	return false
}

// continues reports whether the client waits for a word before it sends the body (RFC
// 9110 section 10.1.1).
func continues(r *http1.Request) bool {
	return strings.EqualFold(r.Header.Get("Expect"), "100-continue")
}

// origin returns the authority and the path of a target with "http://" before it,
// which every server must accept (RFC 9112 section 3.2.2) and a client in
// go-ethereum#21370 sends. The authority stands in for Host then, as it does in
// that section, and must be ours like any other (D1). What a browser cannot write in
// one it cannot write in the other; it sends this form to a proxy alone, and then with
// the name of the page. A target that is neither form is "".
func origin(r *http1.Request) (host, target string) {
	rest, absolute := strings.CutPrefix(r.Target, "http://")
	at := strings.IndexByte(rest, '/')
	if !absolute || at <= 0 || strings.ContainsAny(rest[:at], "@?#") || r.Host == "" {
		return r.Host, ""
	}
	return rest[:at], rest[at:]
}

// ours reports whether Host is the literal address that this connection came to,
// with our port or none. A zone means something to the client's machine only, and
// some leave theirs there.
func ours(r *http1.Request) bool {
	// Reading the bare address with a port of ours behind it has one parser say
	// what a literal is, and where brackets belong.
	if host, err := netip.ParseAddrPort(r.Host + ":0"); err == nil {
		return host.Addr().WithZone("") == r.Local.Addr()
	}
	host, err := netip.ParseAddrPort(r.Host)
	return err == nil && host.Addr().WithZone("") == r.Local.Addr() && host.Port() == r.Local.Port()
}

func browser(h http1.Header) bool {
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
func repeated(h http1.Header) bool {
	for _, name := range []string{"Soapaction", "Content-Type", "Callback", "Sid", "Nt", "Timeout"} {
		if len(h[name]) > 1 {
			return true
		}
	}
	return false
}
