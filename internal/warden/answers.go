package warden

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"portcullis/config"
	"portcullis/internal/control"
	"portcullis/internal/netif"
	"portcullis/internal/refusals"
	"portcullis/policy"
	"portcullis/portmap"
)

// What follows answers the owner who asks why.

// writer writes the rules that would allow what was refused, for one answer: no two of them
// have the same name, and one that allows two requests is the same both times.
type writer struct{ rules, written []policy.Rule }

func (w *Warden) writer() *writer { return &writer{rules: w.now().Rules} }

// rule returns the text of the rule for a request.
func (w *writer) rule(r portmap.Request) string {
	rl := policy.RuleFor(r, slices.Concat(w.rules, w.written))
	for _, other := range w.written {
		again := rl
		again.Name = other.Name
		if text := config.RuleText(other); text == config.RuleText(again) {
			return text
		}
	}
	w.written = append(w.written, rl)
	return config.RuleText(rl)
}

// refused returns what was refused lately, with the rules that would allow it, or why it would
// be allowed by now.
func (w *Warden) refused(ctx context.Context) []control.RefusedDevice {
	devices, write := w.refusals.Devices(), w.writer()
	list := make([]control.RefusedDevice, len(devices))
	for i, d := range devices {
		d.Client.Name = cmp.Or(w.host(&d.Client), d.Client.Name)
		list[i] = control.RefusedDevice{Client: control.NewAsker(&d.Client), LeftOut: d.LeftOut, Refused: make([]control.Refused, len(d.Refused))}
		for j := range d.Refused {
			r := &d.Refused[j]
			by := w.byNow(ctx, r)
			r.NeedsRule = r.NeedsRule && by == ""
			list[i].Refused[j] = refusedJSON(r, write)
			list[i].Refused[j].AllowedBy = by
		}
	}
	return list
}

// byNow returns why a request that the owner's configuration or answer refused would be allowed
// by now; "" where it would not, or that cannot be told before ctx ends.
func (w *Warden) byNow(ctx context.Context, r *refusals.Refusal) string {
	if !r.NeedsRule && !byOwner(r.Reason) || ctx.Err() != nil {
		return ""
	}
	q := r.Request
	q.Lifetime = time.Hour // any
	v, err := w.engine.Explain(ctx, q)
	if err != nil || v.Err != nil {
		return ""
	}
	return allowedBy(v)
}

// byOwner reports whether the owner can change by other means than a rule what a reason is about.
func byOwner(r portmap.Reason) bool {
	return r == portmap.ClientQuota || r == portmap.TotalQuota || r == portmap.GrantRate || r == portmap.OwnerDenied
}

func refusedJSON(r *refusals.Refusal, write *writer) control.Refused {
	q := &r.Request
	c := control.Refused{
		Time: r.Time.UTC().Format(time.RFC3339), Count: r.Count,
		Protocol: q.Transport.String(), Family: 4, ExternalPort: q.ExternalPort,
		InternalIP: q.Internal.Addr().String(), InternalPort: q.Internal.Port(),
		Remote: portmap.RemotesString(q.Remotes), Via: q.Client.Via.String(), Description: q.Description,
		Verdict: control.Verdict{Action: portmap.Deny.String(), Reason: r.Reason.String(), Rule: r.Rule, Wall: r.Wall, Why: r.Detail},
	}
	if q.Kind == portmap.Pinhole6 {
		c.Family = 6
	}
	if r.Reason == portmap.NeedsApproval {
		c.Action = portmap.Ask.String()
	}
	if r.NeedsRule {
		c.Add, c.Above = write.rule(*q), r.Rule
	}
	return c
}

// lastRefused returns the last refusal, nil where there was none.
func (w *Warden) lastRefused() *control.Event {
	r, some := w.refusals.Last()
	if !some {
		return nil
	}
	q := r.Request
	ev := control.NewEvent(&portmap.Event{
		Time: r.Time, Type: portmap.Denied, Reason: r.Reason, Detail: r.Detail, Rule: r.Rule, Client: q.Client,
		Mapping: portmap.Mapping{Client: q.Client, Kind: q.Kind, Transport: q.Transport, Internal: q.Internal, ExternalPort: q.ExternalPort,
			Remotes: q.Remotes, Description: q.Description, Rule: r.Rule},
	})
	return &ev
}

// explain returns what the engine would make of a request. Nobody hears of it.
func (w *Warden) explain(ctx context.Context, q control.Query) (control.Explained, error) {
	if off := w.off(q.Request.Client.Via); off != "" {
		return control.Explained{}, control.NotServed(off + ", so nobody is answered")
	}
	client, note, err := w.find(ctx, q)
	if err != nil {
		return control.Explained{}, err
	}
	r := q.Request
	client.Via = r.Client.Via
	r.Client, r.Internal = client, netip.AddrPortFrom(client.Addr, q.Port)
	if client.Addr.Is6() {
		if r.Kind, r.ExternalPort = portmap.Pinhole6, 0; client.Via == portmap.ViaNATPMP {
			return control.Explained{}, refusal(portmap.NotAHost, "NAT-PMP is for IPv4 alone, and %s is an IPv6 address", client.Addr)
		}
	}
	v, err := w.engine.Explain(ctx, r)
	if err != nil {
		return control.Explained{}, err
	}
	return w.explained(r, v, note), nil
}

// explained returns a verdict for the owner.
func (w *Warden) explained(r portmap.Request, v portmap.Verdict, note string) control.Explained {
	e := control.Explained{
		Client: control.NewAsker(&r.Client), Protocol: r.Transport.String(), Family: 4,
		InternalPort: r.Internal.Port(), ExternalPort: r.ExternalPort, Note: note,
	}
	if r.Kind == portmap.Pinhole6 {
		e.Family, e.ExternalPort = 6, r.Internal.Port()
	}
	if v.Err == nil {
		m := control.NewMapping(v.Mapping, nil, time.Now())
		e.ExternalPort, e.ExpiresIn = m.ExternalPort, m.ExpiresIn
		e.Verdict = control.Verdict{Action: portmap.Allow.String(), Rule: v.Rule, Why: allowedBy(v)}
		return e
	}
	reason := portmap.ReasonOf(v.Err)
	if reason == portmap.NeedsApproval {
		if id := w.approvals.About(&r.Client, r.Transport, r.Internal.Port()); id != 0 {
			e.Pending = id
		}
	}
	e.Verdict = control.Verdict{Action: portmap.Deny.String(), Reason: reason.String(), Rule: v.Rule, Why: v.Err.Error()}
	if reason != v.Reason { // what refuses it came after the policy
		return e
	}
	if e.Wall = v.Wall; v.Action == portmap.Ask {
		e.Action = portmap.Ask.String()
	}
	if v.NeedsRule {
		e.Add, e.Above = w.writer().rule(r), v.Rule
	}
	return e
}

func asksFirst(rule string) string {
	if rule != "" {
		return fmt.Sprintf(`the rule %q says "ask"`, rule)
	}
	return `policy.default is "ask"`
}

func allowedBy(v portmap.Verdict) string {
	by := `no rule speaks of this and policy.default is "allow"`
	if v.Rule != "" {
		by = fmt.Sprintf("the rule %q allows this", v.Rule)
	}
	if v.Answer != nil {
		by = fmt.Sprintf("%s, and the owner has approved it (answer %d)", asksFirst(v.Rule), v.Answer.ID)
	}
	if v.Renewal {
		by += "; it is open already"
	}
	return by
}

// off returns why nobody is answered who speaks a protocol; "": he is.
func (w *Warden) off(v portmap.Via) string {
	switch {
	case v == portmap.ViaUPnP && !w.cfg.UPnP.Enabled:
		return "UPnP is off: [upnp] enabled = false"
	case v == portmap.ViaNATPMP && !w.cfg.PCP.NATPMP:
		return "NAT-PMP is off: [pcp] natpmp = false"
	case v == portmap.ViaPCP && !w.cfg.PCP.PCP:
		return "PCP is off: [pcp] pcp = false"
	case v != portmap.ViaUPnP && w.witness == nil:
		return "it cannot be seen which machine sends a datagram (NAT-PMP and PCP)"
	}
	return ""
}

// find returns the host that a question is about, and what could not be known of it.
func (w *Warden) find(ctx context.Context, q control.Query) (portmap.Client, string, error) {
	lans := w.LANs()
	if !q.Addr.IsValid() {
		return w.findMAC(ctx, lans, q.MAC)
	}
	for _, name := range slices.Sorted(maps.Keys(lans)) {
		if l := lans[name]; l.OnLink(q.Addr) {
			c, note := w.client(ctx, l, q.Addr)
			return c, note, nil
		}
	}
	return portmap.Client{}, "", refusal(portmap.OffLink, "%s is in no network that is served: %s", q.Addr, served(lans))
}

// findMAC looks for a device among the neighbours, and takes an IPv4 address of its before
// another: most of what asks for ports has one.
func (w *Warden) findMAC(ctx context.Context, lans map[string]netif.LAN, mac portmap.MAC) (portmap.Client, string, error) {
	for _, name := range slices.Sorted(maps.Keys(lans)) {
		var found netip.Addr
		l := lans[name]
		err := w.kernel.Neighbours(l.Index, func(a netip.Addr, s netif.Sighting) {
			if s.MAC == mac && l.OnLink(a) && !a.IsLinkLocalUnicast() && (!found.IsValid() || a.Less(found)) {
				found = a
			}
		})
		if err != nil {
			return portmap.Client{}, "", err
		}
		if found.IsValid() {
			c, note := w.client(ctx, l, found)
			return c, note, nil
		}
	}
	return portmap.Client{}, "", refusal(portmap.OffLink, "no address of %s is known now; name the device by its address", mac)
}

// client returns a host as its own request would show it.
func (w *Warden) client(ctx context.Context, l netif.LAN, a netip.Addr) (c portmap.Client, note string) {
	c = portmap.Client{Addr: a, Interface: l.Name}
	m, err := w.met(ctx, l, a)
	switch {
	case err == nil:
		c.MAC = m.own.MAC
		c.Unheard = c.MAC != portmap.MAC{} && !m.own.Answered && !w.Heard(c.MAC)
	case l.HasMAC(a):
		if c.MAC = w.lastMAC(l.Name, a); c.MAC == (portmap.MAC{}) {
			note = fmt.Sprintf("the MAC address of %s is not known now, so rules for a MAC address were not looked at", a)
		}
	}
	c.Name = w.host(&c)
	return c, note
}

// How long a host that the kernel does not know has to answer it.
const (
	meetWait = time.Second
	meetTick = 50 * time.Millisecond
)

// met is machine, which has the kernel ask for a host first that it does not know: who has
// been quiet for a while has been forgotten.
func (w *Warden) met(ctx context.Context, l netif.LAN, a netip.Addr) (machine, error) {
	m, err := w.machine(l, a)
	if err == nil || !l.HasMAC(a) || w.kernel.Resolve(l.Index, a) != nil {
		return m, err
	}
	ctx, cancel := context.WithTimeout(ctx, meetWait)
	defer cancel()
	tick := time.NewTicker(meetTick)
	defer tick.Stop()
	for err != nil {
		select {
		case <-ctx.Done():
			return m, err
		case <-tick.C:
			m, err = w.machine(l, a)
		}
	}
	return m, nil
}

// lastMAC returns which device asked from an address last, as far as that is remembered.
func (w *Warden) lastMAC(lan string, a netip.Addr) portmap.MAC {
	for m := range w.engine.Snapshot().All() {
		if m.Client.Addr == a && m.Client.Interface == lan {
			return m.Client.MAC
		}
	}
	for _, d := range w.refusals.Devices() {
		if d.Client.Addr == a && d.Client.Interface == lan {
			return d.Client.MAC
		}
	}
	return portmap.MAC{}
}

// served returns the networks of the LANs.
func served(lans map[string]netif.LAN) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(lans)) {
		for _, p := range lans[name].Prefixes {
			all = append(all, p.String())
		}
	}
	if len(all) == 0 {
		return "there is none yet"
	}
	return strings.Join(all, ", ")
}
