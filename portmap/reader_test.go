package portmap_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"portcullis/portmap"
)

// TestReader: a question is answered with the client's own mappings, a page at most, by
// age or by external port; one mapping is found by either of its ends.
func TestReader(t *testing.T) {
	t.Parallel()
	table := portmap.NewTable()
	client := func(last byte) portmap.Client {
		return portmap.Client{Addr: netip.AddrFrom4([4]byte{192, 168, 1, last}), MAC: portmap.MAC{2, last}, Interface: "lan", Via: portmap.ViaUPnP}
	}
	add := func(c portmap.Client, tr portmap.Transport, external, internal uint16, remotes ...portmap.Remote) {
		t.Helper()
		change, err := table.Plan(time.Now(), portmap.Request{
			Client: c, Transport: tr, Internal: netip.AddrPortFrom(c.Addr, internal), ExternalPort: external, Exact: true, Remotes: remotes,
		}, portmap.Decision{Action: portmap.Allow}, time.Hour, 0)
		if err != nil {
			t.Fatal(err)
		}
		table = table.Commit(change)
	}
	own, other := client(10), client(20)
	for i := range 40 { // the newest has the lowest port
		add(own, portmap.UDP, uint16(5040-i), uint16(5040-i))
	}
	add(own, portmap.TCP, 5020, 5020)
	add(other, portmap.UDP, 6000, 6000)
	only := portmap.Remote{Prefix: netip.MustParsePrefix("198.51.100.7/32")}
	add(own, portmap.UDP, 7000, 5001, only)

	r, ctx := portmap.Reader{Now: func() *portmap.Table { return table }}, t.Context()
	text := func(p portmap.Page, err error) string {
		if err != nil {
			return err.Error()
		}
		s := fmt.Sprint(p.Count)
		for _, m := range p.Mappings {
			s += fmt.Sprint(" ", m.ExternalPort)
		}
		return s
	}
	one := func(m portmap.Mapping, err error) string {
		if err != nil {
			return portmap.ReasonOf(err).String()
		}
		return m.String()
	}
	all := portmap.PortRange{First: 0, Last: 65535}
	for question, c := range map[string]struct{ got, want string }{
		"the oldest two":       {text(r.Own(ctx, own.ID(), 0, 2)), "42 5040 5039"},
		"the last":             {text(r.Own(ctx, own.ID(), 41, 2)), "42 7000"},
		"behind the last":      {text(r.Own(ctx, own.ID(), 42, 2)), "42"},
		"before the first":     {text(r.Own(ctx, own.ID(), -7, 1)), "42 5040"},
		"only how many":        {text(r.Own(ctx, own.ID(), 0, 0)), "42"},
		"less than none":       {text(r.Own(ctx, own.ID(), 0, -1)), "42"},
		"a host without any":   {text(r.Own(ctx, client(30).ID(), 0, 9)), "0"},
		"by port":              {text(r.OwnPorts(ctx, own.ID(), portmap.UDP, portmap.PortRange{First: 5002, Last: 5004}, 0, 9)), "3 5002 5003 5004"},
		"by port, from":        {text(r.OwnPorts(ctx, own.ID(), portmap.UDP, portmap.PortRange{First: 5002, Last: 5004}, 1, 1)), "3 5003"},
		"the other transport":  {text(r.OwnPorts(ctx, own.ID(), portmap.TCP, all, 0, 9)), "1 5020"},
		"another's are not":    {text(r.OwnPorts(ctx, own.ID(), portmap.UDP, portmap.PortRange{First: 6000, Last: 6000}, 0, 9)), "0"},
		"external":             {one(r.External(ctx, portmap.UDP, 6000, nil)), "udp 6000 -> 192.168.1.20:6000"},
		"external, restricted": {one(r.External(ctx, portmap.UDP, 7000, []portmap.Remote{only})), "udp 7000 -> 192.168.1.10:5001 from 198.51.100.7"},
		"external, wider":      {one(r.External(ctx, portmap.UDP, 7000, nil)), "no-such-mapping"},
		"internal":             {one(r.Internal(ctx, own.ID(), portmap.UDP, 5001, nil)), "udp 5001 -> 192.168.1.10:5001"},
		"internal, restricted": {one(r.Internal(ctx, own.ID(), portmap.UDP, 5001, []portmap.Remote{only})), "udp 7000 -> 192.168.1.10:5001 from 198.51.100.7"},
		"internal, another's":  {one(r.Internal(ctx, other.ID(), portmap.UDP, 5001, nil)), "no-such-mapping"},
		"no pinhole":           {one(r.Pinhole(ctx, 7)), "no-such-mapping"},
	} {
		if c.got != c.want {
			t.Errorf("%s: %s, want %s", question, c.got, c.want)
		}
	}
	for name, p := range map[string]func(from, n int) (portmap.Page, error){
		"by age":  func(from, n int) (portmap.Page, error) { return r.Own(ctx, own.ID(), from, n) },
		"by port": func(from, n int) (portmap.Page, error) { return r.OwnPorts(ctx, own.ID(), portmap.UDP, all, from, n) },
	} {
		if page, _ := p(0, 1<<30); len(page.Mappings) != portmap.MaxPage || page.Revision != table.Revision() {
			t.Errorf("%s: a page has %d mappings and revision %d", name, len(page.Mappings), page.Revision)
		}
	}
}
