package igd

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"portcullis/internal/slog"
	"portcullis/portmap"
)

type noMapper struct{ portmap.Reader }

func (noMapper) Map(context.Context, portmap.Request) (portmap.Mapping, error) {
	return portmap.Mapping{}, nil
}

func (noMapper) Unmap(context.Context, portmap.Selector) ([]portmap.Mapping, error) { return nil, nil }

type noWAN struct{}

func (noWAN) Status() WANStatus { return WANStatus{} }

func noIdentify(string, netip.Addr) (portmap.Client, error) { return portmap.Client{}, nil }

func buildDevice(t *testing.T, root *device) *Device {
	t.Helper()
	d, err := build(Config{
		Mapper: noMapper{portmap.Reader{Now: portmap.NewTable}}, WAN: noWAN{}, Identify: noIdentify,
		UUID: "6ba7b810-9dad-11d1-80b4-00c04fd430c8", Path: "00112233445566778899aabb", Log: slog.New(slog.DiscardHandler),
	}, root)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestServiceOfVersion2 adds a service that only gateways of version 2 have, as
// one entry of the table, and looks where it shows.
func TestServiceOfVersion2(t *testing.T) {
	t.Parallel()
	root := tree(false)
	c := root.embedded.embedded
	c.services = append(c.services, &service{name: "WANNew", id: "WANNew1", latest: 1, igd: 2})
	d := buildDevice(t, root)
	for version, want := range map[int]bool{1: false, 2: true} {
		if got := strings.Contains(d.rootDocument(version), "WANNew:1"); got != want {
			t.Errorf("description of version %d has it: %v", version, got)
		}
		if _, got := d.resources[d.path(version, c.services[2], controlFile)]; got != want {
			t.Errorf("version %d controls it: %v", version, got)
		}
	}
	targets := d.Targets()
	want := Target{Type: servicePrefix + "WANNew", MaxVersion: 1, UUID: d.uuid(2), Tree: 2}
	if got := targets[len(targets)-1]; got != want {
		t.Errorf("discovery has %+v, want %+v", got, want)
	}
}

// TestTable looks for slips that the documents cannot show.
func TestTable(t *testing.T) {
	t.Parallel()
	for _, s := range buildDevice(t, tree(true)).services {
		for _, a := range s.actions {
			if a.do == nil {
				t.Errorf("%s: %s does nothing", s.name, a.name)
			}
			for _, arg := range append(append([]argument(nil), a.in...), a.out...) {
				v := s.variable(arg.variable)
				if v == nil || v.since > max(1, a.since) {
					t.Errorf("%s: %s of %s relates to no variable of its version", s.name, arg.name, a.name)
				}
			}
		}
		for _, v := range s.variables {
			if needs := v.evented != never || v.queried; needs != (v.value != nil) {
				t.Errorf("%s: %s has a value: %v", s.name, v.name, v.value != nil)
			}
		}
	}
}

// TestWithoutNotifier: what is announced is what works, so without eventing no
// event URL is announced and no variable is evented.
func TestWithoutNotifier(t *testing.T) {
	t.Parallel()
	d := buildDevice(t, tree(true))
	for _, igd := range igdVersions {
		if doc := d.rootDocument(igd); !strings.Contains(doc, "<eventSubURL></eventSubURL>") || strings.Contains(doc, "/"+eventFile+"<") {
			t.Errorf("version %d announces an event URL", igd)
		}
		for _, s := range d.services {
			if strings.Contains(d.serviceDocument(s, igd), `sendEvents="yes"`) {
				t.Errorf("version %d of %s announces events", igd, s.name)
			}
			if _, there := d.resources[d.path(igd, s, eventFile)]; there {
				t.Errorf("version %d of %s has an event URL", igd, s.name)
			}
		}
	}
}

func TestNumbers(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for id, c := range map[string]struct{ got, want string }{
		"lease/for ever":        {lease(&portmap.Mapping{}, 2, now), "0"},
		"lease/endless":         {lease(&portmap.Mapping{Endless: true, Expires: now.Add(time.Hour)}, 2, now), "3600"},
		"lease/endless, old":    {lease(&portmap.Mapping{Endless: true, Expires: now.Add(time.Hour)}, 1, now), "0"},
		"lease/UPnP's own":      {lease(shorter(time.Minute, now), 2, now), "60"},
		"lease/nearly over":     {lease(&portmap.Mapping{Expires: now.Add(time.Millisecond)}, 2, now), "1"},
		"lease/over":            {lease(&portmap.Mapping{Expires: now.Add(-time.Hour)}, 2, now), "1"},
		"lease/rounded up":      {lease(&portmap.Mapping{Expires: now.Add(1001 * time.Millisecond)}, 2, now), "2"},
		"lease/beyond ui4":      {lease(&portmap.Mapping{Expires: now.Add(1 << 62)}, 2, now), "4294967295"},
		"uptime/not known":      {uptime(time.Time{}, now), "0"},
		"uptime/in the future":  {uptime(now.Add(time.Hour), now), "0"},
		"uptime/beyond ui4":     {uptime(now.Add(-1<<62), now), "4294967295"},
		"description/short":     {cut("abc", 3), "abc"},
		"description/cut":       {cut("abcd", 3), "abc"},
		"description/character": {cut("abä", 3), "ab"},
		"description/bytes":     {cut("\x80\x80\x80\x80", 3), ""},
	} {
		if c.got != c.want {
			t.Errorf("%s: %q, want %q", id, c.got, c.want)
		}
	}
}

// shorter returns a mapping whose UPnP lease ends before its PCP lease.
func shorter(d time.Duration, now time.Time) *portmap.Mapping {
	m := &portmap.Mapping{Expires: now.Add(time.Hour), Claims: portmap.Vias(0).With(portmap.ViaUPnP).With(portmap.ViaPCP)}
	m.Leases.Set(portmap.ViaUPnP, portmap.Lease{Granted: d, Ends: now.Add(d)})
	return m
}
