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

	"portcullis/lab"
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
	m := r.maps(1, time.Second)[0]
	r.arrives(m, false)
	// It searches for version 1 only; what version 2 has it can do when it is
	// given the URL.
	two, err := lab.NewControlPoint(r.host).Search(contextFor(t, 5*time.Second), lab.IGD2, netip.AddrPort{})
	if err != nil {
		t.Fatal(err)
	}
	r.output("upnpc", "-u", two, "-e", "another", "-n", ip, "7000", "7000", "TCP", "3600")
	list := r.maps(2, time.Second)
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
	need(t, "python3")
	if out, err := exec.Command("/usr/bin/python3", "-c", "import gi; gi.require_version('GUPnPIgd', '1.0')").CombinedOutput(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("python3-gi and gir1.2-gupnpigd-1.0 are not installed; test/install does that\n%s", out)
		}
		t.Skip("python3-gi and gir1.2-gupnpigd-1.0 are not installed; test/install does that")
	}
	r := start(t, "libgupnp-igd")
	c := r.spawn(exec.Command("/usr/bin/python3", "testdata/gupnp_igd.py", r.host.Addr.String()))
	m := r.maps(1, 30*time.Second)[0]
	r.arrives(m, false)
	c.finish()
	r.gone(m)
}

// TestTransmission maps its peer port for TCP and UDP by itself.
func TestTransmission(t *testing.T) {
	need(t, "transmission-daemon")
	r := startTelling(t, "transmission-daemon", believable)
	dir := t.TempDir()
	settings := `{"peer-port": 51413, "port-forwarding-enabled": true, "dht-enabled": false, "lpd-enabled": false,
"pex-enabled": false, "utp-enabled": false, "rpc-enabled": true, "rpc-bind-address": "127.0.0.1", "download-dir": "` + dir + `"}`
	if err := os.WriteFile(filepath.Join(dir, "settings.json"), []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("transmission-daemon", "--foreground", "--config-dir", dir, "--log-debug")
	cmd.Env = append(os.Environ(), "HOME="+dir)
	c := r.spawn(cmd)
	list := r.maps(2, 60*time.Second)
	for _, m := range list {
		if m.ExternalPort != 51413 || !strings.HasPrefix(m.Description, "Transmission at") {
			t.Errorf("listed %+v", m)
		}
		if m.Protocol == "tcp" {
			r.arrives(m, true)
		}
	}
	c.interrupt()
	r.gone(list[0])
}

// TestSyncthing: the daemon of Debian maps its listening port to a random one.
func TestSyncthing(t *testing.T) {
	need(t, "syncthing")
	r := startSpeaking(t, "syncthing (daemon)", "", upnpOnly)
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
	c := r.spawn(cmd)
	m := r.maps(1, 90*time.Second)[0]
	if m.InternalPort != 22000 {
		t.Errorf("listed %+v", m)
	}
	r.arrives(m, true)
	// Syncthing leaves its mappings to run out; the owner closes it.
	c.interrupt()
	r.closeAll()
	r.gone(m)
}
