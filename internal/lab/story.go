package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Step is one line of the story: somebody asks for something.
type Step struct {
	Who    string `json:"who"`
	Asks   string `json:"asks"`
	Answer string `json:"answer"`
	Reason string `json:"reason,omitempty"` // the sentence that came with a refusal
	Packet string `json:"packet"`           // what a real packet then did
	OK     bool   `json:"ok"`               // both are as they must be
}

// patience is how long a packet may take that must arrive, and doubt how long
// we watch for one that must not.
const (
	patience = 3 * time.Second
	doubt    = 400 * time.Millisecond
	answer   = 3 * time.Second // for an HTTP answer, and for a search
)

// story plays everything and hands each step to tell as soon as it is done.
type story struct {
	net  *Network
	tell func(Step)
	err  error
}

// Play plays the whole story on a network with a running daemon. The daemon is
// stopped at its end, because that is the last step. The error is a failure of
// the lab itself; a step that went wrong is in its Step.
func Play(ctx context.Context, n *Network, d *Daemon, tell func(Step)) error {
	s := &story{net: n, tell: tell}
	for _, play := range []func(context.Context){s.console, s.rival, s.torrent, s.plex, s.phone, s.backup, s.six, s.malware, s.liar, s.impostor, s.attacker, s.goodbye} {
		if play(ctx); s.err != nil || ctx.Err() != nil {
			return errors.Join(s.err, ctx.Err())
		}
	}
	s.stop(d)
	return s.err
}

func (s *story) point(ctx context.Context, host, device, service string) *ControlPoint {
	c := NewControlPoint(s.net.Host(host))
	ctx, cancel := context.WithTimeout(ctx, answer)
	defer cancel()
	if err := c.Find(ctx, device, service); err != nil && s.err == nil {
		s.err = fmt.Errorf("lab: %s cannot find the gateway: %w", host, err)
	}
	return c
}

// grant asks for a mapping that must be granted, and sends a packet through it.
func (s *story) grant(ctx context.Context, who, why string, c *ControlPoint, m Mapping) {
	s.grantVia(ctx, who, fmt.Sprintf("%d/%s for %s", m.External, lower(m.Protocol), why), c, m,
		func(ctx context.Context) (uint16, error) { return m.External, c.Add(ctx, m) })
}

func (s *story) grantVia(ctx context.Context, who, asks string, c *ControlPoint, m Mapping, ask func(context.Context) (uint16, error)) {
	if s.err != nil {
		return
	}
	callCtx, cancel := context.WithTimeout(ctx, answer)
	port, err := ask(callCtx)
	cancel()
	step := Step{Who: who, Asks: asks, Answer: answered(err), Reason: explained(err)}
	if err == nil && port != m.External {
		step.Answer = fmt.Sprintf("granted, %d", port)
	}
	arrived := s.knock(ctx, m.Protocol, netip.AddrPortFrom(GatewayWAN, port), c.Host, m.Internal, patience)
	step.Packet = packetWord(arrived)
	step.OK = err == nil && arrived
	s.tell(step)
}

// refuse asks for a mapping that must be refused with 606, and shows that no
// packet passes to where it would have led.
func (s *story) refuse(ctx context.Context, who, asks string, c *ControlPoint, m Mapping, target *Host) {
	if s.err != nil {
		return
	}
	callCtx, cancel := context.WithTimeout(ctx, answer)
	err := c.Add(callCtx, m)
	cancel()
	arrived := s.knock(ctx, m.Protocol, netip.AddrPortFrom(GatewayWAN, m.External), target, m.Internal, doubt)
	var refusal *UPnPError
	s.tell(Step{Who: who, Asks: asks, Answer: answered(err), Reason: explained(err), Packet: packetWord(arrived),
		OK: errors.As(err, &refusal) && refusal.Code == 606 && !arrived})
}

func (s *story) knock(ctx context.Context, protocol string, to netip.AddrPort, target *Host, internal uint16, wait time.Duration) bool {
	arrived, _, err := Probe(ctx, protocol, s.net.Internet, to, target, internal, wait)
	if err != nil && s.err == nil {
		s.err = fmt.Errorf("lab: probe: %w", err)
	}
	return arrived
}

func (s *story) console(ctx context.Context) {
	c := s.point(ctx, "console", IGD1, WANIP1)
	s.grant(ctx, "console", "a game", c, Mapping{External: 3074, Internal: 3074, Protocol: "UDP", Description: "Game", Lease: time.Hour})
}

// rival is a second console with the same game and no mapping: it sends from the port
// that the first one's game is mapped to, to the server that both play on. Each must
// hear its own answers.
func (s *story) rival(ctx context.Context) {
	if s.err != nil {
		return
	}
	const game, server = 3074, 3544
	first, second := s.net.Host("console"), s.net.Host("phone")
	there := netip.AddrPortFrom(InternetOne, server)
	mapped := netip.AddrPortFrom(GatewayWAN, game)
	play := func(h *Host) Outcome {
		return s.send(ctx, Knock{
			Protocol: "UDP", From: h, Source: netip.AddrPortFrom(h.Addr, game), To: there,
			Receiver: s.net.Internet, At: there, Patience: patience, Answer: true,
		})
	}
	moved := play(second)
	back := s.send(ctx, Knock{
		Protocol: "UDP", From: s.net.Internet, Source: there, To: mapped,
		Receiver: first, At: netip.AddrPortFrom(first.Addr, game), Patience: patience,
	})
	owner := play(first)
	step := Step{
		Who: "second console", Asks: "to play from 3074/udp, unmapped", Answer: "from another port", Packet: packetWord(moved.Answered),
		OK: moved.Answered && moved.Source != mapped && back.Arrived && owner.Answered && owner.Source == mapped,
	}
	if !step.OK {
		step.Answer = fmt.Sprintf("from %s; the first hears the server: %v, and leaves from %s", moved.Source, back.Arrived, owner.Source)
	}
	s.tell(step)
}

// send sends a packet, and keeps the first failure of the lab itself.
func (s *story) send(ctx context.Context, k Knock) Outcome {
	got, err := k.Send(ctx)
	if err != nil && s.err == nil {
		s.err = fmt.Errorf("lab: %w", err)
	}
	return got
}

func (s *story) torrent(ctx context.Context) {
	c := s.point(ctx, "laptop", IGD1, WANIP1)
	for _, protocol := range []string{"TCP", "UDP"} {
		s.grant(ctx, "torrent client", "its peers", c, Mapping{External: 51413, Internal: 51413, Protocol: protocol, Description: "Torrent", Lease: 0})
	}
}

func (s *story) plex(ctx context.Context) {
	c := s.point(ctx, "server", IGD2, WANIP2)
	m := Mapping{External: 3074, Internal: 32400, Protocol: "UDP", Description: "Media", Lease: time.Hour}
	s.grantVia(ctx, "media server", "3074/udp, or any other port", c, m, func(ctx context.Context) (uint16, error) {
		port, err := c.AddAny(ctx, m)
		if err == nil && port == m.External {
			err = errors.New("the console's port was given away")
		}
		return port, err
	})
	m = Mapping{External: 28731, Internal: 32400, Protocol: "TCP", Description: "Media", Lease: time.Hour}
	s.grant(ctx, "media server", "its port 32400", c, m)
}

func (s *story) malware(ctx context.Context) {
	c := s.point(ctx, "malware", IGD1, WANIP1)
	me, neighbour := s.net.Host("malware"), s.net.Host("laptop")
	base := Mapping{External: 47669, Protocol: "TCP", Description: "galleta silenciosa", Lease: time.Hour}
	own, other, router, proxy := base, base, base, base
	own.Internal = 445
	s.refuse(ctx, "malware", "its own 445/tcp (SMB)", c, own, me)
	other.Internal, other.Client = 445, neighbour.Addr.String()
	s.refuse(ctx, "malware", "the laptop's 445/tcp (EternalSilence)", c, other, neighbour)
	router.Internal, router.Client = 80, GatewayLAN.String()
	s.refuse(ctx, "malware", "the router's admin page", c, router, s.net.Gateway)
	proxy.Internal, proxy.Client = 443, InternetTwo.String()
	s.refuse(ctx, "malware", "an Internet host (UPnProxy)", c, proxy, s.net.Internet)
}

// phone speaks PCP: it gets a port, and another one where the wished-for one is
// taken.
func (s *story) phone(ctx context.Context) {
	h := s.net.Host("phone")
	for _, x := range []struct {
		asks      string
		suggested uint16
	}{
		{"41641/udp for a VPN", 41641},
		{"51413/udp, or any other port", 51413},
	} {
		s.grantPort(ctx, "phone (PCP)", x.asks, h, "UDP", x.suggested, x.suggested, func(ctx context.Context) (uint16, error) {
			external, err := h.MapPCP(ctx, "UDP", x.suggested, x.suggested, time.Hour)
			if err == nil && external.Addr() != GatewayWAN {
				err = fmt.Errorf("the address is said to be %s", external.Addr())
			}
			return external.Port(), err
		})
	}
}

// backup is a program on the laptop that speaks NAT-PMP.
func (s *story) backup(ctx context.Context) {
	h := s.net.Host("laptop")
	s.grantPort(ctx, "laptop (NAT-PMP)", "22000/tcp for its backup", h, "TCP", 22000, 22000, func(ctx context.Context) (uint16, error) {
		return h.MapNATPMP(ctx, "TCP", 22000, 22000, time.Hour)
	})
}

// grantPort is grantVia without a control point.
func (s *story) grantPort(ctx context.Context, who, asks string, h *Host, protocol string, internal, wanted uint16, ask func(context.Context) (uint16, error)) {
	s.grantVia(ctx, who, asks, &ControlPoint{Host: h}, Mapping{External: wanted, Internal: internal, Protocol: protocol}, ask)
}

// liar is the malware once more, in the other two protocols.
func (s *story) liar(ctx context.Context) {
	if s.err != nil {
		return
	}
	me, neighbour := s.net.Host("malware"), s.net.Host("laptop")
	for _, x := range []struct {
		who, asks string
		want      Refusal
		target    *Host
		ask       func(context.Context) error
	}{
		{"malware (NAT-PMP)", "its own 445/tcp (SMB)", Refusal{"NAT-PMP", 2}, me, func(ctx context.Context) error {
			_, err := me.MapNATPMP(ctx, "TCP", 445, 47670, time.Hour)
			return err
		}},
		{"malware (PCP)", "the laptop's 445/tcp", Refusal{"PCP", 5}, neighbour, func(ctx context.Context) error {
			return me.MapThirdParty(ctx, neighbour.Addr, "TCP", 445, 47670, time.Hour)
		}},
	} {
		callCtx, cancel := context.WithTimeout(ctx, answer)
		err := x.ask(callCtx)
		cancel()
		arrived := s.knock(ctx, "TCP", netip.AddrPortFrom(GatewayWAN, 47670), x.target, 445, doubt)
		var refusal *Refusal
		s.tell(Step{Who: x.who, Asks: x.asks, Answer: answered(err), Packet: packetWord(arrived),
			OK: errors.As(err, &refusal) && *refusal == x.want && !arrived})
	}
}

// attacker is on the Internet side: a search and a request, to each address of
// the gateway that could answer.
func (s *story) attacker(ctx context.Context) {
	c := NewControlPoint(s.net.Internet)
	targets := []netip.Addr{GatewayWAN, GatewayLAN}
	if s.net.HasIPv6() {
		targets = append(targets, GatewayWAN6, GatewayLAN6)
	}
	for _, to := range targets {
		searchCtx, cancel := context.WithTimeout(ctx, doubt)
		_, err := c.Search(searchCtx, "ssdp:all", netip.AddrPortFrom(to, 1900))
		cancel()
		s.tell(Step{Who: "attacker on the WAN", Asks: "an answer from " + netip.AddrPortFrom(to, 1900).String(), Answer: silence(err), Packet: "-",
			OK: errors.Is(err, ErrSilence)})
		dialCtx, cancel := context.WithTimeout(ctx, answer)
		conn, err := s.net.Internet.Dial(dialCtx, "tcp", netip.AddrPortFrom(to, 5000).String())
		cancel()
		if err == nil {
			err = conn.Close()
		} else {
			err = ErrSilence
		}
		s.tell(Step{Who: "attacker on the WAN", Asks: "a connection to " + netip.AddrPortFrom(to, 5000).String(), Answer: silence(err), Packet: "-",
			OK: errors.Is(err, ErrSilence)})
		askCtx, cancel := context.WithTimeout(ctx, doubt)
		_, err = s.net.Internet.Exchange(askCtx, to, []byte{0, 0})
		cancel()
		s.tell(Step{Who: "attacker on the WAN", Asks: "an answer from " + netip.AddrPortFrom(to, 5351).String(), Answer: silence(err), Packet: "-",
			OK: errors.Is(err, ErrSilence)})
	}
}

func (s *story) goodbye(ctx context.Context) {
	if s.err != nil {
		return
	}
	c := s.point(ctx, "console", IGD1, WANIP1)
	callCtx, cancel := context.WithTimeout(ctx, answer)
	err := c.Delete(callCtx, 3074, "UDP")
	cancel()
	arrived := s.knock(ctx, "UDP", netip.AddrPortFrom(GatewayWAN, 3074), c.Host, 3074, doubt)
	step := Step{Who: "console", Asks: "3074/udp to be closed", Answer: answered(err), Reason: explained(err), Packet: packetWord(arrived), OK: err == nil && !arrived}
	if err == nil {
		step.Answer = "closed"
	}
	s.tell(step)
}

func (s *story) stop(d *Daemon) {
	if s.err != nil {
		return
	}
	step := Step{Who: "owner", Asks: "the daemon to stop", Packet: "-"}
	if err := d.Stop(); err != nil {
		step.Answer = err.Error()
		s.tell(step)
		return
	}
	tables, err := s.net.Tables()
	if err != nil {
		s.err = err
		return
	}
	step.Answer = "gone, with its table"
	if slices.Contains(tables, "inet portcullis") {
		step.Answer = "its table is still there"
	}
	step.OK = slices.Equal(tables, []string{"inet hostfw"})
	s.tell(step)
}

func answered(err error) string {
	if err == nil {
		return "granted"
	}
	var refusal *UPnPError
	if errors.As(err, &refusal) {
		return fmt.Sprintf("refused (%d)", refusal.Code)
	}
	return err.Error() // a Refusal says it in the same words
}

// explained returns the gateway's own sentence, without the code's standard name.
func explained(err error) string {
	var refusal *UPnPError
	if !errors.As(err, &refusal) {
		return ""
	}
	_, sentence, found := strings.Cut(refusal.Description, ": ")
	if !found {
		return refusal.Description
	}
	return sentence
}

func silence(err error) string {
	if errors.Is(err, ErrSilence) {
		return "no answer"
	}
	return "an answer"
}

func packetWord(arrived bool) string {
	if arrived {
		return "arrived"
	}
	return "did not arrive"
}

func lower(protocol string) string {
	if protocol == "TCP" {
		return "tcp"
	}
	return "udp"
}
