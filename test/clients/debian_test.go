package clients

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"portcullis/internal/lab"
)

// TestUpnpc: miniupnpc, which most programs carry.
func TestUpnpc(t *testing.T) {
	need(t, "upnpc")
	r := startTelling(t, "upnpc (miniupnpc)", believable)
	status := r.output("upnpc", "-s")
	for _, want := range []string{"Found valid IGD", "Status : Connected", "ExternalIPAddress = " + believable} {
		if !strings.Contains(status, want) {
			t.Errorf("-s lacks %q:\n%s", want, status)
		}
	}
	matrix.saw(r.client, "finds")
	ip := r.host.Addr.String()
	added := r.output("upnpc", "-e", "a game", "-a", ip, "6000", "6001", "UDP", "3600")
	if !strings.Contains(added, "is redirected to internal "+ip+":6000") {
		t.Errorf("-a:\n%s", added)
	}
	m := r.maps(1, time.Second, upnp)[0]
	r.arrives(m, false)
	// It searches for version 1 only; what version 2 has it can do when it is
	// given the URL.
	two, err := lab.NewControlPoint(r.host).Search(contextFor(t, 5*time.Second), lab.IGD2, netip.AddrPort{})
	if err != nil {
		t.Fatal(err)
	}
	r.output("upnpc", "-u", two, "-e", "another", "-n", ip, "7000", "7000", "TCP", "3600")
	list := r.maps(2, time.Second, upnp)
	r.arrives(list[1], false)
	byIndex, byRange := r.output("upnpc", "-l"), r.output("upnpc", "-u", two, "-L")
	for _, line := range []string{"UDP  6001->" + ip + ":6000", "TCP  7000->" + ip + ":7000"} {
		if !strings.Contains(byIndex, line) || !strings.Contains(byRange, line) {
			t.Errorf("-l and -L do not agree on %q:\n%s\n%s", line, byIndex, byRange)
		}
	}
	matrix.saw(r.client, "lists")
	r.output("upnpc", "-d", "6001", "UDP")
	r.output("upnpc", "-u", two, "-N", "7000", "7000", "TCP")
	r.gone(m)
}

// TestNatpmpc: libnatpmp, which programs carry beside miniupnpc. It finds the
// gateway in the routing table.
func TestNatpmpc(t *testing.T) {
	need(t, "natpmpc")
	r := start(t, "natpmpc (libnatpmp)")
	if out := r.output("natpmpc"); !strings.Contains(out, "Public IP address : "+lab.GatewayWAN.String()) {
		t.Errorf("no address:\n%s", out)
	}
	matrix.saw(r.client, "learns the address")
	for _, protocol := range []string{"UDP", "TCP"} {
		want := regexp.MustCompile("Mapped public port 6801 protocol " + protocol + " to local port 6800 liftime (3600|359[0-9])\n")
		if out := r.output("natpmpc", "-a", "6801", "6800", protocol, "3600"); !want.MatchString(out) {
			t.Errorf("lacks %v:\n%s", want, out)
		}
	}
	list := r.maps(2, time.Second, natpmp)
	for _, m := range list {
		r.arrives(m, false)
	}
	r.output("natpmpc", "-a", "0", "6800", "UDP", "0")
	if left := r.list(); len(left) != 1 || left[0].Protocol != "tcp" {
		t.Errorf("left: %+v", left)
	}
	r.output("natpmpc", "-a", "0", "0", "TCP", "0") // all of a protocol
	r.gone(list[0])
}

// TestLibtorrent asks by PCP, and by NAT-PMP where it is told that PCP is not
// known. It takes replies of exactly 60 and 16 octets. Of PCP it says nowhere which
// address it was told.
func TestLibtorrent(t *testing.T) {
	needPython(t, "import libtorrent", "python3-libtorrent")
	for _, c := range []struct{ name, via, settings, says string }{
		{"libtorrent", pcp, "", "successfully mapped port"},
		{"libtorrent, strict nonces", pcp, strict, "successfully mapped port"},
		{"libtorrent, PCP off", natpmp, pcpOff, "public IP address [ " + lab.GatewayWAN.String() + " ]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := startSpeaking(t, c.name, "", c.settings)
			child := r.spawn(exec.Command("/usr/bin/python3", "testdata/torrent.py", r.host.Addr.String()))
			list := r.maps(2, 30*time.Second, c.via)
			child.says(c.says)
			for _, m := range list {
				if m.Protocol == "tcp" {
					r.arrives(m, true)
				}
			}
			child.finish()
			r.gone(list[0])
		})
	}
}

// TestGupnpTools: discovery as GNOME's library does it, for each version.
func TestGupnpTools(t *testing.T) {
	need(t, "gssdp-discover")
	r := start(t, "gssdp-discover (gupnp)")
	for _, target := range []string{lab.IGD1, lab.IGD2, "upnp:rootdevice", lab.WANIP1, lab.WANIP2} {
		out := r.output("gssdp-discover", "-i", "eth0", "-t", target, "-r", "2", "-n", "1")
		if !strings.Contains(out, target) || !strings.Contains(out, "http://"+lab.GatewayLAN.String()) {
			t.Errorf("%s:\n%s", target, out)
		}
	}
	matrix.saw(r.client, "finds versions 1 and 2")
}

// TestGupnpIGD: libgupnp-igd maps, refreshes and unmaps.
func TestGupnpIGD(t *testing.T) {
	needPython(t, "import gi; gi.require_version('GUPnPIgd', '1.0')", "python3-gi and gir1.2-gupnpigd-1.0")
	r := start(t, "libgupnp-igd")
	c := r.spawn(exec.Command("/usr/bin/python3", "testdata/gupnp_igd.py", r.host.Addr.String()))
	m := r.maps(1, 30*time.Second, upnp)[0]
	r.arrives(m, false)
	c.finish()
	r.gone(m)
}

// TestAsyncUPnPClient: what Home Assistant has. Its polls must lose no value: they
// are seven requests at once, each by a connection of its own.
func TestAsyncUPnPClient(t *testing.T) {
	needPython(t, "import sys; sys.path[:0] = ['"+unpacked+"']; import async_upnp_client.aiohttp", "python3-async-upnp-client")
	r := start(t, "async_upnp_client")
	cmd := exec.Command("/usr/bin/python3", "testdata/async_upnp.py", r.host.Addr.String())
	cmd.Env = append(os.Environ(), "PYTHONPATH="+unpacked)
	c := r.spawn(cmd)
	m := r.maps(1, 30*time.Second, upnp)[0]
	c.learns(lab.GatewayWAN)
	c.says("mapped")
	r.arrives(m, false)
	r.restart()
	c.finish()
	r.gone(m)
}

// unpacked is where test/install leaves a package that this Debian does not have
// and a later one has.
const unpacked = "debian/usr/lib/python3/dist-packages"

// TestTransmission maps its peer port by itself: for TCP and UDP by UPnP, for TCP
// alone by NAT-PMP. It tries both and stops at the first that works. 3.00 waits for
// UPnP before it reads the answer to its first NAT-PMP request, so that UPnP wins;
// another version may do it otherwise.
func TestTransmission(t *testing.T) {
	need(t, "transmission-daemon")
	for _, c := range []struct {
		name, settings string
		maps           int
		via            []string
	}{
		{"transmission-daemon", "", 2, []string{upnp, natpmp}},
		{"transmission-daemon, UPnP off", upnpOff, 1, []string{natpmp}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := startSpeaking(t, c.name, believable, c.settings)
			child := r.spawn(transmission(t))
			list := r.maps(c.maps, 60*time.Second, c.via...)
			for _, m := range list {
				if m.ExternalPort != 51413 || m.Via == upnp && !strings.HasPrefix(m.Description, "Transmission at") {
					t.Errorf("listed %+v", m)
				}
				if m.Protocol == "tcp" {
					r.arrives(m, true)
				}
			}
			child.says(`to "Forwarded"`)
			if list[0].Via == natpmp {
				// It sends no request within 8 s of the last one, and when it ends it
				// does not wait.
				<-time.After(9 * time.Second)
			}
			r.restart()
			child.interrupt()
			r.gone(list[0])
		})
	}
}

func transmission(t *testing.T) *exec.Cmd {
	t.Helper()
	dir := t.TempDir()
	settings := `{"peer-port": 51413, "port-forwarding-enabled": true, "dht-enabled": false, "lpd-enabled": false,
"pex-enabled": false, "utp-enabled": false, "rpc-enabled": true, "rpc-bind-address": "127.0.0.1", "download-dir": "` + dir + `"}`
	if err := os.WriteFile(filepath.Join(dir, "settings.json"), []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("transmission-daemon", "--foreground", "--config-dir", dir, "--log-debug")
	cmd.Env = append(os.Environ(), "HOME="+dir)
	return cmd
}

// TestSyncthing: the daemon of Debian maps its listening port to a random one, in
// each protocol that it finds.
func TestSyncthing(t *testing.T) {
	need(t, "syncthing")
	for _, c := range []struct{ name, via, settings string }{
		{"syncthing (daemon), UPnP", upnp, upnpOnly},
		{"syncthing (daemon), NAT-PMP", natpmp, upnpOff},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := startSpeaking(t, c.name, "", c.settings)
			child := r.spawn(syncthingDaemon(t))
			m := r.maps(1, 90*time.Second, c.via)[0]
			if m.InternalPort != 22000 {
				t.Errorf("listed %+v", m)
			}
			r.arrives(m, true)
			// Syncthing leaves its mappings to run out; the owner closes it.
			child.interrupt()
			r.closeAll()
			r.gone(m)
		})
	}
}

func syncthingDaemon(t *testing.T) *exec.Cmd {
	t.Helper()
	dir := t.TempDir()
	env := append(os.Environ(), "HOME="+dir, "STNOUPGRADE=1", "STNODEFAULTFOLDER=1")
	generate := exec.Command("syncthing", "generate", "--home", dir, "--no-default-folder", "--skip-port-probing")
	generate.Env = env
	if out, err := generate.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	path := filepath.Join(dir, "config.xml")
	config, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := string(config)
	for option, value := range map[string]string{"globalAnnounceEnabled": "false", "relaysEnabled": "false", "crashReportingEnabled": "false",
		"listenAddress": "tcp://0.0.0.0:22000", "urAccepted": "-1", "natLeaseMinutes": "60", "stunKeepaliveStartS": "0"} {
		element := regexp.MustCompile(fmt.Sprintf("<%s>[^<]*</%s>", option, option))
		text = element.ReplaceAllString(text, fmt.Sprintf("<%s>%s</%s>", option, value, option))
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("syncthing", "serve", "--home", dir, "--no-browser", "--no-restart", "--no-upgrade", "--gui-address=127.0.0.1:8384")
	cmd.Env = env
	return cmd
}
