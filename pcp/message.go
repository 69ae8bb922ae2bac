package pcp

import (
	"encoding/binary"
	"net/netip"
	"time"

	"portcullis/portmap"
)

// The wire form of PCP (RFC 6887 sections 7.1, 7.2, 11.1).
const (
	pcpVersion = 2
	opAnnounce = 0
	opMap      = 1
	isReply    = 0x80 // the R bit

	headSize = 24
	mapSize  = 36

	// MaxDatagram is the size of the longest message, in octets (RFC 6887
	// section 7).
	MaxDatagram = 1100
)

// request is a request that has been understood.
type request struct {
	op       byte
	lifetime uint32 // seconds
	client   netip.Addr
	mapData
	options options
}

// mapData is what follows the header of a MAP message.
type mapData struct {
	nonce    portmap.Nonce
	protocol byte
	internal uint16
	external uint16     // suggested or assigned
	address  netip.Addr // the same; unmapped, may be unspecified
}

// parse reads a request of version 2 in the order of RFC 6887 sections 8.2 and
// 8.3. It comes from source, and has at least a whole header; octets beyond
// MaxDatagram show that it is too long and are not looked at.
func parse(b []byte, source netip.Addr) (request, code) {
	if len(b) > MaxDatagram || len(b)%4 != 0 {
		return request{}, malformedRequest
	}
	r := request{
		op:       b[1],
		lifetime: binary.BigEndian.Uint32(b[4:]),
		client:   netip.AddrFrom16([16]byte(b[8:24])).Unmap(),
	}
	rest := b[headSize:]
	switch r.op {
	case opAnnounce:
	case opMap:
		if len(rest) < mapSize {
			return r, malformedRequest
		}
		r.mapData = parseMap(rest)
		rest = rest[mapSize:]
	default:
		return r, unsuppOpcode // PEER too: nothing in our kernel enforces it
	}
	if r.client != source {
		return r, addressMismatch // a NAT is between us, or somebody lies
	}
	list, ok := walk(rest)
	if !ok {
		return r, malformedOption
	}
	if c := r.readOptions(list); c != success {
		return r, c
	}
	if r.op == opMap {
		return r, r.check()
	}
	return r, success
}

// parseMap reads the 36 octets of MAP.
func parseMap(b []byte) mapData {
	return mapData{
		nonce:    portmap.Nonce(b[:12]),
		protocol: b[12],
		internal: binary.BigEndian.Uint16(b[16:]),
		external: binary.BigEndian.Uint16(b[18:]),
		address:  netip.AddrFrom16([16]byte(b[20:36])).Unmap(),
	}
}

func (m mapData) appendTo(b []byte) []byte {
	b = append(b, m.nonce[:]...)
	b = append(b, m.protocol, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, m.internal)
	b = binary.BigEndian.AppendUint16(b, m.external)
	a := m.address.As16()
	return append(b, a[:]...)
}

// check refuses what MAP cannot mean (RFC 6887 section 11.3). All ports and all
// protocols of a host are never opened; as they never are, their deletion is
// answered as done.
func (r *request) check() code {
	deletes := r.lifetime == 0
	switch {
	case r.protocol == 0 && r.internal != 0:
		return malformedRequest
	case r.protocol != 0 && !portmap.Transport(r.protocol).Valid():
		return unsuppProtocol
	case r.internal == 0 && !deletes:
		return unsuppProtocol
	case deletes && (r.options.preferFailure || r.options.filtered):
		return malformedOption // senseless
	case r.options.preferFailure && (r.external == 0 || r.options.set != nil):
		return malformedOption // RFC 6887 section 13.2, RFC 7753 section 4.2
	case r.options.set != nil && r.options.set.first != r.internal:
		return malformedOption
	}
	return success
}

// appendReply writes a success (RFC 6887 section 7.2).
func (r *request) appendReply(b []byte, lifetime, epoch uint32) []byte {
	b = appendHead(b, r.op, success, lifetime, epoch)
	if r.op == opMap {
		b = r.mapData.appendTo(b)
	}
	for _, o := range r.options.answered {
		b = o.appendTo(b)
	}
	return b
}

func appendHead(b []byte, op byte, c code, lifetime, epoch uint32) []byte {
	b = append(b, pcpVersion, op|isReply, 0, byte(c))
	b = binary.BigEndian.AppendUint32(b, lifetime)
	b = binary.BigEndian.AppendUint32(b, epoch)
	return append(b, make([]byte, 12)...)
}

// errorReply is a copy of the request with another header, whole words of it and
// not more than a message may have (RFC 6887 section 8.2). What could not be
// parsed gets the client's address back.
func errorReply(b []byte, c code, lasts time.Duration, epoch uint32) []byte {
	b = b[:min(len(b), MaxDatagram)]
	size := max(headSize, (len(b)+3)&^3)
	out := appendHead(make([]byte, 0, size), b[1], c, seconds(lasts), epoch)
	out = out[:size]
	copy(out[headSize:], b[min(len(b), headSize):])
	if c == unsuppVersion || c == malformedRequest || c == malformedOption {
		copy(out[12:headSize], b[min(len(b), 12):])
	}
	return out
}

// seconds rounds to the nearest second, so that a lease just granted is shown
// whole. A negative duration is for ever.
func seconds(d time.Duration) uint32 {
	if d < 0 || d >= 1<<32*time.Second {
		return 1<<32 - 1
	}
	return uint32((d + time.Second/2) / time.Second)
}
