package control_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"portcullis/internal/control"
	"portcullis/portmap"
)

// TestRefused: what was refused, key by key.
func TestRefused(t *testing.T) {
	t.Parallel()
	socket, _ := serve(t, "")
	_, got := raw(t, socket, "GET", "/v1/refused", "")
	want := `[{"client":{"address":"192.168.1.50","mac":"02:00:00:00:00:05","host":"console","interface":"br-lan"},"left_out":3,"refused":[` +
		`{"time":"2026-11-30T01:00:00Z","count":14,"protocol":"tcp","family":4,"external_port":8080,"internal_ip":"192.168.1.50","internal_port":8080,"remote":"","via":"upnp","description":"game",` +
		`"action":"deny","reason":"privileged-port","rule":"web","wall":false,"why":"no","add":"[[rule]]\n","above":"web"}]}]` + "\n"
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	list, err := control.NewClient(socket).Refused(t.Context())
	if err != nil || len(list) != 1 || list[0].Refused[0].Count != 14 {
		t.Errorf("%+v, %v", list, err)
	}
}

// TestExplain: a question is understood as the protocol would ask it, and one that is not is
// answered with a sentence.
func TestExplain(t *testing.T) {
	t.Parallel()
	socket, m := serve(t, "")
	for body, want := range map[string]string{
		`{"client":"192.168.1.9","protocol":"tcp","port":22}`:                                 "192.168.1.9  tcp 22 22 upnp true",
		`{"client":"AA:00:00:00:00:01","protocol":"udp","port":5000,"external_port":0}`:       "invalid IP aa:00:00:00:00:01 udp 5000 0 upnp false",
		`{"client":"2001:db8::9","protocol":"udp","port":5000,"via":"pcp"}`:                   "2001:db8::9  udp 5000 5000 pcp false",
		`{"client":"192.168.1.9","protocol":"udp","port":1,"external_port":2,"via":"natpmp"}`: "192.168.1.9  udp 1 2 natpmp false",
	} {
		code, text := raw(t, socket, "POST", "/v1/explain", body)
		q := m.query
		got := fmt.Sprint(q.Addr, " ", q.MAC, " ", q.Request.Transport, " ", q.Port, " ", q.Request.ExternalPort, " ", q.Request.Client.Via, " ", q.Request.Exact)
		if code != 200 || got != want {
			t.Errorf("%s: %d %q, want %q; %s", body, code, got, want, text)
		}
	}
	for body, want := range map[string]string{
		`{"client":"console","protocol":"tcp","port":22}`:                                                     `\"console\" is neither an address nor a MAC address`,
		`{"client":"00:00:00:00:00:00","protocol":"tcp","port":22}`:                                           "neither an address",
		`{"client":"fe80::1%br-lan","protocol":"tcp","port":22}`:                                              "not the address of a host",
		`{"client":"::ffff:192.168.1.9","protocol":"tcp","port":22}`:                                          "not the address of a host",
		`{"client":"192.168.1.9","protocol":"sctp","port":22}`:                                                "neither tcp nor udp",
		`{"client":"192.168.1.9","protocol":"tcp"}`:                                                           "0 is not a port",
		`{"client":"192.168.1.9","protocol":"tcp","port":70000}`:                                              "70000",
		`{"client":"192.168.1.9","protocol":"tcp","port":1,"via":"owner"}`:                                    `\"owner\" is not a protocol that asks for ports`,
		`{"client":"192.168.1.9","protocol":"tcp","port":1,"lease":1}`:                                        "unknown field",
		`{"client":"192.168.1.9","protocol":"tcp","port":1,"description":"` + strings.Repeat("x", 257) + `"}`: "at most 256 octets",
		`{} {}`: "", `[`: "", ``: "",
	} {
		if code, text := raw(t, socket, "POST", "/v1/explain", body); code != 400 || !strings.Contains(text, want) || !strings.Contains(text, `"error":"`) {
			t.Errorf("%.80s: %d %s, want %q", body, code, text, want)
		}
	}
	off := `{"client":"10.9.9.8","protocol":"tcp","port":1}`
	if code, text := raw(t, socket, "POST", "/v1/explain", off); code != 409 || !strings.Contains(text, `{"reason":"not-served","error":"NAT-PMP is off"}`) {
		t.Errorf("a protocol that is off: %d %s", code, text)
	}
	_, err := control.NewClient(socket).Explain(t.Context(), control.Question{Client: "10.9.9.9", Protocol: "tcp", Port: 1})
	if err == nil || err.Error() != "10.9.9.9 is in no network that is served" {
		t.Errorf("%v", err)
	}
}

// FuzzExplain: whatever is asked, it is one question that was understood, or a sentence.
func FuzzExplain(f *testing.F) {
	for _, s := range []string{
		`{"client":"192.168.1.9","protocol":"tcp","port":22}`, `{"client":"aa:00:00:00:00:01","protocol":"udp","port":5000,"external_port":0,"via":"pcp"}`,
		`{"client":"::","protocol":"tcp","port":1}`, `{}`, `[`, `{"port":-1}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var asked []control.Query
		w := control.Explain(body, func(q control.Query) { asked = append(asked, q) })
		if (w.Status == 200) != (len(asked) == 1) || len(asked) > 1 {
			t.Fatalf("HTTP %d, asked %v", w.Status, asked)
		}
		if w.Status != 200 {
			var why control.Failure
			if err := json.Unmarshal(w.Body, &why); err != nil || why.Error == "" || len(w.Body) > 8192 {
				t.Errorf("HTTP %d without a reason: %s", w.Status, w.Body)
			}
			return
		}
		q := asked[0]
		if q.Port == 0 || !q.Request.Transport.Valid() || q.Addr.IsValid() == (q.MAC != portmap.MAC{}) || len(q.Request.Description) > portmap.MaxDescription || q.Addr.Zone() != "" {
			t.Errorf("%q asks %+v", body, q)
		}
	})
}

// follow begins to read events, and returns when it is certain that none is missed.
func follow(t *testing.T, socket string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(15 * time.Second)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(conn, "GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
	from := bufio.NewReader(conn)
	for {
		line, err := from.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if line == "\r\n" {
			return conn, from
		}
	}
}

// TestEvents: each is a line, key by key; only so many follow, others are still answered, and
// who goes away makes room.
func TestEvents(t *testing.T) {
	t.Parallel()
	socket, m := serve(t, "")
	var first net.Conn
	var all []*bufio.Reader
	for range 8 {
		conn, from := follow(t, socket)
		if all = append(all, from); first == nil {
			first = conn
		}
	}
	if code, text := raw(t, socket, "GET", "/v1/events", ""); code != 503 || !strings.Contains(text, "8 follow the events already") {
		t.Errorf("the ninth: %d %s", code, text)
	}
	if code, _ := raw(t, socket, "GET", "/v1/status", ""); code != 200 {
		t.Errorf("a question beside them: %d", code)
	}
	client := portmap.Client{Addr: netip.MustParseAddr("192.168.1.50"), MAC: portmap.MAC{2, 0, 0, 0, 0, 5}, Interface: "br-lan", Name: "console", Via: portmap.ViaUPnP}
	at := time.Date(2026, 11, 30, 1, 0, 0, 5e8, time.UTC)
	m.tell(portmap.Event{Time: at, Type: portmap.Denied, Reason: portmap.RuleDenied, Detail: "no", Rule: "r", Client: client, Mapping: portmap.Mapping{
		Client: client, Transport: portmap.UDP, Internal: netip.MustParseAddrPort("192.168.1.50:3074"), ExternalPort: 3075, Rule: "r",
	}})
	m.tell(portmap.Event{Time: at, Type: portmap.Resync})
	want := `{"time":"2026-11-30T01:00:00.5Z","event":"denied","reason":"rule-denied","why":"no","rule":"r",` +
		`"client":{"address":"192.168.1.50","mac":"02:00:00:00:00:05","host":"console","interface":"br-lan"},` +
		`"mapping":{"id":0,"protocol":"udp","family":4,"external_port":3075,"internal_ip":"192.168.1.50","internal_port":3074,"remote":"","client_mac":"02:00:00:00:00:05","client_host":"console","via":"upnp","description":"","rule":"r","wan":"","enabled":true,"created":"","expires_in":0,"endless":false,"suspended":false,"packets":0,"bytes":0,"uncounted":true}}` + "\n" +
		`{"time":"2026-11-30T01:00:00.5Z","event":"resync","reason":"","why":"","rule":"","client":null,"mapping":null}` + "\n"
	for i, from := range all {
		one, err := from.ReadString('\n')
		two, err2 := from.ReadString('\n')
		if got := one + two; err != nil || err2 != nil || got != want {
			t.Fatalf("%d: %v %v\n%swant\n%s", i, err, err2, got, want)
		}
	}
	first.Close()
	until := time.Now().Add(15 * time.Second)
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		err := control.NewClient(socket).Events(ctx, func(control.Event) error { return nil })
		cancel()
		if err == nil || time.Now().After(until) {
			t.Fatalf("there is no room again: %v", err)
		}
		if refusal := (*control.Refusal)(nil); !errors.As(err, &refusal) {
			return // it followed until its time was over
		}
	}
}
