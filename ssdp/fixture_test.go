package ssdp_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"net/textproto"
	"strings"
	"testing"

	"portcullis/internal/datagram"
	"portcullis/internal/slog"
	"portcullis/ssdp"
)

// The devices of docs/protocol-notes.md: R is the root, W in it, C in W.
const (
	uuidR = "1b8e2d6a-0c4f-4a57-9e13-5d7c2ab0f101"
	uuidW = "2c9f3e7b-1d50-4b68-8f24-6e8d3bc10202"
	uuidC = "3da0408c-2e61-4c79-9035-7f9e4cd20303"

	urnDevice  = "urn:schemas-upnp-org:device:"
	urnService = "urn:schemas-upnp-org:service:"
)

var (
	gateway = netip.MustParseAddr("192.168.1.1")
	lan     = netip.MustParsePrefix("192.168.1.0/24")
	clientA = netip.MustParseAddrPort("192.168.1.50:40000")
	clientB = netip.MustParseAddrPort("192.168.1.60:40000")
)

const lanIndex = 7

// targets are the rows of a gateway that is version 1 and 2 at once.
func targets() []ssdp.Target {
	return []ssdp.Target{
		{Type: "upnp:rootdevice", UUID: uuidR},
		{UUID: uuidR},
		{Type: urnDevice + "InternetGatewayDevice", MaxVersion: 2, UUID: uuidR},
		{Type: urnService + "Layer3Forwarding", MaxVersion: 1, UUID: uuidR},
		{UUID: uuidW},
		{Type: urnDevice + "WANDevice", MaxVersion: 2, UUID: uuidW},
		{Type: urnService + "WANCommonInterfaceConfig", MaxVersion: 1, UUID: uuidW},
		{UUID: uuidC},
		{Type: urnDevice + "WANConnectionDevice", MaxVersion: 2, UUID: uuidC},
		{Type: urnService + "WANIPConnection", MaxVersion: 2, UUID: uuidC},
		{Type: urnService + "WANPPPConnection", MaxVersion: 1, UUID: uuidC},
		{Type: urnService + "WANIPv6FirewallControl", MaxVersion: 1, UUID: uuidC, Tree: 2},
	}
}

// announced is the set these targets make, as "target usn".
func announced() []string {
	row := func(uuid, target string) string {
		if target == "" {
			return "uuid:" + uuid + " uuid:" + uuid
		}
		return target + " uuid:" + uuid + "::" + target
	}
	return []string{
		row(uuidR, "upnp:rootdevice"),
		row(uuidR, ""),
		row(uuidR, urnDevice+"InternetGatewayDevice:1"),
		row(uuidR, urnService+"Layer3Forwarding:1"),
		row(uuidW, ""),
		row(uuidW, urnDevice+"WANDevice:1"),
		row(uuidW, urnService+"WANCommonInterfaceConfig:1"),
		row(uuidC, ""),
		row(uuidC, urnDevice+"WANConnectionDevice:1"),
		row(uuidC, urnService+"WANIPConnection:1"),
		row(uuidC, urnService+"WANPPPConnection:1"),
	}
}

func config() ssdp.Config {
	return ssdp.Config{
		Logger:  slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Ifname:  "br-lan",
		Ifindex: lanIndex,
		Targets: targets(),
		Describe: func(version int, local netip.Addr) ssdp.Description {
			return ssdp.Description{
				Location: fmt.Sprintf("http://%s/0123456789abcdef/v%d.xml", netip.AddrPortFrom(local, 5000), version),
				ConfigID: uint32(1000 + version),
			}
		},
		Account: func(p datagram.Packet) datagram.Account {
			return datagram.Account{Device: datagram.Device{Sender: p.Sender, Addr: p.Source.Addr()}}
		},
		Server: "Linux UPnP/1.1 Portcullis",
		BootID: 500,
	}
}

// search writes a search with what it needs, and then the extra lines.
func search(target string, extra ...string) []byte {
	lines := append([]string{
		"M-SEARCH * HTTP/1.1",
		"HOST: 239.255.255.250:1900",
		`MAN: "ssdp:discover"`,
		"ST: " + target,
	}, extra...)
	return []byte(strings.Join(lines, "\r\n") + "\r\n\r\n")
}

// message is what was received, taken apart by a reader that is not ours.
type message struct {
	line   string
	header textproto.MIMEHeader
}

func read(t *testing.T, b []byte) message {
	t.Helper()
	r := textproto.NewReader(bufio.NewReader(bytes.NewReader(b)))
	line, err := r.ReadLine()
	if err != nil {
		t.Fatalf("start line: %v in %q", err, b)
	}
	header, err := r.ReadMIMEHeader()
	if err != nil {
		t.Fatalf("headers: %v in %q", err, b)
	}
	if rest, _ := io.ReadAll(r.R); len(rest) != 0 {
		t.Fatalf("%q after the empty line", rest)
	}
	return message{line, header}
}

// row gives "target usn" of a response or a notification.
func (m message) row() string {
	return m.header.Get("ST") + m.header.Get("NT") + " " + m.header.Get("USN")
}
