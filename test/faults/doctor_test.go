package faults

import (
	"encoding/json"
	"net"
	"os/exec"
	"strings"
	"testing"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// seen is what `portcullis doctor --json` prints.
type seen struct {
	OK       bool
	Findings []struct{ ID, Level, What, Remedy string }
}

// examined runs doctor on the gateway of a network with a configuration.
func examined(t *testing.T, n *lab.Network, config string) (s seen, failed bool) {
	t.Helper()
	return examine(t, n, writeConfig(t, config))
}

// examinedRunning runs doctor beside the daemon.
func examinedRunning(t *testing.T, r *testrig.Rig) seen {
	t.Helper()
	s, _ := examine(t, r.Network, r.Daemon.Config)
	return s
}

func examine(t *testing.T, n *lab.Network, file string) (s seen, failed bool) {
	t.Helper()
	return examineBy(t, n, exec.Command(testrig.Exe, "doctor", "--json", "--config", file))
}

func examineBy(t *testing.T, n *lab.Network, cmd *exec.Cmd) (s seen, failed bool) {
	t.Helper()
	var out, complaint strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := n.Gateway.Start(cmd); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	if e := json.Unmarshal([]byte(out.String()), &s); e != nil {
		t.Fatalf("%v, %v: %s%s", err, e, &out, &complaint)
	}
	return s, err != nil
}

// has reports whether there is a finding of this level whose text and remedy hold these
// words.
func (s seen) has(id, level string, words ...string) bool {
	for _, f := range s.Findings {
		all := f.ID == id && f.Level == level
		for _, w := range words {
			all = all && strings.Contains(f.What+" "+f.Remedy, w)
		}
		if all {
			return true
		}
	}
	return false
}

// TestDoctor: each thing that keeps a mapping from working is found, with its remedy;
// where nothing does, a packet through a copy of the rules proves it.
func TestDoctor(t *testing.T) {
	t.Parallel()
	noChain := strings.Replace(lab.Settings, `accept_chain = "`+lab.FirewallChain+`"`, "", 1)
	for name, c := range map[string]struct {
		config string
		spoil  func(*testing.T, *testrig.Rig)
		id     string
		level  string
		words  []string
		stops  bool
	}{
		"nothing":                {lab.Settings, nil, "path", "ok", []string{"IPv4"}, false},
		"nothing, IPv6":          {lab.Settings, nil, "path6", "ok", []string{"IPv6"}, false},
		"the host's chain drops": {noChain, nil, "path", "failure", []string{"inet hostfw forward", `accept_chain = "inet hostfw forward"`}, true},
		"and pinholes":           {noChain, nil, "path6", "failure", []string{"inet hostfw forward"}, true},
		"a rule before our jump": {lab.Settings, func(t *testing.T, r *testrig.Rig) {
			nft(t, r, "table inet other { chain early { type filter hook forward priority -200; udp dport 1024-65535 drop; }; }")
		}, "path", "failure", []string{"inet other early"}, true},
		// What Forwarded leaves to guess: a verdict map.
		"all ports are forwarded elsewhere": {lab.Settings, func(t *testing.T, r *testrig.Rig) {
			nft(t, r, "table ip other { chain every { dnat to 192.168.77.99; }; chain pre { type nat hook prerouting priority dstnat; iifname vmap { wan0 : jump every }; }; }")
		}, "path", "failure", []string{"does not pass", "forwards them elsewhere"}, true},
		"forwarding is off":           {lab.Settings, sysctl("ipv4/ip_forward", "0"), "forwarding", "failure", []string{"net.ipv4.ip_forward=1"}, true},
		"IPv6 forwarding is off":      {lab.Settings, sysctl("ipv6/conf/all/forwarding", "0"), "forwarding6", "failure", []string{"forwarding=1"}, true},
		"no WAN":                      {lab.Settings, func(t *testing.T, r *testrig.Rig) { ip(t, r, "link set wan0 down") }, "wan", "failure", []string{"wan0"}, true},
		"a private WAN":               {lab.Settings, func(t *testing.T, r *testrig.Rig) { ip(t, r, "addr flush dev wan0", "addr add 100.64.1.2/24 dev wan0") }, "private_wan", "failure", []string{"100.64.1.2"}, true},
		"a port is taken":             {lab.Settings, hold, "port_taken", "failure", []string{"udp 5351", "faults"}, true},
		"the configuration is wrong":  {lab.Settings + "[wan]\n", nil, "config", "failure", nil, true},
		"a second DHCP server":        {lab.Settings, secondDHCP, "second_dhcp", "warning", []string{"192.168.77.10"}, false},
		"a second gateway on the LAN": {lab.Settings, secondGateway, "second_gateway", "warning", []string{"192.168.77.10"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := testrig.Network(t, "a")
			if c.spoil != nil {
				c.spoil(t, &testrig.Rig{Network: n})
			}
			s, failed := examined(t, n, c.config)
			if !s.has(c.id, c.level, c.words...) || failed != c.stops || s.OK == c.stops {
				t.Errorf("exit %v: %+v", failed, s)
			}
		})
	}
}

// TestDoctorUntried: where no packet can be tried, as in a container whose /proc/sys is read-only and without nft,
// or only one to the gateway, as while the WAN is down, the chain that keeps devices from asking
// is named all the same.
func TestDoctorUntried(t *testing.T) {
	t.Parallel()
	const contained = "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec \"$@\""
	for _, name := range []string{"a container", "the WAN is down", "there is no nft"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := testrig.Network(t, "a")
			r := &testrig.Rig{Network: n}
			nft(t, r, "table inet filter { chain input { type filter hook input priority filter; policy drop; ct state established accept; }; }")
			args := []string{testrig.Exe, "doctor", "--json", "--config", writeConfig(t, lab.Settings)}
			switch name {
			case "a container":
				args = append([]string{"unshare", "--mount", "sh", "-c", contained, "sh"}, args...)
			case "there is no nft": // what the rules say is read from the kernel
				args = append([]string{"env", "PATH=/nowhere"}, args...)
			default:
				ip(t, r, "link set wan0 down")
			}
			s, failed := examineBy(t, n, exec.Command(args[0], args[1:]...))
			if !failed || !s.has("path", "warning", "no packet was sent") ||
				!s.has("asks", "failure", "br-lan", "inet filter input", `nft insert rule inet filter input iifname "br-lan" udp dport { 1900, 5351 } accept`) {
				t.Errorf("exit %v: %+v", failed, s)
			}
			for _, f := range s.Findings {
				if strings.Contains(f.What, "\n") {
					t.Errorf("more than a line: %q", f.What)
				}
			}
		})
	}
}

// TestDoctorIPTables: the same where rules are iptables', with either backend: they
// are copied by iptables' own programs, and the chain that drops is named.
func TestDoctorIPTables(t *testing.T) {
	t.Parallel()
	const choice = `accept_chain = "` + lab.FirewallChain + `"`
	noChain := strings.Replace(lab.Settings, choice, "", 1)
	byIPTables := strings.Replace(lab.Settings, choice, `backend = "iptables"`, 1)
	byNFTables := strings.Replace(lab.Settings, choice, `backend = "nftables"`, 1)
	for name, c := range map[string]struct {
		flavour, config, rule string
		id, level             string
		words                 []string
		stops                 bool
	}{
		"nft":                     {"nft", byIPTables, "", "path", "ok", []string{"IPv4"}, false},
		"nft, IPv6":               {"nft", byIPTables, "", "path6", "ok", []string{"IPv6"}, false},
		"nft, a drop elsewhere":   {"nft", byIPTables, "iptables-nft -t mangle -A FORWARD -p udp -j DROP", "path", "failure", []string{"ip mangle FORWARD", "Portcullis has no jump"}, true},
		"nft, nftables' table":    {"nft", noChain, "", "path", "failure", []string{"ip filter FORWARD", `backend = "iptables"`}, true},
		"nft, IPv6's of that":     {"nft", noChain, "", "path6", "failure", []string{"ip6 filter FORWARD", `backend = "iptables"`}, true},
		"legacy":                  {"legacy", noChain, "", "path", "ok", []string{"IPv4"}, false},
		"legacy, a drop":          {"legacy", noChain, "iptables-legacy -t raw -A PREROUTING -i wan0 -p udp -j DROP", "path", "failure", []string{"iptables-legacy raw PREROUTING"}, true},
		"legacy, nftables' table": {"legacy", byNFTables, "", "path", "failure", []string{"iptables-legacy filter FORWARD", `backend = "iptables"`}, true},
		"legacy, IPv6":            {"legacy", byNFTables, "", "path6", "failure", []string{"ip6tables-legacy filter FORWARD", `backend = "iptables"`}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := chainsHome(t, c.flavour)
			if n == nil {
				return
			}
			if c.rule != "" {
				run(t, n.Gateway, c.rule)
			}
			s, failed := examined(t, n, c.config)
			if !s.has(c.id, c.level, c.words...) || failed != c.stops || s.OK == c.stops {
				t.Errorf("exit %v: %+v", failed, s)
			}
		})
	}
}

// run runs a command on a host.
func run(t *testing.T, h *lab.Host, command string) {
	t.Helper()
	words := strings.Fields(command)
	cmd := exec.Command(words[0], words[1:]...)
	if err := h.Start(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%s: %v", command, err)
	}
}

func sysctl(name, value string) func(*testing.T, *testrig.Rig) {
	return func(t *testing.T, r *testrig.Rig) {
		t.Helper()
		if err := r.Gateway.SetSysctl(name, value); err != nil {
			t.Fatal(err)
		}
	}
}

// hold takes a port of ours on the gateway.
func hold(t *testing.T, r *testrig.Rig) {
	t.Helper()
	conn, err := r.Gateway.ListenPacket("0.0.0.0:5351")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
}

// secondDHCP has host a answer as a DHCP server does that leaves addresses alone.
func secondDHCP(t *testing.T, r *testrig.Rig) {
	t.Helper()
	conn, err := r.Host("a").ListenPacket("0.0.0.0:67")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go replies(conn, func(request []byte) []byte {
		if len(request) <= 240 {
			return nil
		}
		request[0] = 2 // BOOTREPLY, with the same transaction
		return request
	})
}

// replies answers what comes to a socket until it is closed; nil is no answer.
func replies(conn *net.UDPConn, answer func(request []byte) []byte) {
	buf := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		if b := answer(buf[:n]); b != nil {
			_, _ = conn.WriteToUDPAddrPort(b, from)
		}
	}
}

// secondGateway has host a answer searches as a gateway does.
func secondGateway(t *testing.T, r *testrig.Rig) {
	t.Helper()
	conn, err := joined(r.Host("a"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go replies(conn, func([]byte) []byte {
		return []byte("HTTP/1.1 200 OK\r\nST: " + lab.IGD1 + "\r\nLOCATION: http://192.168.77.10/\r\n\r\n")
	})
}
