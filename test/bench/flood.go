package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"portcullis/internal/lab"
)

// A flood is what one host sends as fast as it can, each of floodThreads of it again and
// again until ctx ends; errors are no matter.
type flood struct {
	name string
	send func(ctx context.Context, g *gate, h *lab.Host, turn int)
}

const floodThreads = 16

var floods = []flood{
	{"flooded with searches", func(ctx context.Context, g *gate, h *lab.Host, turn int) {
		text := "M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 5\r\nST: ssdp:all\r\n\r\n"
		datagrams(ctx, h, netip.MustParseAddrPort("239.255.255.250:1900"), func(int) []byte { return []byte(text) })
	}},
	{"flooded with NAT-PMP", func(ctx context.Context, g *gate, h *lab.Host, turn int) {
		datagrams(ctx, h, netip.AddrPortFrom(lab.GatewayLAN, 5351), func(i int) []byte {
			return binary.BigEndian.AppendUint32([]byte{0, 1, 0, 0, byte(i >> 8), byte(i), 0x20, 0}, 3600)
		})
	}},
	{"flooded with requests", func(ctx context.Context, g *gate, h *lab.Host, turn int) {
		for ctx.Err() == nil {
			say(ctx, g, h, 1<<20, "POST / HTTP/1.1\r\nHost: "+g.http()+"\r\n\r\n")
		}
	}},
	{"flooded with large requests", func(ctx context.Context, g *gate, h *lab.Host, turn int) {
		head := g.soap[1].head + "AddPortMapping\"\r\nContent-Length: 8000\r\n\r\n"
		for ctx.Err() == nil {
			say(ctx, g, h, 1<<20, head+string(make([]byte, 8000)))
		}
	}},
	{"flooded with requests that never end", func(ctx context.Context, g *gate, h *lab.Host, turn int) {
		var held []net.Conn
		defer func() {
			for _, c := range held {
				_ = c.Close()
			}
		}()
		for ctx.Err() == nil {
			if c, err := h.Dial(ctx, "tcp", g.http()); err == nil {
				_, _ = c.Write([]byte(g.soap[1].head + "AddPortMapping\"\r\nContent-Length: 8000\r\n\r\n" + string(make([]byte, 7000))))
				held = append(held, c)
			}
		}
	}},
}

// datagrams sends from one socket of a host.
func datagrams(ctx context.Context, h *lab.Host, to netip.AddrPort, payload func(i int) []byte) {
	c, err := h.ListenPacket(netip.AddrPortFrom(h.Addr, 0).String())
	if err != nil {
		return
	}
	defer c.Close()
	for i := 0; ctx.Err() == nil; i++ {
		_, _ = c.WriteToUDPAddrPort(payload(i), to)
	}
}

// say sends a request on a connection of its own, and reads the answer.
func say(ctx context.Context, g *gate, h *lab.Host, most int, text string) {
	c, err := h.Dial(ctx, "tcp", g.http())
	if err != nil {
		return
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	_, _ = c.Write([]byte(text))
	buf := make([]byte, 4096)
	for n := 0; n < most; {
		k, err := c.Read(buf)
		if n += k; err != nil {
			return
		}
	}
}

// http is where the gateway serves it.
func (g *gate) http() string {
	return netip.AddrPortFrom(netip.AddrFrom4(g.soap[0].server.Addr), uint16(g.soap[0].server.Port)).String()
}

// flooded measures the most memory that a daemon takes while another host floods it, and
// how often the first is served meanwhile.
func (r *report) flooded(ctx context.Context, exe string, slice time.Duration) error {
	g, err := startWith(ctx, exe, "")
	if err != nil {
		return err
	}
	g.name = memoryName
	if err = <-g.hosts[0].Go(func() error { return g.natpmp[0].add(g.ports[0]) }); err == nil {
		for _, f := range floods {
			var worst Footprint
			if worst, err = g.drown(ctx, f, slice); err != nil {
				err = fmt.Errorf("%s: %w", f.name, err)
				break
			}
			r.note(worst)
		}
	}
	return r.end(g, err)
}

// floodPatience is how long the other host may wait for its first answer.
const floodPatience = 20 * time.Second

func (g *gate) drown(ctx context.Context, f flood, slice time.Duration) (worst Footprint, err error) {
	// However short the slice and busy the machine, the other host has time to be served.
	flooding, stop := context.WithTimeout(ctx, slice+floodPatience)
	defer stop()
	enough := time.Now().Add(slice)
	var senders sync.WaitGroup
	for turn := range floodThreads {
		senders.Go(func() { f.send(flooding, g, g.Host(hostName(1)), turn) })
	}
	served := make(chan int, 1)
	go func() {
		n := 0
		for flooding.Err() == nil {
			if <-g.hosts[0].Go(func() error { return g.soap[0].specific(g.ports[0]) }) == nil {
				n++
			}
			if n > 0 && time.Now().After(enough) {
				stop()
			}
		}
		served <- n
	}()
	for flooding.Err() == nil {
		now, failed := footprint(g.pid)
		if failed != nil {
			err = failed
			stop()
		}
		if now.PSS > worst.PSS {
			worst = now
		}
		select {
		case <-flooding.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
	senders.Wait()
	worst.When, worst.Mappings, worst.Most, worst.Served = f.name, 1, mostFlooded, <-served
	if worst.Served == 0 {
		err = errors.Join(err, errors.New("the other host was not served"))
	}
	return worst, errors.Join(err, ctx.Err())
}
