package policy

import (
	"sort"

	"portcullis/portmap"
)

// Side is which of a mapping's two ports is meant.
type Side uint8

// The sides: the port on the LAN host, and the one the Internet sees.
const (
	Internal Side = iota
	External
)

// String returns the word the sentences and the configuration use.
func (s Side) String() string {
	if s == External {
		return "external"
	}
	return "internal"
}

// Tier is how much it takes to open a port.
type Tier uint8

// The tiers of docs/abuse-cases.md.
const (
	Forbidden  Tier = iota // Tier 0: never, whatever a rule says
	Privileged             // Tier 1: only by a rule that names the port
	Ordinary               // everything else
)

// systemPorts is where the ports below which Tier 1 holds for both sides end.
const systemPorts = 1024

// systemPort is what a port below systemPorts is for that has no other name.
const systemPort = "a system port (below 1024)"

// What transports an entry of the tables speaks of.
const (
	onTCP  = 1 << iota
	onUDP  // a bit of its own
	onBoth = onTCP | onUDP
)

// service is one entry: ports lo to hi, and what they are for, in words that
// complete "port 445 is ...".
type service struct {
	lo, hi uint16
	on     uint8
	why    string
}

// forbidden is Tier 0, sorted by port. It holds for the internal and for the external
// port. An entry covers the transports that the service is known on; Windows registers
// its services for both, and LLMNR (RFC 4795 section 2.5) and WS-Discovery answer over
// TCP too.
var forbidden = []service{
	{7, 7, onUDP, "the echo service, a reflector"},
	{17, 17, onUDP, "the quote service, a reflector"},
	{19, 19, onUDP, "the chargen service, a reflector"},
	{23, 23, onTCP, "Telnet"},
	{67, 68, onUDP, "DHCP"},
	{69, 69, onUDP, "TFTP"},
	{111, 111, onBoth, "the Unix RPC directory (rpcbind)"},
	{135, 135, onBoth, "Windows RPC"},
	{137, 139, onBoth, "Windows file sharing (NetBIOS)"},
	{161, 162, onBoth, "device management (SNMP)"},
	{389, 389, onBoth, "a directory service (LDAP)"},
	{445, 445, onBoth, "Windows file sharing (SMB)"},
	{512, 512, onTCP, "remote execution (rexec)"},
	{513, 513, onTCP, "remote login (rlogin)"},
	{514, 514, onTCP, "the remote shell (rsh)"},
	{514, 514, onUDP, "the system log (syslog)"},
	{546, 547, onUDP, "DHCP for IPv6"},
	{593, 593, onTCP, "Windows RPC over HTTP"},
	{1900, 1900, onBoth, "UPnP discovery (SSDP)"},
	{2323, 2323, onTCP, "Telnet's second port"},
	{2375, 2376, onTCP, "Docker's control port"},
	{2379, 2380, onTCP, "cluster storage (etcd)"},
	{3702, 3702, onBoth, "device discovery (WS-Discovery)"},
	{5350, 5351, onUDP, "port mapping (NAT-PMP and PCP)"},
	{5353, 5353, onUDP, "device discovery (mDNS)"},
	{5355, 5355, onBoth, "name lookup on the LAN (LLMNR)"},
	{5431, 5431, onTCP, "UPnP control of Broadcom devices"},
	{5555, 5555, onTCP, "Android debugging (ADB)"},
	{7547, 7547, onTCP, "a provider's remote management (TR-069)"},
	{8324, 8324, onTCP, "Plex remote control"},
	{10250, 10250, onTCP, "Kubernetes node control (kubelet)"},
	{11211, 11211, onUDP, "memcached, a reflector"},
	{32410, 32410, onUDP, "Plex discovery"},
	{32412, 32414, onUDP, "Plex discovery"},
	{32469, 32469, onTCP, "the DLNA server of Plex"},
	{37215, 37215, onTCP, "UPnP control of Huawei devices"},
	{52869, 52869, onTCP, "UPnP control of Realtek devices"},
}

// privileged is the named part of Tier 1, sorted by port. Below systemPorts it only
// gives names: every port there is Tier 1, on both sides. Above, an entry holds for the
// internal port alone: what is exposed is the service, whatever number the outside
// sees. There an entry covers the transports that the service is spoken on, which are not
// all that IANA has registered: games (27015-27050), RTP (5000) and telephony use the
// others' numbers over UDP. UDP stays with RDP, VNC (Apple's screen sharing), HTTPS
// (HTTP/3), Webmin's discovery, DNP3 (IEEE 1815) and whatever is not known for certain.
var privileged = []service{
	{20, 21, onBoth, "file transfer (FTP)"},
	{22, 22, onBoth, "remote login (SSH)"},
	{25, 25, onBoth, "a mail server (SMTP)"},
	{53, 53, onBoth, "a name server (DNS)"},
	{80, 80, onBoth, "a web server (HTTP)"},
	{88, 88, onBoth, "network login (Kerberos)"},
	{102, 102, onBoth, "industrial control (S7)"},
	{110, 110, onBoth, "a mailbox (POP3)"},
	{143, 143, onBoth, "a mailbox (IMAP)"},
	{443, 443, onBoth, "a web server (HTTPS)"},
	{465, 465, onBoth, "a mail server (SMTP)"},
	{500, 500, onBoth, "a VPN (IPsec)"},
	{502, 502, onBoth, "industrial control (Modbus)"},
	{515, 515, onBoth, "a printer (LPD)"},
	{554, 554, onBoth, "a camera's stream (RTSP)"},
	{587, 587, onBoth, "a mail server (SMTP)"},
	{631, 631, onBoth, "a printer (IPP)"},
	{636, 636, onBoth, "a directory service (LDAP)"},
	{853, 853, onBoth, "a name server (DNS over TLS)"},
	{873, 873, onBoth, "file transfer (rsync)"},
	{993, 993, onBoth, "a mailbox (IMAP)"},
	{995, 995, onBoth, "a mailbox (POP3)"},
	{1194, 1194, onBoth, "a VPN (OpenVPN)"},
	{1433, 1433, onTCP, "a database (SQL Server)"},
	{1434, 1434, onBoth, "a database (SQL Server)"},
	{1521, 1521, onTCP, "a database (Oracle)"},
	{1701, 1701, onUDP, "a VPN (L2TP)"},
	{1720, 1720, onTCP, "telephony (H.323)"},
	{1723, 1723, onTCP, "a VPN (PPTP)"},
	{1883, 1883, onBoth, "a message broker (MQTT)"},
	{2049, 2049, onBoth, "network storage (NFS)"},
	{2181, 2181, onTCP, "cluster control (ZooKeeper)"},
	{3260, 3260, onTCP, "network storage (iSCSI)"},
	{3306, 3306, onTCP, "a database (MySQL)"},
	{3389, 3389, onBoth, "remote desktop (RDP)"},
	{4500, 4500, onBoth, "a VPN (IPsec)"},
	{4786, 4786, onTCP, "switch control (Smart Install)"},
	{4899, 4899, onTCP, "remote desktop (Radmin)"},
	{5000, 5001, onTCP, "NAS administration"},
	{5060, 5061, onBoth, "telephony (SIP)"},
	{5432, 5432, onTCP, "a database (PostgreSQL)"},
	{5683, 5683, onBoth, "device control (CoAP)"},
	{5800, 5800, onTCP, "remote desktop (VNC)"},
	{5900, 5909, onBoth, "remote desktop (VNC)"},
	{5984, 5984, onTCP, "a database (CouchDB)"},
	{5985, 5986, onTCP, "Windows Remote Management (WinRM)"},
	{6379, 6379, onTCP, "a database (Redis)"},
	{8000, 8000, onBoth, "a camera or video recorder"},
	{8006, 8006, onTCP, "hypervisor administration"},
	{8009, 8009, onTCP, "a media receiver (Cast)"},
	{8080, 8081, onTCP, "a web server or an administration page"},
	{8086, 8086, onTCP, "a database (InfluxDB)"},
	{8291, 8291, onTCP, "router administration (MikroTik)"},
	{8443, 8443, onBoth, "a web server or an administration page"},
	{8554, 8554, onBoth, "a camera's stream (RTSP)"},
	{8728, 8729, onTCP, "router administration (MikroTik)"},
	{8883, 8883, onBoth, "a message broker (MQTT)"},
	{9042, 9042, onTCP, "a database (Cassandra)"},
	{9090, 9090, onTCP, "an administration page"},
	{9092, 9092, onTCP, "a message broker (Kafka)"},
	{9100, 9100, onTCP, "a printer"},
	{9200, 9200, onTCP, "a database (Elasticsearch)"},
	{9300, 9300, onTCP, "a database (Elasticsearch)"},
	{9443, 9443, onBoth, "an administration page"},
	{9527, 9527, onBoth, "a camera or video recorder"},
	{10000, 10000, onBoth, "an administration page"},
	{11211, 11211, onTCP, "a database (memcached)"},
	{20000, 20000, onBoth, "industrial control (DNP3)"},
	{27017, 27019, onTCP, "a database (MongoDB)"},
	{34567, 34567, onBoth, "a camera or video recorder"},
	{37777, 37777, onTCP, "a camera or video recorder"},
	{44818, 44818, onBoth, "industrial control (EtherNet/IP)"},
	{47001, 47001, onTCP, "Windows Remote Management (WinRM)"},
	{47808, 47808, onUDP, "building control (BACnet)"},
	{50070, 50070, onTCP, "cluster administration (Hadoop)"},
}

// usual are ports that need no name to open and that programs are known by, sorted by port:
// what a person is told who is asked about one. It decides nothing.
var usual = []service{
	{3074, 3074, onBoth, "an Xbox, or Call of Duty"},
	{3478, 3480, onBoth, "a PlayStation, or calls (STUN)"},
	{6881, 6999, onBoth, "BitTorrent"},
	{8096, 8096, onTCP, "Jellyfin"},
	{8123, 8123, onTCP, "Home Assistant"},
	{9308, 9308, onUDP, "a PlayStation"},
	{9987, 9987, onUDP, "TeamSpeak"},
	{19132, 19132, onUDP, "Minecraft"},
	{22000, 22000, onBoth, "Syncthing"},
	{25565, 25565, onTCP, "Minecraft"},
	{27015, 27050, onBoth, "Steam, or a game on it"},
	{32400, 32400, onTCP, "Plex"},
	{41641, 41641, onUDP, "Tailscale"},
	{51413, 51413, onBoth, "Transmission (BitTorrent)"},
	{51820, 51820, onUDP, "a VPN (WireGuard)"},
	{64738, 64738, onBoth, "Mumble"},
}

// Service returns what a port of a host is usually for, "" where nothing is known by it.
func Service(transport portmap.Transport, port uint16) string {
	if tier, why := TierOf(Internal, transport, port); tier != Ordinary {
		return why
	}
	on := uint8(onTCP)
	if transport == portmap.UDP {
		on = onUDP
	}
	return find(usual, on, port)
}

// Closed is one entry of what does not open by itself.
type Closed struct {
	Ports      portmap.PortRange
	Transports []portmap.Transport
	Tier       Tier   // Forbidden or Privileged
	InsideOnly bool   // it is about the internal port alone
	Why        string // completes "port 445 is ..."
}

// ClosedPorts lists Tier 0 and then Tier 1, each by port. Below 1024 every port is Tier 1,
// which is the first of its entries, whether or not another one names it.
func ClosedPorts() []Closed {
	all := closed(forbidden, Forbidden)
	all = append(all, Closed{
		Ports:      portmap.PortRange{First: 1, Last: systemPorts - 1},
		Transports: []portmap.Transport{portmap.TCP, portmap.UDP}, Tier: Privileged, Why: systemPort,
	})
	return append(all, closed(privileged, Privileged)...)
}

func closed(table []service, tier Tier) []Closed {
	all := make([]Closed, len(table))
	for i, s := range table {
		all[i] = Closed{
			Ports: portmap.PortRange{First: s.lo, Last: s.hi}, Tier: tier, Why: s.why,
			InsideOnly: tier == Privileged && s.lo >= systemPorts,
		}
		if s.on&onTCP != 0 {
			all[i].Transports = append(all[i].Transports, portmap.TCP)
		}
		if s.on&onUDP != 0 {
			all[i].Transports = append(all[i].Transports, portmap.UDP)
		}
	}
	return all
}

// TierOf returns the tier of a port and what the port is for, in words that
// complete "port 445 is ..."; they are empty for an Ordinary port. External
// port 0 means "any" and is Ordinary; internal port 0, and every port of a
// transport that is neither TCP nor UDP, would expose a whole host: Forbidden.
func TierOf(side Side, transport portmap.Transport, port uint16) (Tier, string) {
	on := uint8(onTCP)
	switch {
	case transport == portmap.UDP:
		on = onUDP
	case transport != portmap.TCP:
		return Forbidden, "a port of neither TCP nor UDP"
	}
	if port == 0 {
		if side == External {
			return Ordinary, ""
		}
		return Forbidden, "every port at once"
	}
	if why := find(forbidden, on, port); why != "" {
		return Forbidden, why
	}
	if side == External && port >= systemPorts {
		return Ordinary, ""
	}
	if why := find(privileged, on, port); why != "" {
		return Privileged, why
	}
	if port < systemPorts {
		return Privileged, systemPort
	}
	return Ordinary, ""
}

// find returns the why of a port in a sorted table, or "".
func find(table []service, on uint8, port uint16) string {
	i := sort.Search(len(table), func(i int) bool { return table[i].hi >= port })
	for ; i < len(table) && table[i].lo <= port; i++ {
		if table[i].on&on != 0 {
			return table[i].why
		}
	}
	return ""
}
