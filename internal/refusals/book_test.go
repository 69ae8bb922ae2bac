package refusals_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"portcullis/internal/refusals"
	"portcullis/portmap"
)

var noon = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

// asked is an event of a request that was refused, n seconds after noon.
func asked(n, device, port int) portmap.Event {
	client := portmap.Client{
		Addr: netip.AddrFrom4([4]byte{192, 168, byte(device >> 8), byte(device)}), Interface: "br-lan",
		MAC: portmap.MAC{2, 0, 0, 0, byte(device >> 8), byte(device)}, Via: portmap.ViaUPnP,
	}
	return portmap.Event{
		Time: noon.Add(time.Duration(n) * time.Second), Type: portmap.Denied, Reason: portmap.PrivilegedPort, Detail: "no", Client: client,
		Mapping: portmap.Mapping{Client: client, Transport: portmap.TCP, Internal: netip.AddrPortFrom(client.Addr, uint16(port)), ExternalPort: uint16(n)},
	}
}

// TestBook: the latest stands first, the same again is counted, and what is no refusal is
// not written down.
func TestBook(t *testing.T) {
	t.Parallel()
	var b refusals.Book
	if _, some := b.Last(); some || len(b.Devices()) != 0 {
		t.Error("something was refused before anything was")
	}
	b.Add(asked(0, 1, 80))
	b.Add(asked(1, 1, 22))
	for n := range 14 {
		b.Add(asked(2+n, 1, 80))
	}
	b.Add(asked(20, 2, 80))
	granted := asked(30, 3, 80)
	granted.Type = portmap.Granted
	b.Add(granted)
	all := b.Devices()
	if len(all) != 2 || all[0].Client.Addr.String() != "192.168.0.2" || len(all[1].Refused) != 2 {
		t.Fatalf("%+v", all)
	}
	if r := all[1].Refused[0]; r.Count != 15 || r.Request.Internal.Port() != 80 || r.Request.ExternalPort != 15 || !r.Time.Equal(noon.Add(15*time.Second)) {
		t.Errorf("%+v", r)
	}
	if last, some := b.Last(); !some || last.Request.Client.Addr != all[0].Client.Addr {
		t.Errorf("the last is %+v", last)
	}
	all[1].Refused[0].Count = 0
	if b.Devices()[1].Refused[0].Count != 15 {
		t.Error("the copy is none")
	}
}

// TestFlood: a device that asks for every port pushes out nobody else's, and is counted. Many
// that are made up push out each other, and as many as a LAN likes push out its own.
func TestFlood(t *testing.T) {
	t.Parallel()
	var b refusals.Book
	b.Add(asked(0, 7, 8080))
	for n := range 60000 {
		b.Add(asked(1, 9, 1+n))
	}
	for n := range 10000 {
		ev := asked(2+n, 1000+n, 80)
		ev.Client.Unheard = true
		b.Add(ev)
	}
	for n := range 200 { // of another LAN, and all of them answer
		ev := asked(20000+n, 20000+n, 80)
		ev.Client.Interface = "br-guest"
		b.Add(ev)
	}
	all := b.Devices()
	if len(all) != 64 {
		t.Errorf("%d devices", len(all))
	}
	found := 0
	for _, d := range all {
		switch d.Client.Addr.String() {
		case "192.168.0.7":
			found++
			if d.LeftOut != 0 || len(d.Refused) != 1 {
				t.Errorf("the first: %+v", d)
			}
		case "192.168.0.9":
			found++
			if d.LeftOut != 60000-8 || len(d.Refused) != 8 {
				t.Errorf("the loud one: %d left out, %d kept", d.LeftOut, len(d.Refused))
			}
		}
	}
	if found != 2 {
		t.Errorf("of the two real devices %d are left", found)
	}
}

// TestMemory: a full book, of the longest texts, is as large as its documentation says.
func TestMemory(t *testing.T) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	b := new(refusals.Book)
	for n := range 5000 {
		ev := asked(n, n%64, 1+n)
		ev.Detail = strings.Repeat("d", 2000)
		ev.Mapping.Description = fmt.Sprintf("%0256d", n)
		ev.Client.Name = fmt.Sprintf("%0255d", n)
		ev.Mapping.Remotes = make([]portmap.Remote, portmap.MaxRemotes)
		b.Add(ev)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if used := int64(after.HeapAlloc) - int64(before.HeapAlloc); used > 1200<<10 {
		t.Errorf("%d octets", used)
	} else {
		t.Log(used, "octets")
	}
	if n := len(b.Devices()); n != 64 {
		t.Errorf("%d devices", n)
	}
}

// TestOpenedAfterAll: what is open now is not listed as refused, whatever refused it; another
// port, another outside number, a narrower opening and another device take nothing away.
func TestOpenedAfterAll(t *testing.T) {
	t.Parallel()
	var b refusals.Book
	granted := func(n, device, port int) portmap.Event {
		ev := asked(n, device, port)
		ev.Type, ev.Client.Via = portmap.Granted, portmap.ViaPCP
		return ev
	}
	b.Add(asked(1, 1, 8080))
	waits := asked(1, 1, 8080)
	waits.Type, waits.Reason = portmap.Pending, portmap.NeedsApproval
	b.Add(waits)
	b.Add(asked(2, 1, 22))
	narrow := granted(1, 1, 8080)
	narrow.Mapping.Remotes = []portmap.Remote{{Prefix: netip.MustParsePrefix("198.51.100.0/24")}}
	for _, other := range []portmap.Event{granted(1, 1, 8081), granted(3, 1, 8080), granted(1, 2, 8080), narrow} {
		b.Add(other)
	}
	if all := b.Devices(); len(all) != 1 || len(all[0].Refused) != 3 {
		t.Fatalf("something else was opened, and remembered is %+v", all)
	}
	b.Add(granted(1, 1, 8080))
	if all := b.Devices(); len(all) != 1 || len(all[0].Refused) != 1 || all[0].Refused[0].Request.Internal.Port() != 22 {
		t.Fatalf("8080 is open, and remembered is %+v", all)
	}
	b.Add(asked(1, 2, 8080))
	by := granted(1, 2, 8080)
	by.Client = portmap.Owner(by.Mapping.Internal.Addr())
	by.Client.Via = portmap.ViaOwner
	b.Add(by)
	if all := b.Devices(); len(all) != 1 || all[0].Refused[0].Request.Internal.Port() != 22 {
		t.Fatalf("the owner has opened 8080 for that host, and remembered is %+v", all)
	}
	b.Add(granted(2, 1, 22))
	if last, some := b.Last(); some || len(b.Devices()) != 0 {
		t.Errorf("all is open, and the last is %+v", last)
	}
}

// TestOwnersOwn: who was refused at a prompt has read it there; he is no device.
func TestOwnersOwn(t *testing.T) {
	t.Parallel()
	var b refusals.Book
	ev := asked(1, 1, 445)
	ev.Client = portmap.Owner(ev.Mapping.Internal.Addr())
	ev.Client.Via = portmap.ViaOwner
	b.Add(ev)
	if all := b.Devices(); len(all) != 0 {
		t.Errorf("it is listed: %+v", all)
	}
}

// TestAnsweredSince: what an answer refused, or what had to be answered first, is not listed when
// the owner has said something else; what another answer or a rule refuses stays, as does what
// waits where he has approved it, for it is opened when the device asks again.
func TestAnsweredSince(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		said  portmap.EventType
		about portmap.Answer // Device is added
		left  int            // of four
	}{
		"taken back, of a port":   {portmap.Withdrawn, portmap.Answer{Transport: portmap.TCP, Port: 80}, 2},
		"taken back, of all":      {portmap.Withdrawn, portmap.Answer{}, 1},
		"approved after all":      {portmap.Approved, portmap.Answer{Transport: portmap.TCP, Port: 80}, 3},
		"denied":                  {portmap.Refused, portmap.Answer{Transport: portmap.TCP, Port: 80}, 2},
		"about the other of both": {portmap.Withdrawn, portmap.Answer{Transport: portmap.UDP, Port: 80}, 4},
		"about another port":      {portmap.Withdrawn, portmap.Answer{Transport: portmap.TCP, Port: 82}, 4},
	} {
		var b refusals.Book
		for _, r := range []struct {
			port   int
			reason portmap.Reason
		}{{80, portmap.OwnerDenied}, {80, portmap.NeedsApproval}, {80, portmap.RuleDenied}, {81, portmap.OwnerDenied}} {
			ev := asked(1, 1, r.port)
			ev.Reason = r.reason
			b.Add(ev)
		}
		ev := asked(2, 1, 80)
		ev.Type, ev.Answer = c.said, c.about
		ev.Answer.Device = ev.Client.ID().Device()
		b.Add(ev)
		if got := len(b.Devices()[0].Refused); got != c.left {
			t.Errorf("%s: %d are listed, want %d", name, got, c.left)
		}
	}
}
