package igd_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"portcullis/portmap"
)

// deaf is a gate whose questions get no answer.
type deaf struct{ witness }

var errDeaf = errors.New("secret of the wall")

func (*deaf) Own(context.Context, portmap.ClientID, int, int) (portmap.Page, error) {
	return portmap.Page{}, errDeaf
}

func (*deaf) OwnPorts(context.Context, portmap.ClientID, portmap.Transport, portmap.PortRange, int, int) (portmap.Page, error) {
	return portmap.Page{}, errDeaf
}

func (*deaf) External(context.Context, portmap.Transport, uint16, []portmap.Remote) (portmap.Mapping, error) {
	return portmap.Mapping{}, errDeaf
}

func (*deaf) Pinhole(context.Context, uint16) (portmap.Mapping, error) {
	return portmap.Mapping{}, errDeaf
}

// TestNoAnswer: where the mappings cannot be asked about, an action has failed: it never
// says that there are none, which would end a client's list of its ports. Nothing is
// asked of the engine then, and an event leaves the numbers out.
func TestNoAnswer(t *testing.T) {
	t.Parallel()
	gate := &deaf{}
	l := &lan{t: t, wan: goodWAN()}
	n := &notifier{}
	cfg := config(gate, l.wan)
	cfg.Notifier = n
	l.serve(cfg)
	for action, args := range map[string][]string{
		"GetGenericPortMappingEntry": {"NewPortMappingIndex", "0"}, "GetSpecificPortMappingEntry": key("6000", "UDP"),
		"GetListOfPortMappings": span("0", "65535"), "AddAnyPortMapping": mapping(hostA),
	} {
		if r := l.call(hostA, ip2, action, args...); r.Code != 501 || r.Description != "Action Failed" {
			t.Errorf("%s: %d %q", action, r.Code, r.Description)
		}
	}
	for action, args := range map[string][]string{
		"UpdatePinhole": {"UniqueID", "7", "NewLeaseTime", "60"}, "DeletePinhole": {"UniqueID", "7"}, "GetPinholePackets": {"UniqueID", "7"},
	} {
		if r := l.call(sixA, six1, action, args...); r.Code != 501 {
			t.Errorf("%s: %d %q", action, r.Code, r.Description)
		}
	}
	if len(gate.maps)+len(gate.unmaps) > 0 {
		t.Errorf("asked for %v, %v", gate.maps, gate.unmaps)
	}
	if r := l.do(hostA, "SUBSCRIBE", l.url(2, "WANIPConnection", "event"), ""); r.StatusCode != 200 {
		t.Fatal(r.Status)
	}
	var names []string
	for _, p := range n.subs[0].initial() {
		names = append(names, p.Name)
	}
	if !slices.Contains(names, "ConnectionStatus") || slices.Contains(names, "SystemUpdateID") || slices.Contains(names, "PortMappingNumberOfEntries") {
		t.Errorf("the first event has %q", names)
	}
}
