package igd_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"portcullis/portmap"
)

// leaseBetween reads NewLeaseDuration and checks it.
func leaseBetween(t testing.TB, r reply, low, high int) {
	t.Helper()
	got, err := strconv.Atoi(r.Out["NewLeaseDuration"])
	if err != nil || got < low || got > high {
		t.Errorf("lease %q, want %d to %d", r.Out["NewLeaseDuration"], low, high)
	}
}

func TestAddAndGet(t *testing.T) {
	t.Parallel()
	for _, service := range []string{ip1, ip2, ppp1} {
		t.Run("SOAP-3 SOAP-4/"+service, func(t *testing.T) {
			l := start(t)
			r := l.call(hostA, service, "AddPortMapping", mapping(hostA)...)
			wantCode(t, r, 0)
			if len(r.Names) != 0 {
				t.Errorf("out arguments %q", r.Names)
			}
			r = l.call(hostA, service, "GetSpecificPortMappingEntry", key("6000", "UDP")...)
			wantCode(t, r, 0)
			leaseBetween(t, r, 3595, 3600)
			delete(r.Out, "NewLeaseDuration")
			want := map[string]string{
				"NewInternalPort": "6000", "NewInternalClient": "192.168.1.50", "NewEnabled": "1", "NewPortMappingDescription": "game",
			}
			if diff := cmp.Diff(want, r.Out); diff != "" {
				t.Errorf("entry (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRenewalAndConflict(t *testing.T) {
	t.Parallel()
	l := start(t)
	wantCode(t, l.call(hostA, ip1, "AddPortMapping", mapping(hostA)...), 0)
	wantCode(t, l.call(hostB, ip2, "AddAnyPortMapping", mapping(hostB, "NewInternalPort", "445")...), 606)
	wantCode(t, l.call(hostB, ip2, "AddAnyPortMapping", mapping(hostB, "NewInternalPort", "0")...), 732)
	t.Run("SOAP-5/renewed with another lease and port", func(t *testing.T) {
		wantCode(t, l.call(hostA, ip2, "AddPortMapping", mapping(hostA, "NewInternalPort", "6001", "NewLeaseDuration", "7200")...), 0)
		r := l.call(hostA, ip1, "GetSpecificPortMappingEntry", key("6000", "UDP")...)
		leaseBetween(t, r, 7195, 7200)
		if diff := cmp.Diff([]string{"udp 6000 -> 192.168.1.50:6001"}, l.table()); diff != "" {
			t.Errorf("table (-want +got):\n%s", diff)
		}
	})
	t.Run("C1/another client", func(t *testing.T) {
		for _, service := range []string{ip1, ip2, ppp1} {
			r := l.call(hostB, service, "AddPortMapping", mapping(hostB)...)
			wantCode(t, r, 718)
			if !strings.HasPrefix(r.Description, "ConflictInMappingEntry") || strings.Contains(r.Description, "192.168.1.50") {
				t.Errorf("description %q", r.Description)
			}
		}
	})
	t.Run("SOAP-7/other protocol", func(t *testing.T) {
		wantCode(t, l.call(hostB, ip1, "AddPortMapping", mapping(hostB, "NewProtocol", "TCP")...), 0)
	})
	t.Run("SOAP-8/any port", func(t *testing.T) {
		r := l.call(hostB, ip2, "AddAnyPortMapping", mapping(hostB)...)
		wantCode(t, r, 0)
		port, _ := strconv.Atoi(r.Out["NewReservedPort"])
		if port == 6000 || port < 1024 {
			t.Errorf("NewReservedPort %d", port)
		}
		again := l.call(hostB, ip2, "AddAnyPortMapping", mapping(hostB)...)
		if again.Out["NewReservedPort"] != r.Out["NewReservedPort"] {
			t.Errorf("repeated: port %s, then %s", r.Out["NewReservedPort"], again.Out["NewReservedPort"])
		}
		zero := l.call(hostB, ip2, "AddAnyPortMapping", mapping(hostB, "NewExternalPort", "0")...)
		if zero.Out["NewReservedPort"] != r.Out["NewReservedPort"] {
			t.Errorf("repeated with 0: port %s, then %s", r.Out["NewReservedPort"], zero.Out["NewReservedPort"])
		}
	})
	t.Run("B8/the gateway listens there", func(t *testing.T) {
		args := mapping(hostA, "NewExternalPort", "7777", "NewProtocol", "TCP")
		r := l.call(hostA, ip2, "AddPortMapping", args...)
		wantCode(t, r, 729)
		if strings.Contains(r.Description, "secretd") {
			t.Errorf("the description tells who listens: %q", r.Description)
		}
		wantCode(t, l.call(hostA, ip1, "AddPortMapping", args...), 718)
		r = l.call(hostA, ip2, "AddAnyPortMapping", args...)
		wantCode(t, r, 0)
		if r.Out["NewReservedPort"] == "7777" {
			t.Error("AddAnyPortMapping gave the gateway's port")
		}
	})
	t.Run("SOAP-44/held by NAT-PMP", func(t *testing.T) {
		m := portmap.Request{Client: hostB.client, Transport: portmap.UDP}
		m.Client.Via = portmap.ViaNATPMP
		m.Internal = addrPort(hostB, 6100)
		m.ExternalPort = 6100
		if _, err := l.engine.Map(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		for _, service := range []string{ip1, ip2} {
			wantCode(t, l.call(hostA, service, "AddPortMapping", mapping(hostA, "NewExternalPort", "6100")...), 718)
		}
	})
}

func TestLease(t *testing.T) {
	t.Parallel()
	l := start(t)
	for _, service := range []string{ip1, ip2} {
		for _, c := range []struct {
			id, ask   string
			low, high int
		}{
			{"SOAP-10 C10/no end", "0", map[string]int{ip1: 0, ip2: 604795}[service], map[string]int{ip1: 0, ip2: 604800}[service]},
			{"C10/1", "1", 1, 1},
			{"C10/604800", "604800", 604795, 604800},
			{"SOAP-11 CHOICE-7 C10/604801", "604801", 604795, 604800},
			{"C10/2^31", "2147483648", 604795, 604800},
			{"C10/2^32-1", "4294967295", 604795, 604800},
		} {
			t.Run(c.id+" "+service, func(t *testing.T) {
				wantCode(t, l.call(hostA, service, "AddPortMapping", mapping(hostA, "NewLeaseDuration", c.ask)...), 0)
				leaseBetween(t, l.call(hostA, service, "GetSpecificPortMappingEntry", key("6000", "UDP")...), c.low, c.high)
			})
		}
		for _, bad := range []string{"4294967296", "-1", "abc", "", "1.5", "0x10"} {
			t.Run("C10/"+bad+" "+service, func(t *testing.T) {
				wantCode(t, l.call(hostA, service, "AddPortMapping", mapping(hostA, "NewExternalPort", "6666", "NewLeaseDuration", bad)...), 402)
			})
		}
	}
	if diff := cmp.Diff([]string{"udp 6000 -> 192.168.1.50:6000"}, l.table()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

// TestRefusals walks the requests that must change nothing.
func TestRefusals(t *testing.T) {
	t.Parallel()
	l := start(t)
	type refusal struct {
		id     string
		change []string
		v1, v2 int
	}
	cases := []refusal{
		{"B1/an Internet host", []string{"NewInternalClient", "172.217.165.142", "NewInternalPort", "443"}, 606, 606},
		{"B2 SOAP-17/another host", []string{"NewInternalClient", "192.168.1.60"}, 606, 606},
		{"B2/another host's 445", []string{"NewInternalClient", "192.168.1.20", "NewInternalPort", "445"}, 606, 606},
		{"B2/own 445", []string{"NewInternalPort", "445"}, 606, 606},
		{"B3/the gateway", []string{"NewInternalClient", "192.168.1.1"}, 606, 606},
		{"SOAP-13/external port 70000", []string{"NewExternalPort", "70000"}, 402, 402},
		{"SOAP-13/external port abc", []string{"NewExternalPort", "abc"}, 402, 402},
		{"SOAP-13/external port -1", []string{"NewExternalPort", "-1"}, 402, 402},
		{"SOAP-13/external port empty", []string{"NewExternalPort", ""}, 402, 402},
		{"SOAP-14 B6/internal port 0", []string{"NewInternalPort", "0"}, 402, 732},
		{"SOAP-16 CHOICE-6 B6/external port 0", []string{"NewExternalPort", "0"}, 716, 716},
		{"B6/external port *", []string{"NewExternalPort", "*"}, 716, 716},
		{"B6/internal port *", []string{"NewInternalPort", "*"}, 402, 402},
		{"K9/port below 1024", []string{"NewExternalPort", "443"}, 606, 606},
		{"NewEnabled/not a boolean", []string{"NewEnabled", "2"}, 402, 402},
		{"NewEnabled/empty", []string{"NewEnabled", ""}, 402, 402},
		{"B10/host name as remote", []string{"NewRemoteHost", "evil.example"}, 402, 402},
		{"B10/IPv6 remote", []string{"NewRemoteHost", "2001:db8::1"}, 402, 402},
		{"B10/prefix as remote", []string{"NewRemoteHost", "198.51.100.0/24"}, 402, 402},
	}
	for _, p := range []string{"65536", "65537", "131072", "4294967296", "18446744073709551617", "99999999999999999999999", "6000.0", "6e3", "0x1770", "6000;", "6000 7000", "6_000", "--1"} {
		cases = append(cases,
			refusal{"B6/external port " + p, []string{"NewExternalPort", p}, 402, 402},
			refusal{"B6/internal port " + p, []string{"NewInternalPort", p}, 402, 402})
	}
	for _, p := range []string{"ICMP", "SCTP", "UDPLITE", "", "TCP ", " UDP", "6", "TCP,UDP"} {
		cases = append(cases, refusal{"B7/protocol " + strconv.Quote(p), []string{"NewProtocol", p}, 402, 601})
	}
	for _, a := range []string{
		"0.0.0.0", "255.255.255.255", "192.168.1.255", "224.0.0.1", "239.255.255.250",
		"169.254.9.9", "240.0.0.1", "203.0.113.7", "100.64.0.9",
	} {
		cases = append(cases, refusal{"B4/" + a, []string{"NewInternalClient", a}, 402, 402})
	}
	for _, a := range []string{
		"localhost", "evil.example", "0xC0A80114", "3232235796", "192.168.001.020", "192.168.1.20.", "::ffff:192.168.1.20",
		"::ffff:192.168.1.50", "192.168.1.50%lan", "192.168.1", "192.168.1.50 ", "2001:db8::50",
	} {
		cases = append(cases, refusal{"B5/" + a, []string{"NewInternalClient", a}, 402, 402})
	}
	for _, c := range cases {
		for service, code := range map[string]int{ip1: c.v1, ip2: c.v2, ppp1: c.v1} {
			t.Run(c.id+" "+service, func(t *testing.T) {
				wantCode(t, l.call(hostA, service, "AddPortMapping", mapping(hostA, c.change...)...), code)
			})
		}
	}
	if got := l.table(); len(got) != 0 {
		t.Errorf("the table has %q", got)
	}
	if got := l.engine.Snapshot().Revision(); got != 0 {
		t.Errorf("something changed: revision %d", got)
	}
}

func TestMissingArguments(t *testing.T) {
	t.Parallel()
	l := start(t)
	args := mapping(hostA)
	for i := 0; i < len(args); i += 2 {
		if args[i] == "NewRemoteHost" || args[i] == "NewPortMappingDescription" {
			continue // what may be empty may be missing
		}
		for _, service := range []string{ip1, ip2, ppp1} {
			t.Run("G3/"+args[i]+" "+service, func(t *testing.T) {
				wantCode(t, l.call(hostA, service, "AddPortMapping", mapping(hostA, args[i], "-")...), 402)
			})
		}
	}
	for _, action := range []string{"GetSpecificPortMappingEntry", "DeletePortMapping"} {
		for i := 2; i < 6; i += 2 { // ODD-3: not NewRemoteHost
			args := key("6000", "UDP")
			t.Run("G3/"+action+" "+args[i], func(t *testing.T) {
				wantCode(t, l.call(hostA, ip1, action, with(args, args[i], "-")...), 402)
			})
		}
	}
	wantCode(t, l.call(hostA, ip1, "GetGenericPortMappingEntry"), 402)
	if got := l.table(); len(got) != 0 {
		t.Errorf("the table has %q", got)
	}
}

// TestLeftOut: ODD-3. nat-puncher until 2020 and miniupnpc until 2014 send no
// NewRemoteHost; what may be empty may be missing.
func TestLeftOut(t *testing.T) {
	t.Parallel()
	for _, service := range []string{ip1, ip2, ppp1} {
		l := start(t)
		wantCode(t, l.call(hostA, service, "AddPortMapping", mapping(hostA, "NewRemoteHost", "-", "NewPortMappingDescription", "-")...), 0)
		if diff := cmp.Diff([]string{"udp 6000 -> 192.168.1.50:6000"}, l.table()); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", service, diff)
		}
		wantCode(t, l.call(hostA, service, "GetSpecificPortMappingEntry", key("6000", "UDP")[2:]...), 0)
		wantCode(t, l.call(hostA, service, "DeletePortMapping", key("6000", "UDP")[2:]...), 0)
		if got := l.table(); len(got) != 0 {
			t.Errorf("%s: left %q", service, got)
		}
	}
}

// TestAnyone: ODD-4, ODD-5, ODD-6. Each way of saying that everybody may come in
// means the same in every action, and so does what is not among them: a name or an
// address.
func TestAnyone(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", " ", "*", "0.0.0.0", "undefined"} {
		for _, service := range []string{ip1, ip2, ppp1} {
			l := start(t)
			set := func(args []string) []string { return with(args, "NewRemoteHost", text) }
			wantCode(t, l.call(hostA, service, "AddPortMapping", set(mapping(hostA))...), 0)
			if diff := cmp.Diff([]string{"udp 6000 -> 192.168.1.50:6000"}, l.table()); diff != "" {
				t.Errorf("%q: (-want +got)\n%s", text, diff)
			}
			wantCode(t, l.call(hostA, service, "GetSpecificPortMappingEntry", set(key("6000", "UDP"))...), 0)
			wantCode(t, l.call(hostA, service, "DeletePortMapping", set(key("6000", "UDP"))...), 0)
			if got := l.table(); len(got) != 0 {
				t.Errorf("%q: left %q", text, got)
			}
			if service != ip2 {
				continue
			}
			wantCode(t, l.call(hostA, service, "AddAnyPortMapping", set(mapping(hostA))...), 0)
			if diff := cmp.Diff([]string{"udp 6000 -> 192.168.1.50:6000"}, l.table()); diff != "" {
				t.Errorf("%q, any port: (-want +got)\n%s", text, diff)
			}
		}
	}
	l := start(t)
	for _, text := range []string{"null", "any", "Undefined", "0.0.0.0/0", "0.0.0", "::"} {
		wantCode(t, l.call(hostA, ip1, "AddPortMapping", mapping(hostA, "NewRemoteHost", text)...), 402)
	}
}

func TestTolerance(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		id     string
		change []string
		want   string
	}{
		{"B5/empty InternalClient", []string{"NewInternalClient", ""}, "udp 6000 -> 192.168.1.50:6000"},
		{"B5/blank InternalClient", []string{"NewInternalClient", "  "}, "udp 6000 -> 192.168.1.50:6000"},
		{"B7/protocol in lower case", []string{"NewProtocol", "tcp"}, "tcp 6000 -> 192.168.1.50:6000"},
		{"SOAP-34/blanks around numbers", []string{"NewExternalPort", " 6000\n", "NewInternalPort", "\t6001 "}, "udp 6000 -> 192.168.1.50:6001"},
		{"NewRemoteHost/*", []string{"NewRemoteHost", "*"}, "udp 6000 -> 192.168.1.50:6000"},
		{"SOAP-19 B10/remote host", []string{"NewRemoteHost", "198.51.100.9"}, "udp 6000 -> 192.168.1.50:6000 from 198.51.100.9"},
		{"B11/disabled", []string{"NewEnabled", "0"}, "udp 6000 -> 192.168.1.50:6000 (disabled)"},
		{"NewEnabled/true", []string{"NewEnabled", "true"}, "udp 6000 -> 192.168.1.50:6000"},
		{"NewEnabled/no", []string{"NewEnabled", "no"}, "udp 6000 -> 192.168.1.50:6000 (disabled)"},
	} {
		for _, service := range []string{ip1, ip2} {
			t.Run(c.id+" "+service, func(t *testing.T) {
				l := start(t)
				wantCode(t, l.call(hostA, service, "AddPortMapping", mapping(hostA, c.change...)...), 0)
				if diff := cmp.Diff([]string{c.want}, l.table()); diff != "" {
					t.Errorf("table (-want +got):\n%s", diff)
				}
			})
		}
	}
}

func TestRemoteHost(t *testing.T) {
	t.Parallel()
	l := start(t)
	remote := []string{"NewRemoteHost", "198.51.100.9"}
	wantCode(t, l.call(hostA, ip2, "AddPortMapping", mapping(hostA, remote...)...), 0)
	wantCode(t, l.call(hostA, ip2, "AddPortMapping", mapping(hostA, remote...)...), 0) // renewal
	wantCode(t, l.call(hostA, ip2, "GetSpecificPortMappingEntry", key("6000", "UDP")...), 714)
	wantCode(t, l.call(hostA, ip2, "DeletePortMapping", key("6000", "UDP")...), 714)
	wantCode(t, l.call(hostB, ip2, "AddPortMapping", mapping(hostB)...), 718)
	if got := l.call(hostA, ip2, "GetGenericPortMappingEntry", "NewPortMappingIndex", "0").Out["NewRemoteHost"]; got != "198.51.100.9" {
		t.Errorf("NewRemoteHost %q", got)
	}
	wantCode(t, l.call(hostA, ip2, "GetSpecificPortMappingEntry", with(key("6000", "UDP"), remote...)...), 0)
	wantCode(t, l.call(hostA, ip2, "DeletePortMapping", with(key("6000", "UDP"), remote...)...), 0)
	if got := l.table(); len(got) != 0 {
		t.Errorf("the table has %q", got)
	}
}

func TestIPv6Requester(t *testing.T) {
	t.Parallel()
	l := start(t)
	wantCode(t, l.call(host6, ip2, "AddPortMapping", mapping(host6, "NewInternalClient", "")...), 606)
	wantCode(t, l.call(host6, ip2, "AddPortMapping", mapping(hostA)...), 606)
	wantCode(t, l.call(host6, ip2, "GetGenericPortMappingEntry", "NewPortMappingIndex", "0"), 713)
	if got := l.table(); len(got) != 0 {
		t.Errorf("the table has %q", got)
	}
}

func TestDelete(t *testing.T) {
	t.Parallel()
	for _, service := range []string{ip1, ip2} {
		l := start(t)
		wantCode(t, l.call(hostA, service, "AddPortMapping", mapping(hostA)...), 0)
		t.Run("C3/another's "+service, func(t *testing.T) {
			want := map[string]int{ip1: 714, ip2: 606}[service]
			wantCode(t, l.call(hostB, service, "DeletePortMapping", key("6000", "UDP")...), want)
			wantCode(t, l.call(hostB, ip2, "DeletePortMappingRange", spanOnly("0", "65535")...), 730)
			if n := len(l.table()); n != 1 {
				t.Errorf("%d mappings", n)
			}
		})
		t.Run("SOAP-22/own "+service, func(t *testing.T) {
			wantCode(t, l.call(hostA, service, "DeletePortMapping", key("6000", "TCP")...), 714)
			wantCode(t, l.call(hostA, service, "DeletePortMapping", key("0", "UDP")...), 714)
			wantCode(t, l.call(hostA, service, "DeletePortMapping", key("*", "UDP")...), 714)
			for _, action := range []string{"DeletePortMapping", "GetSpecificPortMappingEntry"} {
				wantCode(t, l.call(hostA, service, action, with(key("6000", "UDP"), "NewRemoteHost", "evil.example")...), 402)
			}
			wantCode(t, l.call(hostA, service, "DeletePortMapping", key("6000", "UDP")...), 0)
			wantCode(t, l.call(hostA, service, "DeletePortMapping", key("6000", "UDP")...), 714)
			if got := l.table(); len(got) != 0 {
				t.Errorf("the table has %q", got)
			}
		})
	}
	t.Run("C3/range takes only own", func(t *testing.T) {
		l := start(t)
		for i := range 3 {
			wantCode(t, l.call(hostA, ip1, "AddPortMapping", mapping(hostA, "NewExternalPort", fmt.Sprint(6000+2*i))...), 0)
			wantCode(t, l.call(hostB, ip1, "AddPortMapping", mapping(hostB, "NewExternalPort", fmt.Sprint(6001+2*i))...), 0)
		}
		wantCode(t, l.call(hostA, ip1, "AddPortMapping", mapping(hostA, "NewProtocol", "TCP")...), 0)
		wantCode(t, l.call(hostA, ip2, "DeletePortMappingRange", spanOnly("0", "6003")...), 0)
		want := []string{
			"tcp 6000 -> 192.168.1.50:6000", "udp 6001 -> 192.168.1.60:6000", "udp 6003 -> 192.168.1.60:6000",
			"udp 6004 -> 192.168.1.50:6000", "udp 6005 -> 192.168.1.60:6000",
		}
		if diff := cmp.Diff(want, l.table()); diff != "" {
			t.Errorf("table (-want +got):\n%s", diff)
		}
	})
}

func TestDescriptions(t *testing.T) {
	t.Parallel()
	l := start(t)
	long := strings.Repeat("ä", 128)
	for id, want := range map[string]string{
		"SOAP-25":            `a<b>&"c'`,
		"C4/NAT-PMP":         "NAT-PMP 7 tcp",
		"C12/line break":     "x\nTCP:22:192.168.1.20:22:0:y",
		"C12/CR":             "x\r\ny\tz",
		"G11/shell":          "`touch c` $(touch c) ;|& %n%s '\"",
		"G11/right to left":  "a\u202eb\u00ff",
		"G13/nested":         "]]>&lt;/p:NewDescription&gt;</p:PortMappingList>",
		"256 bytes":          long,
		"blanks are not cut": "  x ",
	} {
		t.Run(id, func(t *testing.T) {
			wantCode(t, l.call(hostA, ip2, "AddPortMapping", mapping(hostA, "NewPortMappingDescription", want)...), 0)
			for where, got := range map[string]string{
				"specific": l.call(hostA, ip2, "GetSpecificPortMappingEntry", key("6000", "UDP")...).Out["NewPortMappingDescription"],
				"generic":  l.call(hostA, ip2, "GetGenericPortMappingEntry", "NewPortMappingIndex", "0").Out["NewPortMappingDescription"],
				"list":     list(t, l.call(hostA, ip2, "GetListOfPortMappings", span("6000", "6000")...))[0].get("NewDescription"),
			} {
				if got != want {
					t.Errorf("%s: %q, want %q", where, got, want)
				}
			}
		})
	}
}
