package doctor

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/config"
	"portcullis/internal/netif"
	"portcullis/internal/random"
	"portcullis/internal/sockets"
)

// listenFor is how long others have to answer on a LAN.
const listenFor = time.Second

// taken lists our ports that other programs hold.
func taken(ctx context.Context, kernel *netif.Kernel, c config.Config) []Listener {
	ports, _ := kernel.Listening(ctx) // none, where the kernel does not tell
	var all []Listener
	find := func(name string, transport uint8, port uint16) {
		var sockets []string
		for _, l := range ports.All() {
			if l.Transport == transport && l.Port == port {
				sockets = append(sockets, fmt.Sprintf("socket:[%d]", l.Inode))
			}
		}
		if len(sockets) > 0 {
			all = append(all, Listener{Port: fmt.Sprintf("%s %d", name, port), Program: programOf(sockets)})
		}
	}
	if c.PCP.NATPMP || c.PCP.PCP {
		find("udp", unix.IPPROTO_UDP, 5351)
	}
	if c.UPnP.Enabled {
		find("tcp", unix.IPPROTO_TCP, c.UPnP.HTTPPort)
	}
	return all // 1900 is shared by those who search, which is no mishap
}

// programOf returns the name of a program that has one of the sockets; "" where the
// kernel does not let us look.
func programOf(sockets []string) string {
	descriptors, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, d := range descriptors {
		to, err := os.Readlink(d)
		if err != nil || !slices.Contains(sockets, to) {
			continue
		}
		name, err := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(d)), "comm"))
		if err == nil {
			return strings.TrimSpace(string(name))
		}
	}
	return ""
}

// onLAN opens a socket on a LAN, at the gateway's own address there.
func onLAN(ctx context.Context, l netif.LAN, port uint16) (*net.UDPConn, error) {
	return sockets.ListenUDP(ctx, netip.AddrPortFrom(l.Addr, port), func(fd int) error {
		return errors.Join(
			unix.BindToDevice(fd, l.Name),
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1),
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		)
	})
}

// answers sends a datagram and gives who, but ourselves, answers with what counts.
func answers(conn *net.UDPConn, l netif.LAN, to netip.AddrPort, question []byte, counts func([]byte) bool) []string {
	defer conn.Close()
	if _, err := conn.WriteToUDPAddrPort(question, to); err != nil {
		return nil
	}
	if err := conn.SetReadDeadline(time.Now().Add(listenFor)); err != nil {
		return nil
	}
	var all []string
	buf := make([]byte, 1500)
	for len(all) < 8 {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			break
		}
		a := from.Addr().Unmap()
		if counts(buf[:n]) && !slices.Contains(l.Addrs, a) && !slices.Contains(all, a.String()) {
			all = append(all, a.String())
		}
	}
	return all
}

// otherGateways searches for gateways on a LAN.
func otherGateways(ctx context.Context, l netif.LAN) []string {
	conn, err := onLAN(ctx, l, 0)
	if err != nil {
		return nil
	}
	search := "M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\n" +
		"ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\r\n"
	return answers(conn, l, netip.MustParseAddrPort("239.255.255.250:1900"), []byte(search), func(b []byte) bool {
		return bytes.HasPrefix(b, []byte("HTTP/1.1 200")) && bytes.Contains(b, []byte("InternetGatewayDevice"))
	})
}

// otherDHCP asks for the servers of a LAN by DHCPINFORM, which takes no address from
// anybody (RFC 2131 section 4.4.3). Our own server does not hear what we send.
func otherDHCP(ctx context.Context, l netif.LAN) []string {
	conn, err := onLAN(ctx, l, 68)
	if err != nil {
		return nil // a client of ours has the port: not to be told
	}
	id := make([]byte, 4)
	random.Fill(id)
	m := append([]byte{1, 1, 6, 0}, id...)
	m = append(m, make([]byte, 4)...) // seconds, flags
	m = append(m, l.Addr.AsSlice()...)
	m = append(m, make([]byte, 12)...) // other addresses
	m = append(m, l.MAC[:]...)
	m = append(m, make([]byte, 10+64+128)...)
	m = binary.BigEndian.AppendUint32(m, 0x63825363)
	m = append(m, 53, 1, 8, 255) // DHCPINFORM
	return answers(conn, l, netip.MustParseAddrPort("255.255.255.255:67"), m, func(b []byte) bool {
		return len(b) > 240 && b[0] == 2 && bytes.Equal(b[4:8], id)
	})
}
