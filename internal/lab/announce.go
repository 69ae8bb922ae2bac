package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/ipv6"
)

// allNodes is where a PCP server tells of its restart (RFC 6887 section 14.1.1).
var allNodes = netip.MustParseAddrPort("[ff02::1]:5350")

// AnnounceEar hears what is sent to the group.
type AnnounceEar struct {
	conn   *net.UDPConn
	packet *ipv6.PacketConn
}

// Announcement is an unsolicited ANNOUNCE as it came.
type Announcement struct {
	From     netip.AddrPort
	HopLimit int
	Epoch    uint32
	Payload  []byte
	At       time.Time
}

// HearAnnouncements6 listens at [ff02::1]:5350. It must be closed.
func (h *Host) HearAnnouncements6() (*AnnounceEar, error) {
	conn, err := h.ListenPacket(netip.AddrPortFrom(netip.IPv6Unspecified(), allNodes.Port()).String())
	if err != nil {
		return nil, err
	}
	e := &AnnounceEar{conn, ipv6.NewPacketConn(conn)}
	err = errors.Join(
		e.packet.JoinGroup(h.link(), net.UDPAddrFromAddrPort(allNodes)),
		e.packet.SetControlMessage(ipv6.FlagDst|ipv6.FlagHopLimit, true),
	)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("lab: listen for announcements: %w", err)
	}
	return e, nil
}

// Next returns the next announcement; other datagrams to the group are errors.
// ErrSilence means that none came before the context's deadline, which it needs.
func (e *AnnounceEar) Next(ctx context.Context) (Announcement, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return Announcement{}, errors.New("lab: an ear needs a deadline")
	}
	if err := e.conn.SetReadDeadline(deadline); err != nil {
		return Announcement{}, err
	}
	buf := make([]byte, 2048)
	for {
		n, control, from, err := e.packet.ReadFrom(buf)
		if err != nil {
			return Announcement{}, ErrSilence
		}
		if to, ok := netip.AddrFromSlice(control.Dst); !ok || to != allNodes.Addr() {
			continue // sent to the host alone
		}
		source, ok := from.(*net.UDPAddr)
		if b := buf[:n]; !ok || n < headerLen || b[0] != 2 || b[1] != opAnnounce|0x80 || b[3] != 0 {
			return Announcement{}, fmt.Errorf("lab: not an announcement: % x", b)
		}
		return Announcement{
			From: plain(source.AddrPort()), HopLimit: control.HopLimit,
			Epoch: binary.BigEndian.Uint32(buf[8:]), Payload: buf[:n], At: time.Now(),
		}, nil
	}
}

// Close ends it.
func (e *AnnounceEar) Close() error { return e.conn.Close() }

// link names the host's own interface to package net.
func (h *Host) link() *net.Interface { return &net.Interface{Index: h.index, Name: h.ifname} }
