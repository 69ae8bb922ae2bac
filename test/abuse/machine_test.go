package abuse

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// aliases gives a host n addresses more.
func aliases(t *testing.T, h *lab.Host, n int, first string) []netip.Addr {
	t.Helper()
	all := make([]netip.Addr, n)
	for i, a := 0, netip.MustParseAddr(first); i < n; i, a = i+1, a.Next() {
		if all[i] = a; a.Is6() {
			testrig.On(t, h, "ip", "addr", "add", a.String()+"/64", "dev", "eth0", "nodad")
		} else {
			testrig.On(t, h, "ip", "addr", "add", a.String()+"/24", "dev", "eth0")
		}
	}
	return all
}

// hang keeps one slow connection to a server open until ctx ends: when it is closed,
// another one is made.
func hang(ctx context.Context, h *lab.Host, from netip.Addr, to string, opened func()) {
	again := time.NewTicker(200 * time.Millisecond)
	defer again.Stop()
	for ctx.Err() == nil {
		if conn, err := h.DialFrom(ctx, netip.AddrPortFrom(from, 0), "tcp", to); err == nil {
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			_, _ = conn.Write([]byte("POST /"))
			opened()
			_, _ = io.Copy(io.Discard, conn)
			stop()
			conn.Close()
		}
		select {
		case <-again.C:
		case <-ctx.Done():
		}
	}
}

// TestOneMachineSixteenAddresses: K2, G8. Slow connections from sixteen addresses of
// one machine, four each and made anew when they end, leave another host served.
func TestOneMachineSixteenAddresses(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		first   string
		gateway netip.Addr
		point   func(*testing.T, *rig) *lab.ControlPoint
	}{
		"IPv4": {"192.168.77.100", lab.GatewayLAN, func(t *testing.T, r *rig) *lab.ControlPoint { return r.v1(t, "a") }},
		"IPv6": {"2001:db8:77::100", lab.GatewayLAN6, func(t *testing.T, r *rig) *lab.ControlPoint {
			return r.six(t, "a", r.Host("a").Addr6, lab.GatewayLAN6, lab.WANIP2)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, noRates)
			c := x.point(t, r)
			ctx, cancel := context.WithCancel(t.Context())
			var hanging, opened sync.WaitGroup
			for _, from := range aliases(t, r.Host("b"), 16, x.first) {
				for range 4 {
					opened.Add(1)
					hanging.Go(func() { hang(ctx, r.Host("b"), from, hostPort(x.gateway, 5000), sync.OnceFunc(opened.Done)) })
				}
			}
			opened.Wait()
			served := 0
			for i := range 20 {
				if out, err := c.Call(t.Context(), "GetExternalIPAddress"); err != nil || out["NewExternalIPAddress"] == "" {
					t.Logf("request %d: %v", i, err)
				} else {
					served++
				}
			}
			cancel()
			hanging.Wait()
			if served < 19 {
				t.Errorf("%d of 20 requests of another host were served", served)
			}
		})
	}
}

// TestEightAddressesSubscribe: K2, F4. Eight addresses of one machine get what one
// machine may have, and another host still subscribes.
func TestEightAddressesSubscribe(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	event := eventURL(t, r)
	at := hostPort(lab.GatewayLAN, 5000)
	subscribe := func(h *lab.Host, from netip.Addr) string {
		ctx, cancel := contextFor(t, soon)
		defer cancel()
		conn, err := h.DialFrom(ctx, netip.AddrPortFrom(from, 0), "tcp4", at)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(soon)); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "SUBSCRIBE %s HTTP/1.1\r\nHost: %s\r\nCALLBACK: <http://%s:9080/>\r\nNT: upnp:event\r\nTIMEOUT: Second-1800\r\n\r\n", event, at, from)
		var answer bytes.Buffer
		_, _ = answer.ReadFrom(conn)
		return status(answer.String())
	}
	count := map[string]int{}
	for i, from := range aliases(t, r.Host("b"), 8, "192.168.77.100") {
		for range 8 {
			count[subscribe(r.Host("b"), from)]++
		}
		if i == 0 && count["200"] != 8 {
			t.Errorf("one address alone: %v", count)
		}
	}
	if count["200"] > 8 || count["200"]+count["503"] != 64 {
		t.Errorf("eight addresses of one machine: %v", count)
	}
	if got := subscribe(r.Host("a"), r.Host("a").Addr); got != "200" {
		t.Errorf("another host's subscription: %s", got)
	}
}

// TestParallelRequests: L7, ODD-14, home-assistant/core#47914. Twelve connections of one host
// that are open at once are all answered; of sixty, each is answered or told when to
// come again.
func TestParallelRequests(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	path := mustURL(t, r.v1(t, "a").Control).Path
	at := hostPort(lab.GatewayLAN, 5000)
	body := `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><u:GetStatusInfo xmlns:u="` + lab.WANIP1 + `"/></s:Body></s:Envelope>`
	request := post(path, at, body, `SOAPAction: "`+lab.WANIP1+`#GetStatusInfo"`)
	for _, n := range []int{5, 8, 12, 60} {
		ctx, cancel := contextFor(t, soon)
		defer cancel()
		var open []net.Conn
		for range n {
			conn, err := r.Host("a").Dial(ctx, "tcp4", at)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.SetDeadline(time.Now().Add(soon)); err != nil {
				t.Fatal(err)
			}
			open = append(open, conn)
		}
		for _, conn := range open {
			_, _ = conn.Write([]byte(request)) // one that is turned away may be closed already
		}
		count := map[string]int{}
		for _, conn := range open {
			var answer bytes.Buffer
			_, _ = answer.ReadFrom(conn)
			got := status(answer.String())
			if got == "503" && !strings.Contains(answer.String(), "Retry-After: ") {
				got = "503 without Retry-After"
			}
			count[got]++
			conn.Close()
		}
		if count["200"] < min(n, 12) || count["200"]+count["503"] < min(n, 24) || count["503 without Retry-After"] > 0 {
			t.Errorf("%d at once: %v", n, count)
		}
	}
}
