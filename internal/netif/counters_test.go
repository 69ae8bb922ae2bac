package netif_test

import (
	"errors"
	"net"
	"testing"
	"time"

	"portcullis/internal/netif"
)

func TestStats(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	before, err := s.k.Stats("lo")
	s.must(err)
	const packets, size = 7, 100
	s.Must(func() error {
		server, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer server.Close()
		c, err := net.Dial("udp4", server.LocalAddr().String())
		if err != nil {
			return err
		}
		defer c.Close()
		for range packets {
			if _, err := c.Write(make([]byte, size)); err != nil {
				return err
			}
			if err := server.SetReadDeadline(time.Now().Add(patience)); err != nil {
				return err
			}
			if _, _, err := server.ReadFrom(make([]byte, size)); err != nil {
				return err
			}
		}
		return nil
	})
	after, err := s.k.Stats("lo")
	s.must(err)
	const octets = packets * (size + 20 + 8) // lo counts from the IPv4 header on
	want := netif.Stats{
		RxBytes: before.RxBytes + octets, TxBytes: before.TxBytes + octets,
		RxPackets: before.RxPackets + packets, TxPackets: before.TxPackets + packets,
		Up: true, Carrier: true,
	}
	if after != want {
		t.Errorf("%+v, want %+v", after, want)
	}
}

func TestStatsCarrier(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.veth("wan0", "isp0", 1)
	check := func(what string, up, carrier bool) {
		t.Helper()
		st, err := s.k.Stats("wan0")
		s.must(err)
		if st.Up != up || st.Carrier != carrier {
			t.Errorf("%s: %+v", what, st)
		}
	}
	check("new", false, false)
	s.Up("wan0")
	check("its peer is down", true, false)
	s.Up("isp0")
	check("both are up", true, true)
}

func TestStatsOfNothing(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	for _, name := range []string{"", "nosuch0", "a-name-that-is-too-long"} {
		if _, err := s.k.Stats(name); !errors.Is(err, netif.ErrNoInterface) {
			t.Errorf("%q: error %v", name, err)
		}
		if bits, ok := s.k.Speed(name); ok || bits != 0 {
			t.Errorf("%q: speed %d, %v", name, bits, ok)
		}
	}
}

func TestSpeed(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.veth("wan0", "isp0", 1)
	s.Up("wan0", "isp0")
	// The kernel's veth says 10 Gbit/s, always; lo has no rate.
	if bits, ok := s.k.Speed("wan0"); !ok || bits != 10_000_000_000 {
		t.Errorf("veth: %d, %v", bits, ok)
	}
	if bits, ok := s.k.Speed("lo"); ok || bits != 0 {
		t.Errorf("lo: %d, %v", bits, ok)
	}
}

func TestLinkRate(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		low, high uint16
		want      uint64
		ok        bool
	}{
		{10, 0, 10_000_000, true},
		{1000, 0, 1_000_000_000, true},
		{100_000 & 0xffff, 100_000 >> 16, 100_000_000_000, true},
		{0, 0, 0, false},
		{0xffff, 0xffff, 0, false},
		{0xffff, 0, 0, false},
	} {
		if got, ok := netif.LinkRate(tc.low, tc.high); got != tc.want || ok != tc.ok {
			t.Errorf("linkRate(%#x, %#x) = %d, %v", tc.low, tc.high, got, ok)
		}
	}
}
