package control_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"portcullis/internal/control"
	"portcullis/portmap"
)

func (t *table) Map(_ context.Context, r portmap.Request) (portmap.Mapping, error) {
	t.wished = append(t.wished, r)
	c, err := t.Plan(time.Now(), r, portmap.Decision{}, r.Lifetime, 7)
	if err != nil {
		return portmap.Mapping{}, err
	}
	return *c.New, nil
}

// TestAdd: what the owner opens is asked for in his name, exactly as he said, and a body
// that is not understood asks for nothing.
func TestAdd(t *testing.T) {
	t.Parallel()
	socket, m := serve(t, "")
	for _, c := range []struct {
		body   string
		status int
		says   string // the request, or the reason and a part of the sentence
	}{
		{`{"protocol":"tcp","external_port":8443,"internal_ip":"192.168.1.20","internal_port":443}`, 200, "tcp 8443 -> 192.168.1.20:443, 0s, "},
		{`{"protocol":"udp","external_port":1,"internal_ip":"192.168.1.20","internal_port":2,"lifetime":3600,"description":"a game","remote":"198.51.100.7,203.0.113.0/24"}`,
			200, "udp 1 -> 192.168.1.20:2 from 198.51.100.7 from 203.0.113.0/24, 1h0m0s, a game"},
		{`{"protocol":"tcp","internal_ip":"2001:db8::5","internal_port":443}`, 200, "tcp [2001:db8::5]:443, 0s, "},
		{`{"protocol":"udp","external_port":3075,"internal_ip":"192.168.1.20","internal_port":2}`, 409, "port-taken: udp port 3075 is mapped by another host"},
		{`{"protocol":"sctp","external_port":1,"internal_ip":"192.168.1.20","internal_port":2}`, 400, `bad-request: protocol "sctp" is neither`},
		{`{"protocol":"tcp","external_port":1,"internal_ip":"host","internal_port":2}`, 400, `bad-request: "host" is not an address`},
		{`{"protocol":"tcp","external_port":1,"internal_ip":"fe80::1%lan","internal_port":2}`, 400, "is not an address"},
		{`{"protocol":"tcp","external_port":0,"internal_ip":"192.168.1.20","internal_port":2}`, 400, "0 is not a port"},
		{`{"protocol":"tcp","external_port":1,"internal_ip":"192.168.1.20","internal_port":0}`, 400, "0 is not a port"},
		{`{"protocol":"tcp","external_port":70000,"internal_ip":"192.168.1.20","internal_port":1}`, 400, "bad-request: "},
		{`{"protocol":"tcp","external_port":443,"internal_ip":"2001:db8::5","internal_port":443}`, 400, "nothing is translated for IPv6"},
		{`{"protocol":"tcp","external_port":1,"internal_ip":"192.168.1.20","internal_port":2,"lifetime":-1}`, 400, "a lifetime is 0"},
		{`{"protocol":"tcp","external_port":1,"internal_ip":"192.168.1.20","internal_port":2,"lifetime":9999999999}`, 400, "a lifetime is 0"},
		{`{"protocol":"tcp","external_port":1,"internal_ip":"192.168.1.20","internal_port":2,"remote":"198.51.100.0/8"}`, 400, "198.51.100.0/8 is not a network: that is 198.0.0.0/8"},
		{`{"protocol":"tcp","external_port":1,"internal_ip":"192.168.1.20","internal_port":2,"remote":"evil.example"}`, 400, `"evil.example" is neither an address nor a network`},
		{`{"protocol":"tcp","external_port":1,"internal_ip":"192.168.1.20","internal_port":2,"description":"` + strings.Repeat("x", 257) + `"}`, 400, "at most 256 bytes"},
		{`{"everything":true}`, 400, "bad-request: "},
		{`{}{}`, 400, "bad-request: "},
		{``, 400, "bad-request: "},
	} {
		m.wished = nil
		code, text := raw(t, socket, "POST", "/v1/add", c.body)
		var f control.Failure
		if code != 200 {
			if err := json.Unmarshal([]byte(text), &f); err != nil {
				t.Errorf("%s: %v in %s", c.body, err, text)
			}
		}
		says := f.Reason + ": " + f.Error
		if code == 200 && len(m.wished) == 1 {
			r := m.wished[0]
			says = fmt.Sprintf("%s, %s, %s", &portmap.Mapping{Kind: r.Kind, Transport: r.Transport, Internal: r.Internal, ExternalPort: r.ExternalPort, Remotes: r.Remotes}, r.Lifetime, r.Description)
			if !r.Client.Owner() || r.Client.Addr != r.Internal.Addr() || !r.Exact {
				t.Errorf("%s is asked for as %+v", c.body, r)
			}
		}
		if code != c.status || !strings.Contains(says, c.says) || code == 400 && m.wished != nil {
			t.Errorf("%s: %d %s, want %d %s; asked %+v", c.body, code, says, c.status, c.says, m.wished)
		}
	}
	got, err := control.NewClient(socket).Add(t.Context(), control.Addition{Protocol: "tcp", ExternalPort: 8443, InternalIP: "192.168.1.20", InternalPort: 443})
	want := netip.MustParseAddr("192.168.1.20").String()
	if err != nil || got.Via != "owner" || got.ExpiresIn != 0 || got.InternalIP != want || got.ClientMAC != "" || got.Family != 4 {
		t.Errorf("added %+v, %v", got, err)
	}
}
