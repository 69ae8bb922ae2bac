package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// six is what the story tells of IPv6: a pinhole by UPnP and one by PCP, a
// neighbour's that is refused, and what nobody asked for.
func (s *story) six(ctx context.Context) {
	if s.err != nil || !s.net.HasIPv6() {
		return
	}
	laptop, phone, malware := s.net.Host("laptop"), s.net.Host("phone"), s.net.Host("malware")
	s.pinhole(ctx, "laptop (IPv6)", "22000/tcp for its backup", laptop, "TCP", 22000, true, func(ctx context.Context) error {
		return s.addPinhole(ctx, laptop, Pinhole{Protocol: "TCP", Port: 22000, Lease: time.Hour})
	})
	s.pinhole(ctx, "phone (PCP, IPv6)", "41641/udp for a VPN", phone, "UDP", 41641, true, func(ctx context.Context) error {
		got, err := phone.Map(ctx, MapRequest{
			Gateway: GatewayLinkLocal, Source: phone.Addr6, Protocol: "UDP", Internal: 41641, Suggested: 41641, Lease: time.Hour,
		})
		if want := netip.AddrPortFrom(phone.Addr6, 41641); err == nil && got.External != want {
			err = fmt.Errorf("the endpoint is said to be %s", got.External)
		}
		return err
	})
	s.pinhole(ctx, "malware (IPv6)", "the laptop's 5900/tcp", laptop, "TCP", 5900, false, func(ctx context.Context) error {
		return s.addPinhole(ctx, malware, Pinhole{Client: laptop.Addr6.String(), Protocol: "TCP", Port: 5900, Lease: time.Hour})
	})
	s.pinhole(ctx, "malware (PCP, IPv6)", "its own 445/tcp (SMB)", malware, "TCP", 445, false, func(ctx context.Context) error {
		_, err := malware.Map(ctx, MapRequest{
			Gateway: GatewayLinkLocal, Source: malware.Addr6, Protocol: "TCP", Internal: 445, Lease: time.Hour,
		})
		return err
	})
}

// addPinhole finds the gateway as Syncthing does, on the site, and asks.
func (s *story) addPinhole(ctx context.Context, h *Host, p Pinhole) error {
	c := NewControlPoint(h)
	c.Source = h.Addr6
	if err := c.FindBy(ctx, Search{Target: IGD2, To: Group6SiteLocal}, WANIPv6FC1); err != nil {
		return err
	}
	_, err := c.AddPinhole(ctx, p)
	return err
}

// pinhole asks for one, which must be granted or refused, and sends a packet from
// the Internet to where it leads.
func (s *story) pinhole(ctx context.Context, who, asks string, target *Host, protocol string, port uint16, granted bool, ask func(context.Context) error) {
	if s.err != nil {
		return
	}
	callCtx, cancel := context.WithTimeout(ctx, answer)
	err := ask(callCtx)
	cancel()
	wait := doubt
	if granted {
		wait = patience
	}
	arrived := s.knock(ctx, protocol, netip.AddrPortFrom(target.Addr6, port), target, port, wait)
	var upnp *UPnPError
	var pcp *Refusal
	refused := errors.As(err, &upnp) && upnp.Code == 606 || errors.As(err, &pcp) && pcp.Code == 2
	s.tell(Step{Who: who, Asks: asks, Answer: answered(err), Reason: explained(err), Packet: packetWord(arrived),
		OK: arrived == granted && (granted && err == nil || !granted && refused)})
}
