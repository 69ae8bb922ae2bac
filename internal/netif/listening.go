package netif

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// States of a socket, as inet_diag and /proc/net number them
// (include/net/tcp_states.h). A UDP socket that is not connected is "closed".
const (
	stateClose  = 7
	stateListen = 10
)

// listenState is the one state of a transport's sockets that anybody can send
// to.
func listenState(transport uint8) uint8 {
	if transport == unix.IPPROTO_TCP {
		return stateListen
	}
	return stateClose
}

// Listening reads the gateway's own listeners, of both transports and both
// families. It sees the sockets of the kernel itself too (WireGuard). The
// kernel picks the listeners out, so established connections cost nothing; on a
// kernel without inet_diag the tables under /proc/net are read instead, and
// what they do not tell is taken for the worse: every IPv6 wildcard takes IPv4
// as well, and no socket is bound to an interface.
func (k *Kernel) Listening(ctx context.Context) (Ports, error) {
	var all []Listener
	for _, transport := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		list, err := k.listeners(ctx, transport)
		if err != nil {
			return Ports{}, fmt.Errorf("list the gateway's own ports: %w", err)
		}
		all = append(all, list...)
	}
	return NewPorts(all), nil
}

func (k *Kernel) listeners(ctx context.Context, transport uint8) ([]Listener, error) {
	if k.diag == nil {
		return k.procListeners(transport)
	}
	var all []Listener
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		var list []Listener
		err := repeat(ctx, func() (err error) {
			list, err = k.diagListeners(family, transport)
			return err
		})
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
			return k.procListeners(transport) // inet_diag is there, but not for this transport
		}
		if err != nil {
			return nil, err
		}
		all = append(all, list...)
	}
	return all, nil
}

const (
	sizeofDiagRequest = 56 // struct inet_diag_req_v2 of linux/inet_diag.h
	sizeofDiagMessage = 72 // struct inet_diag_msg
	diagV6Only        = 11 // INET_DIAG_SKV6ONLY
)

// diagRequest asks for the sockets of one family and transport that are in the
// states of the mask. It is a nl.NetlinkRequestData.
type diagRequest struct {
	family, transport uint8
	states            uint32
}

func (diagRequest) Len() int { return sizeofDiagRequest }

func (r diagRequest) Serialize() []byte {
	b := make([]byte, sizeofDiagRequest)
	b[0], b[1] = r.family, r.transport
	binary.NativeEndian.PutUint32(b[4:], r.states)
	return b
}

// diagListeners asks inet_diag. The library's SocketDiagTCP asks for every
// connection that there is, and drops the attribute that tells a dual-stack
// socket.
func (k *Kernel) diagListeners(family, transport uint8) ([]Listener, error) {
	req := request(k.diag, unix.NETLINK_INET_DIAG, nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
	req.AddData(diagRequest{family: family, transport: transport, states: 1 << listenState(transport)})
	var list []Listener
	err := req.ExecuteIter(unix.NETLINK_INET_DIAG, nl.SOCK_DIAG_BY_FAMILY, func(m []byte) bool {
		if l, ok := parseDiag(transport, m); ok {
			list = append(list, l)
		}
		return true
	})
	return list, err
}

// parseDiag decodes one listener.
func parseDiag(transport uint8, m []byte) (Listener, bool) {
	if len(m) < sizeofDiagMessage || m[1] != listenState(transport) {
		return Listener{}, false
	}
	l := Listener{
		Transport: transport,
		Port:      binary.BigEndian.Uint16(m[4:]),
		Index:     int(binary.NativeEndian.Uint32(m[40:])),
		Inode:     binary.NativeEndian.Uint32(m[68:]),
	}
	switch m[0] {
	case unix.AF_INET:
		l.Addr = netip.AddrFrom4([4]byte(m[8:]))
	case unix.AF_INET6:
		l.Addr = netip.AddrFrom16([16]byte(m[8:])).Unmap()
	default:
		return Listener{}, false
	}
	for t, v := range attributes(m[sizeofDiagMessage:]) {
		if t == diagV6Only && len(v) > 0 {
			l.V6Only = v[0] != 0 && l.Addr == netip.IPv6Unspecified()
		}
	}
	return l, l.Port != 0
}

// procListeners reads the tables under /proc/net, a file a family.
func (k *Kernel) procListeners(transport uint8) ([]Listener, error) {
	name := "tcp"
	if transport == unix.IPPROTO_UDP {
		name = "udp"
	}
	var all []Listener
	err := k.inNamespace(func() error {
		for _, file := range []string{name, name + "6"} {
			f, err := os.Open(filepath.Join(k.procNet, file))
			if errors.Is(err, fs.ErrNotExist) && file != name {
				continue // no IPv6
			}
			if err != nil {
				return err
			}
			list, err := parseProc(transport, f)
			_ = f.Close() // only read
			if err != nil {
				return fmt.Errorf("read %s: %w", file, err)
			}
			all = append(all, list...)
		}
		return nil
	})
	return all, err
}

// parseProc picks the listeners out of one table. A line that it does not
// understand is the heading, or nothing that listens.
func parseProc(transport uint8, r io.Reader) ([]Listener, error) {
	var list []Listener
	lines := bufio.NewScanner(r) // bounds a line at 64 kB
	for lines.Scan() {
		// "sl local_address rem_address st ... inode": 0: 0100007F:1F90 00000000:0000 0A
		f := strings.Fields(lines.Text())
		if len(f) < 4 {
			continue
		}
		state, err := strconv.ParseUint(f[3], 16, 8)
		addr, ok := parseProcAddr(f[1])
		if err != nil || !ok || uint8(state) != listenState(transport) || addr.Port() == 0 {
			continue
		}
		l := Listener{Transport: transport, Port: addr.Port(), Addr: addr.Addr().Unmap()}
		if len(f) > 9 {
			inode, _ := strconv.ParseUint(f[9], 10, 32) // 0 is what is not known
			l.Inode = uint32(inode)
		}
		list = append(list, l)
	}
	return list, lines.Err()
}

// parseProcAddr reads "0100007F:1F90": the address in words of 32 bits, each
// printed as a number of the host's byte order, then the port.
func parseProcAddr(s string) (netip.AddrPort, bool) {
	text, portText, _ := strings.Cut(s, ":")
	raw, err := hex.DecodeString(text)
	port, portErr := strconv.ParseUint(portText, 16, 16)
	if err != nil || portErr != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	addr, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(addr, uint16(port)), ok
}
