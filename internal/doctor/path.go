package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"time"

	"portcullis/firewall"
	"portcullis/internal/random"
	"portcullis/portmap"
)

// Setup is the machine as far as a packet on its way sees it.
type Setup struct {
	Rules    []Rules        // all that filter and translate
	Open     Open           // the backend that is to be tried
	Bare     Open           // that of nftables; nobody's chain has a jump to it
	Links    []string       // names of all interfaces
	Firewall firewall.Facts // with the names of WAN and LAN
	External netip.Addr     // of the WAN
	LAN      netip.Prefix   // the gateway's address on the LAN, with the length of the network
	LAN6     netip.Prefix   // the same of IPv6; invalid: none
	LANs     []Inside       // all that are served
	Asks     []Ask          // what their clients send to the gateway
}

// Rules are what one program lists, and how they are loaded again.
type Rules struct {
	Text string
	Load []string // "nft", "-f", "-"
}

// Backend is a firewall backend, as far as one packet needs it.
type Backend interface {
	Prepare(firewall.Facts) error
	Replace(context.Context, []portmap.Mapping) error
	Close(ctx context.Context, keep bool) error
}

// Open opens a backend in a network namespace, by its file descriptor.
type Open func(ctx context.Context, netns int) (Backend, error)

// Trial is what became of packets in the copy.
type Trial struct {
	Skipped          string // why there was none; "" when there was
	Mapping, Pinhole Verdict
}

// Verdict is on one packet.
type Verdict struct {
	Tried, Passed bool
	Blame         []Blame // the base chains that drop it; none where it does not pass without them either
	Bare          []Blame // and those that would, where the configuration names no chain and no iptables
	// Mark is what the rules of the host put on the answer, where Marked says that
	// it could be seen: rules of routing may go by it.
	Mark   uint32
	Marked bool
}

const (
	patientTries = 3
	mostLinks    = 256
)

// TrialPort is where the host of a Trial is asked, and answers from.
const TrialPort = 40321

var (
	outside  = netip.MustParseAddr("20.20.20.20") // a host of the Internet, in a namespace of ours
	outside6 = netip.MustParseAddr("2a00:1450::77")
	near     = netip.MustParsePrefix("fe80::1/64")
	far      = netip.MustParsePrefix("fe80::2/64")
)

// Try builds three namespaces: the gateway with a copy of its rules and interfaces
// of the same names, a host on its LAN and one of the Internet. It opens a mapping
// there and sends a packet to it. Where it does not arrive, it is let past the base chains
// of others, and held up by one after the other again. Then the same with a pinhole.
func Try(ctx context.Context, s Setup) (Trial, error) {
	var t Trial
	var err error
	if t.Mapping, err = try(ctx, s, false); err != nil {
		return t, err
	}
	if s.LAN6.IsValid() && len(s.Firewall.WAN6) > 0 && s.Firewall.WAN6[0] == s.Firewall.WAN[0].Interface {
		t.Pinhole, err = try(ctx, s, true)
	}
	return t, err
}

func try(ctx context.Context, s Setup, six bool) (Verdict, error) {
	v, err := tryOnce(ctx, s, six)
	if err != nil || len(v.Blame) == 0 {
		return v, err
	}
	s.Firewall.AcceptChain, s.Firewall.AcceptChain6, s.Open = firewall.Chain{}, firewall.Chain{}, s.Bare
	bare, err := tryOnce(ctx, s, six)
	v.Bare = bare.Blame
	return v, err
}

func tryOnce(ctx context.Context, s Setup, six bool) (Verdict, error) {
	c, err := build(ctx, s)
	defer c.close()
	if err != nil {
		return Verdict{}, err
	}
	b, err := s.Open(ctx, c.gateway.FD())
	if err != nil {
		return Verdict{}, err
	}
	defer func() { _ = b.Close(context.WithoutCancel(ctx), true) }() // it ends with the namespace
	if err := b.Prepare(s.Firewall); err != nil {
		return Verdict{}, err
	}
	if err := replace(ctx, b, c.mappings(s)); err != nil {
		return Verdict{}, err
	}
	to := netip.AddrPortFrom(s.External, TrialPort)
	if six {
		to = netip.AddrPortFrom(c.host6, TrialPort)
	}
	v, err := c.judge(ctx, s.Rules, to)
	if err == nil && v.Passed {
		v.Mark, v.Marked = c.answerMark(ctx, s.Firewall.LAN[0], to)
	}
	return v, err
}

// replace opens mappings. A chain that is wrong shows by the packet; but a rule may be
// missing only because somebody else holds the lock of iptables' tables, which all
// namespaces have in common.
func replace(ctx context.Context, b Backend, want []portmap.Mapping) error {
	for range patientTries {
		var chain *firewall.ChainError
		if err := b.Replace(ctx, want); !errors.As(err, &chain) {
			return err
		}
	}
	return nil
}

func (c *copied) mappings(s Setup) []portmap.Mapping {
	end := time.Now().Add(time.Hour)
	inner := netip.AddrPortFrom(c.host, TrialPort)
	all := []portmap.Mapping{{
		ID: 1, Transport: portmap.UDP, Internal: inner, ExternalPort: TrialPort, Expires: end,
	}}
	if c.host6.IsValid() {
		inner6 := netip.AddrPortFrom(c.host6, TrialPort)
		all = append(all, portmap.Mapping{
			ID: 2, Kind: portmap.Pinhole6, Transport: portmap.UDP, Internal: inner6, ExternalPort: inner6.Port(), Expires: end,
		})
	}
	return all
}

// judge sends a packet, and finds what is in its way.
func (c *copied) judge(ctx context.Context, rules []Rules, to netip.AddrPort) (Verdict, error) {
	passes := func() (bool, error) { return c.knock(ctx, to) }
	if passed, err := patiently(passes); passed || err != nil {
		return Verdict{Tried: err == nil, Passed: passed}, err
	}
	gates, err := c.gates(ctx, rules, throughWay, to.Addr())
	if err != nil {
		return Verdict{}, err
	}
	found, err := blame(gates, passes)
	return Verdict{Tried: err == nil, Blame: found}, err
}

// recorder notes the marks of answers when all other rules have seen them; %q is the
// LAN, %d the port.
const recorder = `table inet portcullis_doctor {
	set answer_marks { type mark; size 16; flags dynamic; }
	chain answers {
		type filter hook prerouting priority 1000;
		iifname %q udp sport %d update @answer_marks { meta mark }
	}
}`

// answerMark has the host answer a datagram, and returns the mark that the rules have put
// on the answer. Nobody can tell without the program nft.
func (c *copied) answerMark(ctx context.Context, lan string, to netip.AddrPort) (mark uint32, known bool) {
	if err := c.run(ctx, fmt.Sprintf(recorder, lan, TrialPort), "nft", "-f", "-"); err != nil {
		return 0, false
	}
	for end := time.Now().Add(longest); time.Now().Before(end) && ctx.Err() == nil; {
		if _, err := c.exchange(ctx, to, true); err != nil {
			return 0, false
		}
		list, err := c.gateway.Output(ctx, "", "nft", "list", "set", "inet", "portcullis_doctor", "answer_marks")
		if err != nil {
			return 0, false
		}
		if m := seenMark.FindStringSubmatch(list); m != nil {
			n, err := strconv.ParseUint(m[1], 0, 32)
			return uint32(n), err == nil
		}
	}
	return 0, false
}

var seenMark = regexp.MustCompile(`elements = \{ (0x[0-9a-f]+)`)

// knock sends a datagram from the Internet, and says whether the host gets it.
func (c *copied) knock(ctx context.Context, to netip.AddrPort) (bool, error) {
	return c.exchange(ctx, to, false)
}

// exchange is knock, with an answer of the host's where it is wanted.
func (c *copied) exchange(ctx context.Context, to netip.AddrPort, answer bool) (bool, error) {
	host, sender := c.host, outside
	if to.Addr().Is6() {
		host, sender = c.host6, outside6
	}
	in, err := c.inside.UDP(netip.AddrPortFrom(host, TrialPort))
	if err != nil {
		return false, err
	}
	defer in.Close()
	out, err := c.internet.UDP(netip.AddrPortFrom(sender, 0))
	if err != nil {
		return false, err
	}
	defer out.Close()
	word := []byte(random.Text())
	began, patience := time.Now(), c.patience.now()
	for end := began.Add(patience); time.Now().Before(end) && ctx.Err() == nil; {
		if _, err := out.WriteToUDPAddrPort(word, to); err != nil {
			return false, nil // refused, or no way
		}
		if err := in.SetReadDeadline(time.Now().Add(patience / 7)); err != nil {
			return false, err
		}
		buf := make([]byte, 64)
		n, from, err := in.ReadFromUDPAddrPort(buf)
		if err != nil || string(buf[:n]) != string(word) {
			continue
		}
		c.patience.passed(began)
		if answer {
			_, err = in.WriteToUDPAddrPort(word, from)
		}
		return true, err
	}
	return false, ctx.Err()
}
