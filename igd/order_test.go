package igd_test

import (
	"io"
	"strings"
	"testing"
)

// TestOrderOfChecks: CHOICE-14. A request with every mistake there is, which are taken
// back one at a time: each answer is that for the first one left.
func TestOrderOfChecks(t *testing.T) {
	t.Parallel()
	l := start(t)
	wantCode(t, l.call(hostB, ip2, "AddPortMapping", mapping(hostB)...), 0)
	const soapAction = `"` + typePrefix + ip2 + `#`
	method, path := "PUT", "/x"
	action, media, body := "", "application/json", "<"
	args := mapping(hostB, "NewProtocol", "ICMP", "NewInternalPort", "-")
	for _, c := range []struct {
		mend   func()
		status int
		code   string
	}{
		{func() {}, 405, ""}, // a method that no path has
		{func() { method = "GET" }, 404, ""},
		{func() { path = l.url(2, "WANIPConnection", "control") }, 405, ""},
		{func() { method = "POST" }, 400, ""},
		{func() { action = soapAction + `DeletePortMapping"` }, 415, ""},
		{func() { media = "text/xml" }, 400, ""},
		{func() { body = "" }, 500, "401"},
		{func() { action = soapAction + `AddPortMapping"` }, 500, "402"},
		{func() { args = mapping(hostB, "NewProtocol", "ICMP") }, 500, "601"},
		{func() { args = mapping(hostB) }, 500, "606"},
		{func() { args = mapping(hostA) }, 500, "718"},
		{func() { args = mapping(hostA, "NewExternalPort", "6001") }, 200, ""},
	} {
		c.mend()
		text := body
		if text == "" {
			text = envelope(typePrefix+ip2, "AddPortMapping", argsXML(args...))
		}
		headers := []string{"CONTENT-TYPE", media}
		if action != "" {
			headers = append(headers, "SOAPACTION", action)
		}
		resp := l.do(hostA, method, path, text, headers...)
		got, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != c.status || !strings.Contains(string(got), "<errorCode>"+c.code+"</errorCode>") && c.code != "" {
			t.Errorf("%s %s, %s, %s: %s\n%s\nwant %d, %s", method, path, action, media, resp.Status, got, c.status, c.code)
		}
	}
}
