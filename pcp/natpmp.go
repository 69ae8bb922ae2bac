package pcp

import (
	"encoding/binary"
	"net/netip"
)

// The wire form of NAT-PMP (RFC 6886 sections 3.2 to 3.5).
const (
	natpmpVersion  = 0
	opAddress      = 0
	opMapUDP       = 1
	opMapTCP       = 2
	natpmpReply    = 0x80 // added to the opcode in replies
	mapRequestSize = 12
)

// natpmpMap is a mapping request.
type natpmpMap struct {
	op                  byte // opMapUDP or opMapTCP
	internal, suggested uint16
	lifetime            uint32 // seconds
}

// parseNATPMPMap reads a mapping request. Reserved octets are ignored; what is shorter
// or longer is not ok. A web page can have a browser send a STUN request here (RFC 8489
// section 5: 20 octets or more), which begins as a request for a UDP port does.
func parseNATPMPMap(b []byte) (natpmpMap, bool) {
	if len(b) != mapRequestSize {
		return natpmpMap{}, false
	}
	return natpmpMap{
		op:        b[1],
		internal:  binary.BigEndian.Uint16(b[4:]),
		suggested: binary.BigEndian.Uint16(b[6:]),
		lifetime:  binary.BigEndian.Uint32(b[8:]),
	}, true
}

// natpmpHead begins every reply: 8 octets.
func natpmpHead(op byte, r result, epoch uint32) []byte {
	b := make([]byte, 0, 16)
	b = append(b, natpmpVersion, op|natpmpReply)
	b = binary.BigEndian.AppendUint16(b, uint16(r))
	return binary.BigEndian.AppendUint32(b, epoch)
}

// addressReply is a reply to an address request, and an announcement: 12 octets.
// An address that is not IPv4 is shown as 0.0.0.0.
func addressReply(r result, epoch uint32, external netip.Addr) []byte {
	var a [4]byte
	if external.Is4() {
		a = external.As4()
	}
	return append(natpmpHead(opAddress, r, epoch), a[:]...)
}

// reply is a reply to a mapping request: 16 octets.
func (m natpmpMap) reply(r result, epoch uint32, external uint16, lifetime uint32) []byte {
	b := natpmpHead(m.op, r, epoch)
	b = binary.BigEndian.AppendUint16(b, m.internal)
	b = binary.BigEndian.AppendUint16(b, external)
	return binary.BigEndian.AppendUint32(b, lifetime)
}

// opcodeReply refuses an opcode: the request with the top bit set, as far as the
// first 4 octets go, and the epoch (RFC 6886 section 3.5): 8 octets.
func opcodeReply(op byte, epoch uint32) []byte { return natpmpHead(op, resultOpcode, epoch) }

// versionReply refuses a version where PCP is switched off: 8 octets. The top bit
// of the opcode is set, because a PCP client drops replies without it (RFC 6887
// section 8.3; RFC 6886 erratum 3618).
func versionReply(op byte, epoch uint32) []byte { return natpmpHead(op, resultVersion, epoch) }
