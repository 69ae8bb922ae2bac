package owned

import (
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/internal/netif"
	"portcullis/internal/process"
	"portcullis/internal/slog"
	"portcullis/internal/wall"
)

// Owner is where the front looks for who owns it: on a host of the lab's LAN, the only
// network that a front may send to. It is not one by whom mappings are asked for.
var Owner = netip.MustParseAddrPort("192.168.77.99:45999")

// Order is what the owner wants done.
type Order struct {
	Wall   []byte `json:",omitempty"` // to be sent on the wall, if there is anything
	Passed int    // with so many copies of descriptor 0
	Try    *Try   `json:",omitempty"` // answered by a Report of Tried
	Send   *Send  `json:",omitempty"` // likewise
	Means  *Means `json:",omitempty"` // likewise
	Close  int    // a descriptor; likewise
	Die    bool
}

// Send is a datagram to be sent by a socket that the front has.
type Send struct {
	FD        int
	To        netip.AddrPort
	Interface int  // by IP_PKTINFO; 0: not said
	FastOpen  bool // a connection in place of it, after the socket has been shut
}

// Report is what the front tells its owner.
type Report struct {
	Settings *Hello            `json:",omitempty"` // first, and once
	Wall     []byte            `json:",omitempty"` // what the warden says
	FDs      []int             `json:",omitempty"` // what came with it
	Tried    map[string]string `json:",omitempty"` // what each try came to: "" or an error
}

// Hello is what a front knows when its sandbox has closed.
type Hello struct {
	Settings   wall.Settings
	PID, User  int
	Missing    string // of the sandbox
	Interfaces map[string]int
}

// front is one that is owned.
type front struct {
	wall  *net.UnixConn
	owner net.Conn
	full  int // a connection, after Means "linger"

	mu  sync.Mutex // one at a time reports
	out *json.Encoder
}

// Main is the front: one of ours where nobody waits for it.
func Main() int {
	owner, err := net.DialTimeout("tcp4", Owner.String(), 10*time.Second)
	if err != nil {
		return process.Main()
	}
	f := &front{owner: owner, out: json.NewEncoder(owner)}
	if err := f.run(); err != nil {
		return 3
	}
	return 0
}

// wallDescriptor is where a front has the wall.
const wallDescriptor = 3

func (f *front) run() error {
	conn, err := net.FileConn(os.NewFile(wallDescriptor, "wall"))
	if err != nil {
		return err
	}
	f.wall = conn.(*net.UnixConn)
	_, fds, m, err := f.receive()
	if err != nil {
		return err
	}
	set, ok := m.Body.(*wall.Settings)
	if !ok || len(fds) != 1 {
		return errors.New("no settings")
	}
	before, err := prepare(fds[0])
	if err != nil {
		return err
	}
	var kernel *netif.Kernel // an honest front keeps it
	s := process.Confine(*set, func() (err error) {
		kernel, err = process.OpenNetwork(slog.New(slog.DiscardHandler))
		return err
	})
	defer runtime.KeepAlive(kernel)
	hello := &Hello{Settings: *set, PID: os.Getpid(), User: os.Geteuid(), Interfaces: before.interfaces}
	if err := errors.Join(s.Missing...); err != nil {
		hello.Missing = err.Error()
	}
	if err := f.report(Report{Settings: hello}); err != nil {
		return err
	}
	go func() { _ = f.relay() }() // the owner sees the end of the wall by that of the front
	return f.obey(before)
}

func (f *front) report(r Report) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.out.Encode(r)
}

// receive returns the next message of the wall, its octets and its descriptors.
func (f *front) receive() ([]byte, []int, wall.Message, error) {
	b, oob := make([]byte, wall.MaxMessage), make([]byte, unix.CmsgSpace(4*4))
	n, oobn, _, _, err := f.wall.ReadMsgUnix(b, oob)
	if err != nil {
		return nil, nil, wall.Message{}, err
	}
	var fds []int
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	for i := range messages {
		some, wrong := unix.ParseUnixRights(&messages[i])
		fds, err = append(fds, some...), errors.Join(err, wrong)
	}
	m, wrong := wall.Decode(b[:n])
	return b[:n], fds, m, errors.Join(err, wrong)
}

// relay tells the owner what the warden says.
func (f *front) relay() error {
	for {
		b, fds, _, err := f.receive()
		if err != nil {
			return err
		}
		if err := f.report(Report{Wall: b, FDs: fds}); err != nil {
			return err
		}
	}
}

// obey does what the owner says until he is gone.
func (f *front) obey(before *prepared) error {
	for in := json.NewDecoder(f.owner); ; {
		var o Order
		if err := in.Decode(&o); err != nil {
			return err
		}
		var tried map[string]string
		switch {
		case o.Die:
			return nil
		case o.Try != nil:
			tried = before.try(*o.Try)
		case o.Send != nil:
			tried = map[string]string{"send": text(o.Send.send())}
		case o.Means != nil:
			tried = map[string]string{o.Means.What: text(o.Means.do(f))}
		case o.Close != 0:
			tried = map[string]string{"close": text(unix.Close(o.Close))}
		default:
			var rights []byte
			if o.Passed > 0 {
				rights = unix.UnixRights(make([]int, o.Passed)...)
			}
			_, _, _ = f.wall.WriteMsgUnix(o.Wall, rights, nil) // the owner sees what comes of it
			continue
		}
		if err := f.report(Report{Tried: tried}); err != nil {
			return err
		}
	}
}

// text is an error as the owner compares it.
func text(err error) string {
	var errno unix.Errno
	switch {
	case err == nil:
		return ""
	case errors.As(err, &errno):
		return unix.ErrnoName(errno)
	}
	return err.Error()
}

// send sends what is asked for, or connects.
func (s Send) send() error {
	if s.FastOpen {
		_ = unix.Shutdown(s.FD, unix.SHUT_RD) // is refused as well
		return unix.Sendto(s.FD, []byte("hello"), unix.MSG_FASTOPEN|unix.MSG_DONTWAIT, &unix.SockaddrInet4{Port: int(s.To.Port()), Addr: s.To.Addr().As4()})
	}
	var oob []byte
	var to unix.Sockaddr
	if s.To.Addr().Is4() {
		to = &unix.SockaddrInet4{Port: int(s.To.Port()), Addr: s.To.Addr().As4()}
		if s.Interface != 0 {
			oob = unix.PktInfo4(&unix.Inet4Pktinfo{Ifindex: int32(s.Interface)})
		}
	} else {
		to = &unix.SockaddrInet6{Port: int(s.To.Port()), Addr: s.To.Addr().As16(), ZoneId: uint32(s.Interface)}
		if s.Interface != 0 {
			oob = unix.PktInfo6(&unix.Inet6Pktinfo{Ifindex: uint32(s.Interface)})
		}
	}
	return unix.Sendmsg(s.FD, []byte("hello"), oob, to, unix.MSG_DONTWAIT)
}
