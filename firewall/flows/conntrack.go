package flows

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"portcullis/firewall"
	"portcullis/portmap"
)

// conntrack is the kernel's list of flows, over a socket that is opened when it is
// first needed.
type conntrack struct {
	netns  int // file descriptor of a network namespace; 0: the current one
	handle *netlink.Handle
	closed bool
}

func (c *conntrack) open() error {
	if c.closed {
		return firewall.ErrClosed
	}
	if c.handle != nil {
		return nil
	}
	var h *netlink.Handle
	var err error
	if c.netns == 0 {
		h, err = netlink.NewHandle(unix.NETLINK_NETFILTER)
	} else {
		h, err = netlink.NewHandleAt(netns.NsHandle(c.netns), unix.NETLINK_NETFILTER)
	}
	if err != nil {
		return fmt.Errorf("opening conntrack: %w", err)
	}
	if err := h.SetSocketTimeout(patience); err != nil {
		h.Close()
		return fmt.Errorf("opening conntrack: %w", err)
	}
	c.handle = h
	return nil
}

func (c *conntrack) close() {
	if c.handle != nil {
		c.handle.Close()
		c.handle = nil
	}
}

// end ends the flows of one family that the filter finds. A listing that changed
// meanwhile is taken again.
func (c *conntrack) end(family netlink.InetFamily, find filter) (ended uint, err error) {
	for range tries {
		var n uint
		n, err = c.handle.ConntrackDeleteFilters(netlink.ConntrackTable, family, find)
		ended += n
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		c.close() // half an answer may be left in the socket
		return ended, fmt.Errorf("ending flows: %w", err)
	}
	return ended, nil
}

// list gives the flows of one family that the filter finds.
func (c *conntrack) list(family netlink.InetFamily, find filter) ([]Flow, error) {
	var flows []Flow
	_, err := c.end(family, func(f Flow) bool {
		if find(f) {
			flows = append(flows, f)
		}
		return false // it ends nothing
	})
	return flows, err
}

// filter is the form that the library wants.
type filter func(Flow) bool

// MatchConntrackFlow says whether the flow must end.
func (find filter) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	t := portmap.Transport(f.Forward.Protocol)
	src, ok1 := netip.AddrFromSlice(f.Forward.SrcIP)
	dst, ok2 := netip.AddrFromSlice(f.Forward.DstIP)
	from, ok3 := netip.AddrFromSlice(f.Reverse.SrcIP)
	to, ok4 := netip.AddrFromSlice(f.Reverse.DstIP)
	return t.Valid() && ok1 && ok2 && ok3 && ok4 && find(Flow{
		Transport:   t,
		Src:         netip.AddrPortFrom(src, f.Forward.SrcPort),
		Dst:         netip.AddrPortFrom(dst, f.Forward.DstPort),
		AnswersFrom: netip.AddrPortFrom(from, f.Reverse.SrcPort),
		AnswersTo:   netip.AddrPortFrom(to, f.Reverse.DstPort),
	})
}
