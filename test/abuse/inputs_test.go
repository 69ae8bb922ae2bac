package abuse

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// The tests of this file send many inputs of a kind, and look at the world once a kind.

// notNumbers are what no argument that is a number may be, whatever reads it.
var notNumbers = []string{
	"-1", "-0", "+1", "--1", "1-", "1.0", "1.", ".5", "1,5", "1_000", "1e3", "8E3", "0x50", "0X50", "0b1", "0o17", "80h", "#80", "$80", "&80",
	"4294967296", "4294967376", "18446744073709551616", "18446744073709551696", "9223372036854775808", "340282366920938463463374607431768211536",
	strings.Repeat("9", 400), "80 80", "80;445", "80,445", "80-90", "80:445", "80/tcp", "80|445", "80\n445", "80\t445", "8\u00a00", "\ufeff80", "80\u200b",
	"\u0668\u0660", "\uff18\uff10", "\u00b2", "\u00bd", "\u2168", "NaN", "Infinity", "-Infinity", "null", "nil", "undefined", "true", "ui2", "ui4", "''", "\"80\"",
	"%d", "%n", "%80", "80%00", "$(id)", "`id`", "../80", "80 OR 1=1", "&lt;80", "\\x50", "?", "*80", "**",
}

// notAddresses are what no client may be called in a request: names, and what one reader
// takes for an address and another does not.
var notAddresses = []string{
	"192.168.77.10:80", "192.168.77.10/32", "192.168.77.10/24", "192.168.77", "192.168.77.10.11", "192.168.77.10.", ".192.168.77.10", "192..77.10",
	"192.168.19722", "192.11029770", "3232255242", "0xc0a84d0a", "0xC0.0xA8.0x4D.0x0A", "0300.0250.0115.0012", "0192.168.77.10", "192.168.77.010", "192.168.077.10",
	"256.1.1.1", "192.168.77.256", "192.168.77.-10", "-192.168.77.10", "+192.168.77.10", "192.168.77.1e1", "192.168.77.10 192.168.77.20", "192.168.77.10,192.168.77.20",
	"192.168.77.10;192.168.77.20", "192.168.77.10\n192.168.77.20", "192.168.77.10\u200b", "\uff11\uff19\uff12.168.77.10", "192\u3002168\u300277\u300210",
	"[192.168.77.10]", "<192.168.77.10>", "\"192.168.77.10\"", "192.168.77.10%eth0", "192.168.77.10#", "192.168.77.10@evil.example", "http://192.168.77.10", "//192.168.77.10",
	"::1", "[::1]", "fe80::1", "fe80::1%eth0", "::ffff:192.168.77.10", "::ffff:c0a8:4d0a", "2001:db8:77::10", "localhost", "localhost.", "gateway", "a", "router.lan",
	"evil.example", "10.77.168.192.in-addr.arpa", "192.168.77.10.evil.example", "*", "any", "all", "0", "-", "%s%n", "$(id)", "`id`", "|id", "../../etc/hosts", strings.Repeat("1", 300),
}

// TestOddArguments: B5 to B7 and C10 with many texts: none is taken for a number, a
// protocol or an address that it is not.
func TestOddArguments(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	r.inhabit(t)
	for version, c := range map[int]*lab.ControlPoint{1: r.v1(t, "a"), 2: r.v2(t, "a")} {
		protocol := map[int]int{1: 402, 2: 601}[version]
		for _, x := range []struct {
			id, argument string
			want         int
			values       []string
		}{
			{"B6", "NewExternalPort", 402, append([]string{"65536", "65981", "99999", "131117"}, notNumbers...)},
			{"B6", "NewInternalPort", 402, append([]string{"65536", "65981", "99999", "131117", "*"}, notNumbers...)},
			{"C10", "NewLeaseDuration", 402, append([]string{"*"}, notNumbers...)},
			{"B7", "NewProtocol", protocol, []string{"6", "17", "0", "TC", "TCPP", "T CP", "TCP UDP", "TCP,UDP", "TCP/UDP", "TCPUDP", "TCP\nUDP", "UDPLITE", "DCCP", "SCTP",
				"ICMP", "ICMPv6", "GRE", "ESP", "ALL", "ANY", "any", "*", "\uff34\uff23\uff30", "TCP\u200b", "tcp6", "ip", "-p tcp", "TCP;", "`id`", "%s", strings.Repeat("TCP", 100)}},
			{"B5", "NewInternalClient", 402, notAddresses},
		} {
			t.Run(fmt.Sprintf("v%d/%s/%s", version, x.id, x.argument), func(t *testing.T) {
				before := r.World(t)
				for _, value := range x.values {
					if _, err := c.Call(t.Context(), "AddPortMapping", withArgument(x.argument, value)...); code(err) != x.want {
						t.Errorf("%.40q was answered %v, want %d", value, err, x.want)
					}
				}
				r.Unchanged(t, before)
			})
		}
	}
	if _, err := r.v1(t, "a").Call(t.Context(), "AddPortMapping", withArgument("", "")...); err != nil {
		t.Errorf("the unspoilt request: %v: the cases above prove nothing", err)
	}
}

// withArgument is a good AddPortMapping by host a with one argument changed.
func withArgument(name, value string) []string {
	args := []string{"NewRemoteHost", "", "NewExternalPort", "44100", "NewProtocol", "TCP", "NewInternalPort", "18000",
		"NewInternalClient", hostA.String(), "NewEnabled", "1", "NewPortMappingDescription", "x", "NewLeaseDuration", "60"}
	for i := 0; i < len(args); i += 2 {
		if args[i] == name {
			args[i+1] = value
		}
	}
	return args
}

// TestOtherTargets: B1, B3 and B4 with many addresses: the Internet's, every other one of
// the LAN, and those that no host has.
func TestOtherTargets(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	r.inhabit(t)
	c := r.v1(t, "a")
	var lan []string
	for i := 2; i < 255; i++ {
		if i != 10 {
			lan = append(lan, fmt.Sprintf("192.168.77.%d", i))
		}
	}
	for id, x := range map[string]struct {
		targets []string
		want    []int
	}{
		"B1/Internet": {[]string{"1.1.1.1", "8.8.8.8", "9.9.9.9", "45.77.0.1", "172.217.165.142", "203.0.113.1", "203.0.113.66", "203.0.113.67", "223.255.255.254"}, []int{606}},
		"B2/LAN":      {lan, []int{606}},
		"B3/gateway":  {[]string{"192.168.77.1", "127.0.0.1", "127.0.0.53", "127.255.255.254"}, []int{606}},
		"B4/nobody's": {[]string{"0.0.0.0", "0.1.2.3", "192.168.77.0", "192.168.77.255", "255.255.255.255", "224.0.0.1", "224.0.0.251", "239.255.255.250", "239.0.0.1",
			"169.254.0.1", "169.254.169.254", "240.0.0.1", "255.255.255.254", "100.64.0.1", "100.127.255.254", "203.0.113.5"}, []int{402}},
		"B1/other private networks": {[]string{"10.0.0.1", "172.16.0.1", "192.168.0.1", "192.168.78.10"}, []int{606}},
	} {
		t.Run(id, func(t *testing.T) {
			before := r.World(t)
			for _, target := range x.targets {
				if err := c.Add(t.Context(), tcp(47669, 18000, target)); !slices.Contains(x.want, code(err)) {
					t.Errorf("%s was answered %v, want %v", target, err, x.want)
				}
			}
			r.Unchanged(t, before)
		})
	}
}

// TestOddDatagrams: H1 to H4, I3, I6, I13 and I15 with each length, version, opcode,
// protocol and option there is.
func TestOddDatagrams(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	r.inhabit(t)
	a := r.talker(t, "a")
	request := pmp(1, 6001, 6001, 3600)
	kind := func(name string, f func(t *testing.T)) {
		t.Run(name, func(t *testing.T) {
			before := r.World(t)
			f(t)
			r.Unchanged(t, before)
		})
	}
	kind("H1/lengths", func(t *testing.T) {
		for op := byte(1); op <= 2; op++ {
			long, all := append(pmp(op, 6001, 6001, 3600), make([]byte, 100)...), [][]byte(nil)
			for n := range 101 {
				if n != 12 {
					all = append(all, long[:n])
				}
			}
			a.silent(t, all...)
		}
	})
	kind("H2/replies", func(t *testing.T) {
		for op := 128; op < 256; op++ {
			a.silent(t, append([]byte{0, byte(op)}, request[2:]...), []byte{0, byte(op)})
		}
	})
	kind("H3/versions", func(t *testing.T) {
		for version := 1; version < 256; version++ {
			if version == 2 {
				continue
			}
			if reply := a.ask(t, append([]byte{byte(version)}, request[1:]...)); reply[0] != 2 || reply[3] != 1 {
				t.Errorf("version %d: % x", version, reply)
			}
		}
	})
	kind("H4/opcodes", func(t *testing.T) {
		for op := byte(3); op < 128; op++ {
			if reply := a.ask(t, append([]byte{0, op}, request[2:]...)); reply[0] != 0 || binary.BigEndian.Uint16(reply[2:]) != 5 {
				t.Errorf("opcode %d: % x", op, reply)
			}
		}
	})
	good := pcpMap{suggested: 6001, internal: 6001}.octets(t)
	answered := func(t *testing.T, what string, i int, b []byte, want byte) {
		t.Helper()
		if reply := a.ask(t, b); reply[0] != 2 || reply[3] != want {
			t.Errorf("%s %d: % x, want code %d", what, i, reply, want)
		}
	}
	kind("I3/versions", func(t *testing.T) {
		for version := 1; version < 256; version++ {
			if version != 2 {
				answered(t, "version", version, append([]byte{byte(version)}, good[1:]...), 1)
			}
		}
	})
	kind("I15/opcodes", func(t *testing.T) {
		for op := byte(2); op < 128; op++ {
			answered(t, "opcode", int(op), append([]byte{2, op}, good[2:]...), 4)
		}
	})
	kind("I13/protocols", func(t *testing.T) {
		for protocol := 1; protocol < 256; protocol++ {
			if protocol == unix.IPPROTO_TCP || protocol == unix.IPPROTO_UDP {
				continue
			}
			b := slices.Clone(good)
			b[36] = byte(protocol)
			answered(t, "protocol", protocol, b, 9)
		}
	})
	kind("I6/options", func(t *testing.T) {
		for option := byte(4); option < 128; option++ {
			answered(t, "option", int(option), append(slices.Clone(good), option, 0, 0, 0), 5)
		}
	})
	if reply := a.ask(t, good); reply[3] != 0 {
		t.Errorf("the unspoilt request: % x: the cases above prove nothing", reply)
	}
}

// oddSearches have something wrong; each asks for the root device.
func oddSearches() (all []string) {
	const root = "ST: upnp:rootdevice\r\n"
	good := strings.Replace(string(search("upnp:rootdevice")), "MX: 1\r\n", "MX: 2\r\n", 1)
	change := func(old string, instead ...string) {
		for _, s := range instead {
			all = append(all, strings.Replace(good, old, s, 1))
		}
	}
	for n := range len(good) - 4 { // the last line may lack its end, and the message the empty one
		all = append(all, good[:n])
	}
	change("M-SEARCH * HTTP/1.1", "m-search * HTTP/1.1", "M-SEARCH * HTTP/1.0", "M-SEARCH * HTTP/2", "M-SEARCH / HTTP/1.1", "M-SEARCH  * HTTP/1.1", "M-SEARCH * HTTP/1.1 ",
		" M-SEARCH * HTTP/1.1", "\r\nM-SEARCH * HTTP/1.1", "GET * HTTP/1.1", "NOTIFY * HTTP/1.1", "HTTP/1.1 200 OK", "M-SEARCH *", "M-SEARCH * HTTP/1.1\x00") // E6, too
	change("\"ssdp:discover\"", "\"ssdp:discover", "ssdp:discover\"", "'ssdp:discover'", "\"SSDP:DISCOVER\"", "\"ssdp:all\"", "\"ssdp:discover\" x", "", "\"\"", "\"ssdp:discover\"\x00")
	change("MAN: \"ssdp:discover\"\r\n", "", "MAN: \"ssdp:discover\"\r\nMAN: \"ssdp:discover\"\r\n", "MAN \"ssdp:discover\"\r\n", "MA N: \"ssdp:discover\"\r\n")
	change("MX: 2\r\n", "", "MX:\r\n", "MX: \r\n", "MX: -1\r\n", "MX: +2\r\n", "MX: 2.5\r\n", "MX: 2,5\r\n", "MX: 0x2\r\n", "MX: 2 2\r\n", "MX: two\r\n", "MX: 2;\r\n", "MX: %d\r\n",
		"MX: 2\r\nMX: 2\r\n", "MX: 2\r\nmx: 0\r\n", "MX: \u0662\r\n", "MX: NaN\r\n", "MX: "+strings.Repeat("9", 300)+"\r\n")
	change(root, "", "ST:\r\n", "ST: \t \r\n", root+root, root+"st: ssdp:all\r\n", "ST: upnp:rootdevice\x00\r\n", "ST: upnp:rootdevice\x7f\r\n", "ST:\r\n upnp:rootdevice\r\n",
		"ST: upnp:rootdevice\n\r\n", "ST: upnp:rootdevice\r \r\n", "X\r\n"+root, ": x\r\n"+root, "X Y: 1\r\n"+root, "X\x00: 1\r\n"+root, "X(: 1\r\n"+root, "X: \x01\r\n"+root, " X: 1\r\n"+root,
		"ST: upnp:rootdevice"+strings.Repeat("A", 1200)+"\r\n", "X: "+strings.Repeat("A", 300)+"\r\n"+root, strings.Repeat("X: 1\r\n", 33)+root)
	for _, target := range []string{"upnp:rootdevice;touch x", "`touch x`", "$(touch x)", "upnp:rootdevice|id", "upnp:rootdevice&&id", "; reboot", "%n%n%s", "upnp:root", "UPNP:ROOTDEVICE",
		"upnp:rootdevice upnp:rootdevice", "uuid:", "uuid:*", "uuid:00000000-0000-0000-0000-000000000000", "urn:", "urn:schemas-upnp-org:device:InternetGatewayDevice:", "urn:schemas-upnp-org:device:InternetGatewayDevice:0",
		"urn:schemas-upnp-org:device:InternetGatewayDevice:3", "urn:schemas-upnp-org:device:InternetGatewayDevice:-1", "urn:schemas-upnp-org:device:InternetGatewayDevice:1:1", "urn:schemas-upnp-org:device:internetgatewaydevice:1",
		"urn:schemas-upnp-org:device:MediaServer:1", "ssdp:", "ssdp:ALL", "*", "../../etc/passwd", "http://evil.example/"} { // E3
		change(root, "ST: "+target+"\r\n")
	}
	return append(all, strings.ReplaceAll(good, "\r\n", "\n"), strings.ReplaceAll(good, "\r\n", "\r"), "", "\r\n", "\x00", strings.Repeat("A", 1400), good+strings.Repeat("A", 1501-len(good)))
}

// TestOddSearches: E2, E3, E4 and E6. What is not a search, or for nothing of ours, meets
// silence, by multicast and by unicast: the first answer is that to the good one after it.
func TestOddSearches(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	r.inhabit(t)
	before := r.World(t)
	conn, err := r.Host("a").ListenPacket(hostPort(hostA, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	mayLackMX := func(s string) bool { return !strings.Contains(s, "MX:") } // by unicast
	for _, to := range []netip.AddrPort{lab.Group4, netip.AddrPortFrom(lab.GatewayLAN, 1900)} {
		for batch := range slices.Chunk(oddSearches(), 30) { // no more than the socket takes at once
			for _, s := range batch {
				if to != lab.Group4 && mayLackMX(s) {
					continue
				}
				if _, err := conn.WriteToUDPAddrPort([]byte(s), to); err != nil {
					t.Fatal(err)
				}
			}
			firstAnswer(t, conn, to)
		}
	}
	for foundBy(t, conn, 500*time.Millisecond) { // a good one that was sent twice
	}
	r.Unchanged(t, before, "E2", "E3", "E4", "E6")
}

// firstAnswer searches for the gateway until something is answered, which must be that.
func firstAnswer(t *testing.T, conn *net.UDPConn, to netip.AddrPort) {
	t.Helper()
	testrig.Eventually(t, soon, "the good search is answered", func() bool {
		if _, err := conn.WriteToUDPAddrPort(search(lab.IGD1), to); err != nil {
			t.Fatal(err)
		}
		return foundBy(t, conn, time.Second)
	})
}

// foundBy reads an answer, to a good search, and reports whether there was one.
func foundBy(t *testing.T, conn *net.UDPConn, within time.Duration) bool {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2048)
	n, _, err := conn.ReadFromUDPAddrPort(buf)
	if err == nil && !strings.Contains(string(buf[:n]), "ST: "+lab.IGD1+"\r\n") {
		t.Errorf("answered:\n%s", buf[:n])
	}
	return err == nil
}
