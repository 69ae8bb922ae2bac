package web

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"portcullis/internal/http1"
)

// always is what every answer has: nothing but our own files is loaded or run, nobody
// frames the page, is told where it is from, or keeps what it shows.
var always = []http1.Field{
	{Name: "Content-Security-Policy", Value: "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"},
	{Name: "X-Frame-Options", Value: "DENY"},
	{Name: "X-Content-Type-Options", Value: "nosniff"},
	{Name: "Referrer-Policy", Value: "no-referrer"},
	{Name: "Cross-Origin-Opener-Policy", Value: "same-origin"},
	{Name: "Cross-Origin-Resource-Policy", Value: "same-origin"},
	{Name: "Cache-Control", Value: "no-store"},
}

// The names of the two secrets of who is signed in.
const (
	cookieName = "portcullis"
	keyHeader  = "X-Portcullis-Key" // canonical, as http1.Header has it
)

// refuse returns the answer to what must not be answered otherwise; nil where a route
// will. Nothing of the body has been read yet.
func (s *Server) refuse(r *http1.Request) *http1.Response {
	// Another name for our address is how a page of another origin becomes one of ours
	// (DNS rebinding).
	if !slices.Contains(s.cfg.Hosts, strings.ToLower(r.Host)) {
		return fail(http1.Forbidden, "host", fmt.Sprintf("this page is at http://%s/, and answers to no other name; a further one is given by portcullis web --host NAME", s.cfg.Hosts[0]))
	}
	found, ok := s.routes[r.Target]
	switch {
	case !ok:
		return fail(http1.NotFound, "not-found", "there is no such path")
	case r.Method != found.method && (r.Method != http1.Head || found.method != http1.Get):
		answer := fail(http1.MethodNotAllowed, "method", "the method is not "+found.method)
		answer.Header = append(answer.Header, http1.Field{Name: "Allow", Value: found.method})
		return answer
	case r.Encoded() || r.Length > maxBody:
		return fail(http1.ContentTooLarge, "too-long", fmt.Sprintf("a request has at most %d octets, and says how many", maxBody))
	case strings.HasPrefix(r.Target, "/v1/") && !ours(r):
		return fail(http1.Forbidden, "origin", "only this page itself may ask this")
	case found.method == http1.Post && r.Header.Get("Content-Type") != "application/json":
		return fail(http1.UnsupportedMediaType, "content-type", "the Content-Type is not application/json")
	case !found.open && !s.signedIn(r):
		return fail(http1.Forbidden, signedOut, "sign in first, by a link that portcullis web prints")
	}
	return nil
}

// signedOut is the reason by which the page knows that it must sign in.
const signedOut = "signed-out"

// ours reports whether a page of ours asks, as the browser says. It always names the origin
// of what may change something; browsers before 2023 say nothing of what is only read, which
// takes the key all the same.
func ours(r *http1.Request) bool {
	site := r.Header.Get("Sec-Fetch-Site")
	if site != "" && site != "same-origin" {
		return false
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return r.Method != http1.Post
	}
	host, plain := strings.CutPrefix(origin, "http://")
	if !plain { // of a proxy
		host = strings.TrimPrefix(origin, "https://")
	}
	return strings.EqualFold(host, r.Host)
}

// signedIn reports whether both secrets are those of a session.
func (s *Server) signedIn(r *http1.Request) bool {
	for _, cookie := range cookies(r) {
		if s.keys.known(cookie, r.Header.Get(keyHeader), time.Now()) {
			return true
		}
	}
	return false
}

// cookies returns the values of ours. A service on another port of this address can set one
// of the same name, for a longer path, which comes before ours and signs nobody out.
func cookies(r *http1.Request) (all []string) {
	for _, line := range r.Header["Cookie"] {
		for _, pair := range strings.Split(line, ";") {
			if name, value, _ := strings.Cut(strings.TrimSpace(pair), "="); name == cookieName {
				all = append(all, value)
			}
		}
	}
	return all
}
