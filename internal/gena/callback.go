package gena

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
)

// Bounds of one CALLBACK header.
const (
	maxURL   = 256 // bytes of one URL, abuse case F2
	maxURLs  = 4   // URLs in the header, the passed over included
	httpPort = 80  // what a URL without a port means; it is below MinPort
)

// MinPort is the least port that events are sent to: below are the services of the
// subscriber's system (abuse cases F1, F2).
const MinPort = 1024

var (
	errCallbackSyntax = errors.New("CALLBACK is not a list of URLs in angle brackets")
	errCallbackLong   = errors.New("CALLBACK has a URL that is too long, or too many URLs")
	errCallbackURL    = errors.New("CALLBACK has no http URL of the subscriber's own address and a port from 1024")
)

// A callback is what may be kept of a delivery URL: a port on the subscriber's
// own address, and what to ask there. It has no host on purpose.
type callback struct {
	port   uint16 // 1024-65535
	target string // path and query as the client wrote them; begins with a slash
}

// parseCallbacks reads a CALLBACK header, and keeps the URLs whose host is the
// literal self, in their order. A list that does not parse is refused whole; a
// URL that parses but leads elsewhere is passed over; no URL left is an error.
func parseCallbacks(header string, self netip.Addr) ([]callback, error) {
	var kept []callback
	rest := strings.Trim(header, " \t")
	if rest == "" {
		return nil, errCallbackSyntax
	}
	for seen := 0; rest != ""; seen++ {
		if seen == maxURLs {
			return nil, errCallbackLong
		}
		if rest[0] != '<' {
			return nil, errCallbackSyntax
		}
		end := strings.IndexByte(rest, '>')
		if end < 0 {
			return nil, errCallbackSyntax
		}
		url := rest[1:end]
		rest = strings.TrimLeft(rest[end+1:], " \t")
		if len(url) > maxURL {
			return nil, errCallbackLong
		}
		if !plainURL(url) {
			return nil, errCallbackSyntax
		}
		if c, ok := parseURL(url, self); ok {
			kept = append(kept, c)
		}
	}
	if len(kept) == 0 {
		return nil, errCallbackURL
	}
	return kept, nil
}

// plainURL reports whether url consists of visible ASCII that needs no guessing:
// no blanks, controls, bytes from 0x80, quotes, brackets of the list.
func plainURL(url string) bool {
	for i := range len(url) {
		if c := url[i]; c <= ' ' || c >= 0x7f || c == '<' || c == '>' || c == '"' {
			return false
		}
	}
	return true
}

// parseURL takes a URL apart: http, self as literal, a port, a path. It is
// written by hand because net/url accepts much that another parser would read
// otherwise, and because the path must stay as it is (abuse case F7).
func parseURL(url string, self netip.Addr) (callback, bool) {
	rest, ok := strings.CutPrefix(url, "http://")
	if !ok || strings.ContainsRune(rest, '#') { // a fragment has no place in a request
		return callback{}, false
	}
	authority, target := rest, "/"
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		authority, target = rest[:i], rest[i:]
		if target[0] == '?' {
			target = "/" + target
		}
	}
	host, port, ok := splitAuthority(authority)
	if !ok || port < MinPort || host != self {
		return callback{}, false
	}
	return callback{port: port, target: target}, true
}

// splitAuthority reads a literal address and a port. User names, zones, host
// names and IPv4 mapped into IPv6 do not pass (UDA 2.0 section 4.1.2 as revised
// in 2020; abuse cases F1, A8): what is left has one reading.
func splitAuthority(authority string) (netip.Addr, uint16, bool) {
	host, port := authority, ""
	hasPort := false
	if v6, ok := strings.CutPrefix(authority, "["); ok {
		var after string
		if host, after, ok = strings.Cut(v6, "]"); !ok {
			return netip.Addr{}, 0, false
		}
		if port, hasPort = strings.CutPrefix(after, ":"); after != "" && !hasPort {
			return netip.Addr{}, 0, false
		}
	} else {
		host, port, hasPort = strings.Cut(authority, ":")
	}
	addr, err := netip.ParseAddr(host)
	if err != nil || addr.Zone() != "" || addr.Is4In6() || addr.Is4() != (authority[0] != '[') {
		return netip.Addr{}, 0, false
	}
	if !hasPort {
		return addr, httpPort, true
	}
	n, ok := parsePort(port)
	return addr, n, ok
}

// parsePort reads one to five digits without leading zeros, 1-65535.
func parsePort(s string) (uint16, bool) {
	if s == "" || s[0] == '0' {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err == nil
}
