package clients

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"portcullis/internal/control"
)

// program is one of Debian that maps the ports on which it listens when it starts.
type program struct {
	name, command string
	prepare       func(t *testing.T, dir string) *exec.Cmd
	via           []string
	maps          []string // as "tcp 51500", in the order of the text
	pinholes      int
	describes     string // what UPnP tells of each, where PCP may have been first
	says          string // when it can be told to end
	again         string // what it said when it had found the gateway, and says when it comes back
	leaves        bool   // what it mapped, when it ends
}

var programs = []program{
	{name: "qbittorrent-nox", command: "qbittorrent-nox", prepare: qbittorrent, via: []string{pcp, upnp},
		maps: []string{"tcp 51500", "udp 51500"}, pinholes: 2, describes: "qBittorrent/"},
	{name: "deluged", command: "deluged", prepare: deluge, via: []string{pcp, upnp},
		maps: []string{"tcp 51600", "udp 51600"}, describes: "Deluge/"},
	{name: "litecoind (miniupnpc)", command: "litecoind", prepare: litecoin, via: []string{upnp}, maps: []string{"tcp 19444"}},
	{name: "monerod (miniupnpc)", command: "monerod", prepare: monero, via: []string{upnp}, maps: []string{"tcp 18080"},
		says: "p2p net loop"},
	{name: "i2pd (miniupnpc)", command: "i2pd", prepare: i2p, via: []string{upnp},
		maps: []string{"tcp 23456", "udp 23456"}, leaves: true},
	{name: "amuled (libupnp)", command: "amuled", prepare: amule, via: []string{upnp},
		maps:  []string{"tcp 4662", "udp 4665", "udp 4672"},
		says:  "OnInit - starting timer",
		again: "Successfully subscribed to service urn:schemas-upnp-org:service:WANPPPConnection:1"},
}

// TestPrograms: each maps its ports, hears who connects to them, and takes them back
// when it ends, although the gateway's daemon was restarted in between: what a
// client remembers of the gateway, the URL above all, must stay true.
func TestPrograms(t *testing.T) {
	for _, p := range programs {
		t.Run(p.name, func(t *testing.T) {
			need(t, p.command)
			r := startTelling(t, p.name, believable)
			c := r.spawn(p.prepare(t, t.TempDir()))
			r.mapsExactly(p.maps...)
			if p.pinholes > 0 {
				r.pinholes(p.pinholes, pcp)
			}
			if p.describes != "" {
				r.described(p.describes)
			}
			c.says(p.says)
			m := r.maps(len(p.maps), time.Second, p.via...)[0]
			r.arrives(m, true)
			found := strings.Count(c.out.String(), p.again)
			r.restart()
			r.mapsExactly(p.maps...)
			r.eventually(30*time.Second, "it finds the gateway again", func() bool {
				return p.again == "" || strings.Count(c.out.String(), p.again) > found
			})
			r.arrives(m, true)
			matrix.saw(r.client, "survives a restart")
			c.end(syscall.SIGTERM)
			if p.leaves {
				r.closeAll()
			}
			r.gone(m)
		})
	}
}

// mapsExactly waits until what the laptop has mapped is that and no more.
func (r *rig) mapsExactly(want ...string) {
	r.t.Helper()
	var got []string
	r.eventually(60*time.Second, "what it maps", func() bool {
		got = got[:0]
		for _, m := range r.list() {
			if m.Family == 4 {
				got = append(got, fmt.Sprint(m.Protocol, " ", m.ExternalPort))
			}
		}
		slices.Sort(got)
		return slices.Equal(got, want)
	})
}

// described waits until each mapping has a description that starts with text.
func (r *rig) described(text string) {
	r.t.Helper()
	r.eventually(30*time.Second, "it asks by UPnP too", func() bool {
		return !slices.ContainsFunc(r.list(), func(m control.Mapping) bool {
			return m.Family == 4 && !strings.HasPrefix(m.Description, text)
		})
	})
}

// home gives a command a directory of its own for all that it keeps.
func home(cmd *exec.Cmd, dir string) *exec.Cmd {
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CACHE_HOME="+dir)
	cmd.Dir = dir
	return cmd
}

// write is a file in a client's directory.
func write(t *testing.T, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// lines joins the lines of a configuration.
func lines(l ...string) string { return strings.Join(l, "\n") + "\n" }

func qbittorrent(t *testing.T, dir string) *exec.Cmd {
	write(t, dir, "qBittorrent/config/qBittorrent.conf", lines(
		"[LegalNotice]", "Accepted=true",
		"[BitTorrent]", `Session\Port=51500`, `Session\DHTEnabled=false`, `Session\LSDEnabled=false`,
		"[Network]", "PortForwardingEnabled=true",
		"[Preferences]", `WebUI\Address=127.0.0.1`, `WebUI\UseUPnP=false`))
	return home(exec.Command("qbittorrent-nox", "--profile="+dir), dir)
}

func deluge(t *testing.T, dir string) *exec.Cmd {
	write(t, dir, "core.conf", `{"file": 1, "format": 1}{"listen_ports": [51600, 51600], "random_port": false,
"upnp": true, "natpmp": true, "dht": false, "lsd": false, "utpex": false, "new_release_check": false, "download_location": "`+dir+`"}`)
	return home(exec.Command("deluged", "--do-not-daemonize", "--config", dir), dir)
}

func litecoin(t *testing.T, dir string) *exec.Cmd {
	return home(exec.Command("litecoind", "-regtest", "-datadir="+dir, "-upnp=1", "-listen=1", "-connect=0", "-dnsseed=0",
		"-listenonion=0", "-disablewallet", "-server=0", "-dbcache=4", "-printtoconsole"), dir)
}

func monero(t *testing.T, dir string) *exec.Cmd {
	return home(exec.Command("monerod", "--regtest", "--data-dir="+dir, "--igd=enabled", "--no-zmq", "--non-interactive",
		"--disable-dns-checkpoints", "--check-updates=disabled", "--p2p-bind-port=18080", "--out-peers=0"), dir)
}

func i2p(t *testing.T, dir string) *exec.Cmd {
	write(t, dir, "i2pd.conf", "")
	return home(exec.Command("i2pd", "--datadir="+dir, "--conf="+filepath.Join(dir, "i2pd.conf"), "--log=stdout", "--loglevel=info",
		"--upnp.enabled=true", "--port=23456", "--reseed.file="+filepath.Join(dir, "none"), "--http.enabled=false", "--httpproxy.enabled=false",
		"--socksproxy.enabled=false", "--sam.enabled=false"), dir)
}

// amule does not start before its remote control has a password. What it says is
// written line by line. It forgets the gateway at ssdp:byebye, and crashes when it
// wants to map or unmap before it has found it again.
func amule(t *testing.T, dir string) *exec.Cmd {
	write(t, dir, "amule.conf", lines("[eMule]", "Port=4662", "UDPPort=4672", "UPnPEnabled=1", "UPnPTCPPort=50000",
		"Autoconnect=0", "ConnectToKad=0", "ConnectToED2K=0", "TempDir="+dir, "IncomingDir="+dir,
		"[ExternalConnect]", "AcceptExternalConnections=1", "ECPassword=5f4dcc3b5aa765d61d8327deb882cf99", "ECAddress=127.0.0.1"))
	return home(exec.Command("stdbuf", "-oL", "amuled", "--config-dir="+dir, "--log-stdout"), dir)
}
