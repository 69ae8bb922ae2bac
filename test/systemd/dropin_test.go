package systemd

import (
	"encoding/json"
	"io"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// dropIn is a section of docs/systemd.md: what is added to the unit, and to the
// configuration.
type dropIn struct {
	title, unit, config string
}

// dropIns returns those of the document.
func dropIns(t *testing.T) (all []dropIn) {
	t.Helper()
	text, err := os.ReadFile("../../docs/systemd.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```(ini|toml)\n(.*?)```")
	for _, section := range strings.Split(string(text), "\n### ")[1:] {
		d := dropIn{}
		d.title, _, _ = strings.Cut(section, "\n")
		for _, m := range block.FindAllStringSubmatch(section, -1) {
			if m[1] == "ini" {
				d.unit = m[2]
			} else {
				d.config = m[2]
			}
		}
		all = append(all, d)
	}
	return all
}

// needs is, for the title of each section, what the machine has before, and what shows that
// the daemon needs the drop-in there and works with it.
var needs = map[string]struct {
	prepare string // run by a shell on the machine
	lacks   string // what the log says without the drop-in
	holds   string // what the sandbox then leaves to the daemon
	works   func(*testing.T, *machine)
	restore string // run at the end
}{
	"Rules in iptables-legacy": {
		prepare: `for p in iptables ip6tables; do
	for x in "" -save -restore; do ln -sf /usr/sbin/$p-legacy$x /etc/alternatives/$p$x; done
	$p --policy FORWARD DROP
done
iptables --append FORWARD --in-interface br-lan --jump ACCEPT`,
		lacks: "the programs of iptables-legacy work for root only",
		holds: "CAP_NET_ADMIN,CAP_NET_RAW",
		works: func(t *testing.T, m *machine) {
			m.write(override, "")
			m.write(configuration, base)
			m.begin("only root can see whether iptables-legacy has rules")
			// It has settings of the network in its copy, which systemd-nspawn lets nobody write.
			if out, err := m.try("unshare", "--mount", "sh", "-c", "mount -o remount,bind,rw /proc/sys && portcullis doctor"); err == nil || !strings.Contains(out, "iptables-legacy has rules too") {
				t.Errorf("doctor: %v\n%s", err, out)
			}
		},
		restore: "iptables --flush; for p in iptables ip6tables; do $p --policy FORWARD ACCEPT; done",
	},
	"Lease files that only the DHCP server reads": {
		prepare: `groupadd --force _kea && mkdir --mode=750 --parents /var/lib/kea && cd /var/lib/kea &&
echo address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context >kea-leases4.csv &&
echo 192.168.77.10,02:00:00:4d:00:0a,,86400,4102444800,1,0,0,console,0, >>kea-leases4.csv &&
chmod 640 kea-leases4.csv && chgrp _kea . kea-leases4.csv`,
		lacks: "permission denied",
		holds: "CAP_NET_ADMIN",
		works: func(t *testing.T, m *machine) {
			testrig.Eventually(t, soon, "the host has its name", func() bool { return m.list()[0].ClientHost == "console" })
		},
		restore: "rm -r /var/lib/kea",
	},
	"Another group for the commands": {
		prepare: "groupadd --force netadmin",
		lacks:   "can give it to the group netadmin",
		holds:   "CAP_NET_ADMIN",
		works: func(t *testing.T, m *machine) {
			m.run("setpriv", "--reuid=nobody", "--regid=nogroup", "--groups=netadmin", "portcullis", "list")
		},
	},
	"Another state directory": {
		prepare: "install --directory --mode=700 --owner=portcullis /srv/portcullis",
		lacks:   "read-only file system",
		holds:   "CAP_NET_ADMIN",
		works: func(t *testing.T, m *machine) {
			m.run("test", "-s", "/srv/portcullis/leases.journal")
		},
	},
	"A lease file elsewhere": {
		prepare: "install --directory --owner=portcullis /srv/leases",
		lacks:   "cannot write the lease file",
		holds:   "CAP_NET_ADMIN",
		works: func(t *testing.T, m *machine) {
			const file, forbids = "/srv/leases/upnp.leases", "miniupnpd.lease_file: portcullis.service lets the daemon write files for others in /run/portcullis alone"
			testrig.Eventually(t, soon, "the lease file has the mapping", func() bool {
				out, err := m.try("cat", file)
				return err == nil && strings.Contains(out, "TCP:6001:")
			})
			if out, err := m.try("portcullis", "check"); err != nil || strings.Contains(out, forbids) {
				t.Errorf("check says of it: %v\n%s", err, out)
			}
			m.write(override, "")
			if out, err := m.try("portcullis", "check"); err != nil || !strings.Contains(out, forbids) {
				t.Errorf("check does not say what is missing: %v\n%s", err, out)
			}
		},
		restore: "rm -r /srv/leases",
	},
	"UPnP on a port below 1024": {
		lacks: "permission denied",
		holds: "CAP_NET_BIND_SERVICE,CAP_NET_ADMIN",
	},
	"NAT-PMP and PCP before Linux 5.19": { // this kernel does not need it
		holds: "CAP_NET_ADMIN",
	},
	"A hook that sends to the Internet": {
		prepare: `rm -f /var/lib/portcullis/*
cat >/usr/local/bin/tell-me <<'END'
#!/bin/sh
url=http://` + lab.InternetOne.String() + `/
grep ^Uid: /proc/self/status
send() { curl -sf --max-time 2 -d '{"event":"begins"}' $url >/dev/null; }
# The firewall holds who shares the daemon's user, from soon after the start on.
grep -q '^Uid:.64996' /proc/self/status || while send; do sleep 0.1; done
send || echo "cannot send"
while read -r event; do
	curl -sf -d "$event" $url >/dev/null && echo "sent $event"
done
END
chmod 755 /usr/local/bin/tell-me`, // a mapping that were there would be renewed, not granted
		lacks: `line="cannot send"`,
		holds: "CAP_NET_ADMIN",
		works: func(t *testing.T, m *machine) {
			testrig.Eventually(t, soon, "the hook has sent what it was told, as another user", func() bool {
				log := m.run("journalctl", "--no-pager", "--output=cat", "_SYSTEMD_INVOCATION_ID="+m.show("InvocationID"))
				return strings.Contains(log, `line="Uid:\t64996\t64996\t64996\t64996"`) && strings.Contains(log, `line="sent {`) &&
					strings.Contains(log, `\"event\":\"granted\"`) && !strings.Contains(log, "cannot send")
			})
			m.sandboxed()
		},
		restore: "rm /usr/local/bin/tell-me",
	},
	"Leases that end while the gateway is off": {
		prepare: "rm -f /var/lib/portcullis/*; mkdir -p /run/systemd/timesync; touch /run/systemd/timesync/synchronized",
		holds:   "CAP_NET_ADMIN",
		works: func(t *testing.T, m *machine) {
			var clock unix.Timex
			status, err := unix.Adjtimex(&clock)
			if err != nil {
				t.Fatal(err)
			}
			if synced := status != unix.TIME_ERROR && clock.Status&unix.STA_UNSYNC == 0; m.synced() != synced {
				t.Errorf("the kernel's word is %v, and the daemon wrote the opposite", synced)
			}
		},
	},
}

// configuration and override are the owner's two files.
const (
	configuration = "/etc/portcullis/portcullis.toml"
	override      = "/etc/systemd/system/portcullis.service.d/override.conf"
)

// base is a configuration for a gateway without a firewall of its own.
const base = "[log]\nlevel = \"info\"\n"

// TestDropIns: each of the document's is needed, and is enough.
func TestDropIns(t *testing.T) {
	t.Parallel()
	n, err := lab.New("a")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	m := boot(t, n)
	receives(t, n.Internet, make(chan string, 64))
	m.run("make", "-C", source, "install")
	all := dropIns(t)
	if len(all) != len(needs) {
		t.Errorf("there are %d drop-ins, and %d are tested", len(all), len(needs))
	}
	for _, d := range all {
		need, known := needs[d.title]
		if !known {
			t.Errorf("the drop-in %q is not tested", d.title)
			continue
		}
		t.Run(d.title, func(t *testing.T) {
			m := &machine{t: t, init: m.init}
			m.run("sh", "-ec", need.prepare)
			t.Cleanup(func() {
				m.run("systemctl", "stop", "portcullis")
				m.run("sh", "-ec", need.restore)
			})
			m.write(configuration, base+d.config)
			m.write(override, "")
			if need.lacks != "" {
				m.begin(need.lacks)
			}
			m.write(override, d.unit)
			m.begin("capabilities=" + need.holds + "\n")
			m.maps(n)
			if need.works != nil {
				need.works(t, m)
			}
		})
	}
	t.Run("a hook that sends to a LAN needs none", func(t *testing.T) { (&machine{t: t, init: m.init}).tells(n) })
	t.Run("iptables-nft needs none", func(t *testing.T) { (&machine{t: t, init: m.init}).besideIPTables(n) })
}

// receives serves HTTP at a host, which takes a JSON object.
func receives(t *testing.T, h *lab.Host, got chan<- string) {
	t.Helper()
	l, err := h.Listen("0.0.0.0:80")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: soon, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var event struct{ Event string }
		body, err := io.ReadAll(r.Body)
		if err != nil || json.Unmarshal(body, &event) != nil || event.Event == "" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		select {
		case got <- r.URL.Path + " " + string(body):
		default: // nobody counts them
		}
	})}
	t.Cleanup(func() { _ = server.Close() })
	go func() { _ = server.Serve(l) }()
}

// tells: a hook needs no drop-in, be it a script that sends what it gets, as docs/asking.md has
// it, or one of an interpreter. It is told, is the unit's user, and can do nothing.
func (m *machine) tells(n *lab.Network) {
	got := make(chan string, 64)
	receives(m.t, n.Host("a"), got)
	m.write(override, "")
	for name, script := range map[string]string{
		"shell": `#!/bin/sh
grep -E '^(Uid|CapPrm|CapEff|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status
while read -r event; do
	curl -s -d "$event" http://` + n.Host("a").Addr.String() + `/shell >/dev/null
done
`,
		"python": `#!/usr/bin/python3
import sys, urllib.request
for key in open("/proc/self/status"):
    if key.split(":")[0] in ("Uid", "CapPrm", "CapEff", "CapAmb", "NoNewPrivs", "Seccomp"): print(key, end="", flush=True)
for event in sys.stdin:
    urllib.request.urlopen("http://` + n.Host("a").Addr.String() + `/python", data=event.encode()).read()
`,
	} {
		m.run("systemctl", "stop", "portcullis")
		m.write("/usr/local/bin/tell-me", script)
		m.run("chmod", "755", "/usr/local/bin/tell-me")
		m.write(configuration, base+"[policy]\ndefault = \"ask\"\n[hook]\ncommand = [\"/usr/local/bin/tell-me\"]\n")
		m.begin(`line="Seccomp:\t2"`)
		user := strings.TrimSpace(m.run("id", "--user", "portcullis"))
		log := m.run("journalctl", "--no-pager", "--output=cat", "_SYSTEMD_INVOCATION_ID="+m.show("InvocationID"))
		for _, want := range []string{
			`line="Uid:` + strings.Repeat(`\t`+user, 4) + `"`, `line="NoNewPrivs:\t1"`,
			`line="CapPrm:\t0000000000000000"`, `line="CapEff:\t0000000000000000"`, `line="CapAmb:\t0000000000000000"`,
		} {
			if !strings.Contains(log, want) {
				m.t.Errorf("%s: the log lacks %s:\n%s", name, want, log)
			}
		}
		testrig.On(m.t, n.Host("a"), "sh", "-c", "natpmpc -a 3074 3074 udp 3600 || true")
		select {
		case text := <-got:
			if !strings.HasPrefix(text, "/"+name+" {") || !strings.Contains(text, `"event":"pending"`) || !strings.Contains(text, `"internal_port":3074`) {
				m.t.Errorf("it sends %s", text)
			}
		case <-time.After(soon):
			m.t.Errorf("%s: it sends nothing: %+v", name, m.status().Hook)
		}
		m.sandboxed()
		if h := m.status().Hook; h == nil || h.PID == 0 || h.Ended != 0 {
			m.t.Errorf("%s: the status is %+v", name, h)
		}
	}
	m.run("systemctl", "stop", "portcullis")
	if left := m.processes(); len(left) > 0 {
		m.t.Errorf("after the stop there is %q", left)
	}
}

// besideIPTables: rules of iptables-nft need no drop-in, whichever setting names them; they
// are the owner's again after the stop.
func (m *machine) besideIPTables(n *lab.Network) {
	m.run("sh", "-ec", `for p in iptables ip6tables; do
	for x in "" -save -restore; do ln -sf /usr/sbin/$p-nft$x /etc/alternatives/$p$x; done
	$p --policy FORWARD DROP
done
iptables --append FORWARD --in-interface br-lan --jump ACCEPT`)
	m.write(override, "")
	before := m.run("iptables", "--list-rules")
	for _, setting := range []string{
		"backend = \"iptables\"\n",
		"accept_chain = \"ip filter FORWARD\"\naccept_chain6 = \"ip6 filter FORWARD\"\n",
	} {
		m.write(configuration, "[firewall]\n"+setting)
		m.begin("msg=ready")
		m.maps(n)
		m.quiet()
		m.confined()
		m.run("systemctl", "stop", "portcullis")
		if after := m.run("iptables", "--list-rules"); after != before {
			m.t.Errorf("%s: before\n%safter\n%s", setting, before, after)
		}
	}
}

// begin starts the service with what the files say now, and waits for its log to say
// something.
func (m *machine) begin(text string) {
	m.t.Helper()
	_, cursor, _ := strings.Cut(m.run("journalctl", "--quiet", "--lines=1", "--show-cursor"), "-- cursor: ")
	m.run("systemctl", "daemon-reload")
	out, _ := m.try("systemctl", "restart", "portcullis") // which may be meant to fail
	var log string
	defer func() {
		if m.t.Failed() {
			m.t.Logf("%s\n%s", out, log)
		}
	}()
	testrig.Eventually(m.t, soon, "the log says "+text, func() bool {
		log = m.run("journalctl", "--quiet", "--unit=portcullis", "--output=cat", "--after-cursor="+strings.TrimSpace(cursor))
		return strings.Contains(log, text)
	})
}

// maps has a host ask for a port by NAT-PMP, and wants a connection to arrive.
func (m *machine) maps(n *lab.Network) {
	m.t.Helper()
	a := n.Host("a")
	testrig.On(m.t, a, "natpmpc", "-a", "6001", "6001", "tcp", "3600")
	if list := m.list(); len(list) != 1 {
		m.t.Fatalf("the list is %+v", list)
	}
	arrived, _, err := lab.Probe(m.t.Context(), "TCP", n.Internet, netip.AddrPortFrom(lab.GatewayWAN, 6001), a, 6001, soon)
	if err != nil || !arrived {
		m.t.Errorf("the mapping leads nowhere: %v", err)
	}
}

// synced returns what the journal says of the clock.
func (m *machine) synced() bool {
	m.t.Helper()
	journal := m.run("cat", "/var/lib/portcullis/leases.journal")
	clock := regexp.MustCompile(` clock .*sync=(yes|no)`).FindStringSubmatch(journal)
	if clock == nil {
		m.t.Fatalf("the journal says nothing of the clock:\n%s", journal)
	}
	return clock[1] == "yes"
}
