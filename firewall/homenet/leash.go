package homenet

import (
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/firewall"
)

// Leash: what the front's user sends by a socket of its own reaches the LAN and nothing
// else, by either family; other users, and sockets that others made, are as they were.
func Leash(t *testing.T, fw Firewall) {
	run(t, fw, test{"Leash", leash})
}

func leash(t *testing.T, h *Home) {
	for _, to := range []struct {
		name, at string
		heard    *net.UDPConn
		lan      bool
	}{
		{"LAN", Alice + ":6000", h.Alice.UDP(Alice + ":6000"), true},
		{"LAN, IPv6", Alice6 + ":6000", h.Alice.UDP(Alice6 + ":6000"), true},
		{"WAN", PeerX + ":6000", h.World.UDP(PeerX + ":6000"), false},
		{"WAN, IPv6", PeerX6 + ":6000", h.World.UDP(PeerX6 + ":6000"), false},
		{"loopback", "127.0.0.1:6000", h.Gateway.UDP("127.0.0.1:6000"), false},
		{"loopback, IPv6", "[::1]:6000", h.Gateway.UDP("[::1]:6000"), false},
		{"its own WAN address", WAN + ":6001", h.Gateway.UDP(WAN + ":6001"), false},
	} {
		sends := func(why string, maker, sender int, passes bool) {
			t.Helper()
			if err := h.sendAs(maker, sender, to.at); (err == nil) != passes {
				t.Errorf("%s: %s: %v", to.name, why, err)
			}
			if passes {
				Receive(t, to.heard, "hello")
			} else {
				ReceiveNothing(t, to.heard, to.name+": "+why)
			}
		}
		sends("the front", FrontUID, FrontUID, to.lan)
		sends("another user", FrontUID+1, FrontUID+1, true)
		sends("the front, by a socket that it was given", 0, FrontUID, true)
		h.Configure(func(f *firewall.Facts) { f.LAN = append(f.LAN, "wan0", "lo") })
		sends("the front, when all are LANs", FrontUID, FrontUID, true)
		h.Configure(func(f *firewall.Facts) { f.FrontUID = 0 })
		sends("without a front", FrontUID, FrontUID, true)
		h.Configure()
	}
	for _, at := range []string{"127.0.0.1:6002", "[::1]:6002"} {
		if err := h.callAs(FrontUID, FrontUID+1, at); err != nil {
			t.Errorf("another user calls the front's at %s: %v", at, err)
		}
		if err := h.callAs(FrontUID+1, FrontUID, at); err == nil {
			t.Errorf("the front calls another user's at %s", at)
		}
	}
	if err := h.Backend.Close(Context(t), false); err != nil {
		t.Fatal(err)
	}
	if err := h.sendAs(FrontUID, FrontUID, PeerX+":6000"); err != nil {
		t.Errorf("after a stop: %v", err)
	}
}

// sendAs sends a datagram from the gateway, by a socket that one user makes and another
// uses. 0 is whoever the test is.
func (h *Home) sendAs(maker, sender int, to string) error {
	h.t.Helper()
	return h.Gateway.In(func() error { // on a thread of its own, whose user this is
		var c net.PacketConn
		err := as(maker, func() (err error) {
			c, err = net.ListenPacket("udp", ":0")
			return err
		})
		if err != nil {
			return err
		}
		addr, err := net.ResolveUDPAddr("udp", to)
		if err == nil {
			err = as(sender, func() error { _, err := c.WriteTo([]byte("hello"), addr); return err })
		}
		return errors.Join(err, c.Close())
	})
}

// callAs has one user listen at an address of the gateway's own, and another call there and
// read what the first sends.
func (h *Home) callAs(listener, caller int, at string) error {
	h.t.Helper()
	return h.Gateway.In(func() error {
		var l net.Listener
		err := as(listener, func() (err error) {
			l, err = net.Listen("tcp", at)
			return err
		})
		if err != nil {
			return err
		}
		defer l.Close()
		var c net.Conn
		err = as(caller, func() (err error) {
			c, err = net.DialTimeout("tcp", at, 5*time.Second)
			return err
		})
		if err != nil {
			return err
		}
		defer c.Close()
		answer, err := l.Accept()
		if err != nil {
			return err
		}
		_, err = answer.Write([]byte("hello"))
		err = errors.Join(err, answer.Close(), c.SetReadDeadline(time.Now().Add(5*time.Second)))
		got, failed := io.ReadAll(c)
		if err = errors.Join(err, failed); err == nil && string(got) != "hello" {
			err = fmt.Errorf("it reads %q", got)
		}
		return err
	})
}

// as runs f with the file system's user of this thread changed, by which sockets are made.
func as(user int, f func() error) error {
	if user == 0 {
		return f()
	}
	was, _ := unix.SetfsuidRetUid(user)
	defer unix.SetfsuidRetUid(was)
	if is, _ := unix.SetfsuidRetUid(user); is != user {
		return errors.New("this process cannot become another user")
	}
	return f()
}
