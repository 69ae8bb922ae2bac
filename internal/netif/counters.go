package netif

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Stats is what an interface has carried since it was made.
type Stats struct {
	RxBytes, TxBytes     uint64
	RxPackets, TxPackets uint64
	Up                   bool // switched on
	Carrier              bool // the physical link is there (IFF_LOWER_UP)
}

// Stats reads the counters of one interface. It returns ErrNoInterface when
// there is none of that name.
func (k *Kernel) Stats(ifname string) (Stats, error) {
	if ifname == "" || len(ifname) >= unix.IFNAMSIZ {
		return Stats{}, fmt.Errorf("counters of %q: %w", ifname, ErrNoInterface)
	}
	req := request(k.route, unix.NETLINK_ROUTE, unix.RTM_GETLINK, unix.NLM_F_ACK)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(ifname)))
	var s Stats
	known := false
	err := req.ExecuteIter(unix.NETLINK_ROUTE, unix.RTM_NEWLINK, func(m []byte) bool {
		_, s, known = parseLink(m)
		return true
	})
	if err == nil && !known || errors.Is(err, unix.ENODEV) {
		err = ErrNoInterface
	}
	if err != nil {
		return Stats{}, fmt.Errorf("counters of %q: %w", ifname, err)
	}
	return s, nil
}

// ethtoolCmd is struct ethtool_cmd of linux/ethtool.h, which every kernel
// answers; the newer question (ETHTOOL_GLINKSETTINGS) is not known everywhere.
type ethtoolCmd struct {
	cmd         uint32
	supported   uint32
	advertising uint32
	speedLow    uint16
	_           [14]byte
	speedHigh   uint16
	_           [14]byte
}

// ifreqData is struct ifreq of linux/if.h with its pointer member.
type ifreqData struct {
	name [unix.IFNAMSIZ]byte
	data unsafe.Pointer
	_    [16]byte // the union's other members are up to 24 bytes
}

const (
	megabit      = 1_000_000
	unknownSpeed = 0xffffffff // SPEED_UNKNOWN
)

// Speed returns the rate that the driver says its link has, in bits a second. It
// is false where nobody knows: there is no such interface, it has no carrier,
// or it is of a kind without a rate (PPP, a tunnel).
func (k *Kernel) Speed(ifname string) (uint64, bool) {
	if ifname == "" || len(ifname) >= unix.IFNAMSIZ {
		return 0, false
	}
	conn, err := k.ethtool.SyscallConn()
	if err != nil {
		return 0, false
	}
	cmd := ethtoolCmd{cmd: unix.ETHTOOL_GSET}
	var req ifreqData
	copy(req.name[:], ifname)
	req.data = unsafe.Pointer(&cmd)
	var errno syscall.Errno
	k.mu.Lock()
	defer k.mu.Unlock()
	err = conn.Control(func(fd uintptr) {
		_, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req)))
	})
	if err != nil || errno != 0 {
		return 0, false
	}
	return linkRate(cmd.speedLow, cmd.speedHigh)
}

// linkRate puts the two halves of ethtool's speed, in megabits, together. Some
// drivers say 0 or all ones in the lower half alone when they do not know.
func linkRate(low, high uint16) (uint64, bool) {
	mbit := uint32(high)<<16 | uint32(low)
	if mbit == 0 || mbit == unknownSpeed || mbit == 0xffff {
		return 0, false
	}
	return uint64(mbit) * megabit, true
}
