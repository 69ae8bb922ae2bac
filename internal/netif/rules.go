package netif

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sort"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Rule is a rule of policy routing.
type Rule struct {
	Priority uint32
	Table    uint32       // 0: it leads to no table
	From     netip.Prefix // only for packets from there; of length 0: from anywhere
	Text     string       // in words of the program ip, what else it asks for by name only: "not fwmark 0xca6c lookup 51820"
}

// rules dumps the rules of both families, in the order in which the kernel asks them.
// A kernel without policy routing, or without IPv6, has none.
func (k *Kernel) rules() ([]Rule, error) {
	var all []Rule
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		req := request(k.raw, unix.NETLINK_ROUTE, unix.RTM_GETRULE, unix.NLM_F_DUMP)
		req.AddData(&nl.RtMsg{RtMsg: unix.RtMsg{Family: family}})
		err := req.ExecuteIter(unix.NETLINK_ROUTE, unix.RTM_NEWRULE, func(m []byte) bool {
			if r, ok := parseRule(family, m); ok {
				all = append(all, r)
			}
			return true
		})
		if err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EAFNOSUPPORT) {
			return nil, err
		}
	}
	sort.SliceStable(all, func(i, j int) bool {
		a, b := all[i], all[j]
		return cmp.Or(cmp.Compare(a.From.Addr().BitLen(), b.From.Addr().BitLen()), cmp.Compare(a.Priority, b.Priority)) < 0
	})
	return all, nil
}

// invert is FIB_RULE_INVERT of linux/fib_rules.h, where struct fib_rule_hdr is too: it
// has the places of struct rtmsg.
const invert = 2

// parseRule decodes a RTM_NEWRULE message.
func parseRule(family uint8, m []byte) (Rule, bool) {
	if len(m) < unix.SizeofRtMsg || m[0] != family {
		return Rule{}, false
	}
	src := netip.IPv4Unspecified()
	if family == unix.AF_INET6 {
		src = netip.IPv6Unspecified()
	}
	r := Rule{Table: uint32(m[4])}
	mark, mask, dst := uint32(0), ^uint32(0), src
	var more []string
	for t, v := range attributes(m[unix.SizeofRtMsg:]) {
		switch t {
		case nl.FRA_PRIORITY:
			r.Priority = attrUint32(v)
		case nl.FRA_TABLE:
			r.Table = attrUint32(v)
		case nl.FRA_SRC:
			src = attrAddr(v)
		case nl.FRA_DST:
			dst = attrAddr(v)
		case nl.FRA_FWMARK:
			mark = attrUint32(v)
		case nl.FRA_FWMASK:
			mask = attrUint32(v)
		default:
			more = append(more, otherCondition(t, v)...)
		}
	}
	r.From = netip.PrefixFrom(src, int(m[2]))
	to := netip.PrefixFrom(dst, int(m[1]))
	if !r.From.IsValid() || !to.IsValid() {
		return Rule{}, false
	}
	var words []string
	if binary.NativeEndian.Uint32(m[8:])&invert != 0 {
		words = append(words, "not")
	}
	if m[3] != 0 {
		words = append(words, fmt.Sprintf("tos 0x%02x", m[3]))
	}
	if r.From.Bits() > 0 {
		words = append(words, "from "+r.From.String())
	}
	if to.Bits() > 0 {
		words = append(words, "to "+to.String())
	}
	if mark != 0 {
		words = append(words, "fwmark "+markText(mark, mask))
	}
	r.Text = strings.Join(append(append(words, more...), fmt.Sprintf("lookup %d", r.Table)), " ")
	return r, true
}

// otherCondition returns the words for a condition that only the text shows, none for an
// attribute that is no such.
func otherCondition(t uint16, v []byte) []string {
	switch t {
	case nl.FRA_IIFNAME:
		return []string{"iif " + strings.TrimRight(string(v), "\x00")}
	case nl.FRA_OIFNAME:
		return []string{"oif " + strings.TrimRight(string(v), "\x00")}
	case nl.FRA_IP_PROTO:
		return []string{"ipproto"}
	case nl.FRA_SPORT_RANGE:
		return []string{"sport"}
	case nl.FRA_DPORT_RANGE:
		return []string{"dport"}
	case nl.FRA_UID_RANGE:
		return []string{"uidrange"}
	}
	return nil
}

func markText(mark, mask uint32) string {
	if mask == ^uint32(0) {
		return fmt.Sprintf("%#x", mark)
	}
	return fmt.Sprintf("%#x/%#x", mark, mask)
}
