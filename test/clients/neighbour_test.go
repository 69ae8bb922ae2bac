package clients

import (
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"portcullis/internal/lab"
)

const mediaServer = "urn:schemas-upnp-org:device:MediaServer:1"

// TestMinidlna: the gateway has a media server too, and both need port 1900.
// Whichever starts first, both are found, and neither goes with the other.
func TestMinidlna(t *testing.T) {
	need(t, "minidlnad")
	need(t, "gssdp-discover")
	for _, c := range []struct {
		name string
		last bool // it starts when we are there
	}{{"minidlna, started before us", false}, {"minidlna, started after us", true}} {
		t.Run(c.name, func(t *testing.T) {
			r := start(t, c.name)
			if !c.last {
				r.halt()
			}
			media := r.spawnOn(r.Gateway, minidlna(t, t.TempDir()))
			r.found(mediaServer, 8200)
			if !c.last {
				r.resume()
			}
			r.bothFound()
			r.mapped()
			r.halt()
			r.found(mediaServer, 8200)
			r.resume()
			r.bothFound()
			media.end(syscall.SIGTERM)
			r.found(lab.IGD1, 5000)
		})
	}
}

// found waits until a search is answered by who serves its description at a port.
func (r *rig) found(target string, port uint16) {
	r.t.Helper()
	location, err := lab.NewControlPoint(r.host).Search(contextFor(r.t, 20*time.Second), target, netip.AddrPort{})
	if want := "http://" + netip.AddrPortFrom(lab.GatewayLAN, port).String() + "/"; err != nil || !strings.HasPrefix(location, want) {
		r.t.Errorf("%s: %q, want %s; %v", target, location, want, err)
	}
}

// bothFound searches for each, and for everything.
func (r *rig) bothFound() {
	r.t.Helper()
	r.found(mediaServer, 8200)
	r.found(lab.IGD1, 5000)
	all := r.output("gssdp-discover", "-i", "eth0", "-t", "ssdp:all", "-r", "3", "-n", "3")
	if !strings.Contains(all, mediaServer) || !strings.Contains(all, lab.IGD1) {
		r.t.Errorf("ssdp:all is answered with\n%s", all)
	}
	matrix.saw(r.client, "both are found")
}

// mapped shows that the gateway that was found maps.
func (r *rig) mapped() {
	r.t.Helper()
	point := lab.NewControlPoint(r.host)
	ctx := contextFor(r.t, 20*time.Second)
	if err := point.Find(ctx, lab.IGD1, lab.WANIP1); err != nil {
		r.t.Fatal(err)
	}
	m := lab.Mapping{External: 6280, Internal: 6281, Protocol: "UDP", Lease: 10 * time.Minute}
	if err := point.Add(ctx, m); err != nil {
		r.t.Fatal(err)
	}
	r.arrives(r.maps(1, time.Second, upnp)[0], false)
}

func minidlna(t *testing.T, dir string) *exec.Cmd {
	config := filepath.Join(dir, "minidlna.conf")
	write(t, dir, "minidlna.conf", lines("port=8200", "network_interface="+lab.Bridge, "media_dir="+dir, "db_dir="+dir,
		"log_dir="+dir, "inotify=no"))
	return home(exec.Command("minidlnad", "-S", "-f", config, "-P", filepath.Join(dir, "pid")), dir)
}
