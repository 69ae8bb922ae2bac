package lab_test

import (
	"context"
	"net"
	"testing"
	"time"

	"portcullis/lab"
)

// TestNetworkCarriesPackets: hosts reach each other and the gateway, and the
// Internet reaches the gateway.
func TestNetworkCarriesPackets(t *testing.T) {
	n, err := lab.New("console", "laptop")
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	for _, c := range []struct {
		name     string
		from, to *lab.Host
		addr     string
	}{
		{"host to host", n.Host("console"), n.Host("laptop"), n.Host("laptop").Addr.String()},
		{"host to gateway", n.Host("laptop"), n.Gateway, lab.GatewayLAN.String()},
		{"internet to gateway", n.Internet, n.Gateway, lab.GatewayWAN.String()},
		{"host to internet", n.Host("laptop"), n.Internet, lab.InternetTwo.String()},
	} {
		l, err := c.to.Listen(c.addr + ":8000")
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		conn, err := c.from.Dial(ctx, "tcp4", net.JoinHostPort(c.addr, "8000"))
		cancel()
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else {
			_ = conn.Close()
		}
		_ = l.Close()
	}
}
