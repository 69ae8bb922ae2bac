package igd

import (
	"cmp"
	"encoding/xml"
	"sort"
	"strings"

	"portcullis/portmap"
)

// listLimit bounds the list in bytes, so that the whole reply stays under 64 kB
// (abuse case G13). A client that wants more asks again from the last port.
const listLimit = 60_000

const (
	listHead = `<p:PortMappingList xmlns:p="urn:schemas-upnp-org:gw:WANIPConnection"` +
		` xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"` +
		` xsi:schemaLocation="urn:schemas-upnp-org:gw:WANIPConnection` +
		` http://www.upnp.org/schemas/gw/WANIPConnection-v2.xsd">`
	listTail = `</p:PortMappingList>`
)

// getListOfPortMappings returns the client's own mappings in a range of external
// ports, in their order, as a document inside a string. NewManage is ignored.
func getListOfPortMappings(c *call) ([]string, error) {
	first, last, err := c.portRange()
	if err != nil {
		return nil, err
	}
	var found []portmap.Mapping
	for m := range c.own().All() {
		if port := m.ExternalPort; m.Transport == c.transport() && first <= port && port <= last {
			found = append(found, m)
		}
	}
	if len(found) == 0 {
		return nil, fail(codeMappingNotFound)
	}
	sort.Slice(found, func(i, j int) bool {
		a, b := &found[i], &found[j]
		return cmp.Or(cmp.Compare(a.ExternalPort, b.ExternalPort), cmp.Compare(a.ID, b.ID)) < 0
	})
	if n := int(c.number("NewNumberOfPorts")); n != 0 && n < len(found) {
		found = found[:n]
	}
	return []string{c.list(found)}, nil
}

// list writes the document of WANIPConnection:2 section 2.3.27, with the child elements
// of its sample (CHOICE-5).
func (c *call) list(mappings []portmap.Mapping) string {
	var b strings.Builder
	b.WriteString(listHead)
	for i := range mappings {
		e := c.listEntry(&mappings[i])
		if b.Len()+len(e)+len(listTail) > listLimit {
			break
		}
		b.WriteString(e)
	}
	b.WriteString(listTail)
	return b.String()
}

func (c *call) listEntry(m *portmap.Mapping) string {
	rest := c.entry(m)
	fields := [...]struct{ name, value string }{
		{"NewRemoteHost", remoteHost(m.Remotes)},
		{"NewExternalPort", portText(m.ExternalPort)},
		{"NewProtocol", protocol(m.Transport)},
		{"NewInternalPort", rest[0]},
		{"NewInternalClient", rest[1]},
		{"NewEnabled", rest[2]},
		{"NewDescription", rest[3]},
		{"NewLeaseTime", rest[4]},
	}
	var b strings.Builder
	b.WriteString("<p:PortMappingEntry>")
	for _, f := range fields {
		b.WriteString("<p:" + f.name + ">" + escape(f.value) + "</p:" + f.name + ">")
	}
	b.WriteString("</p:PortMappingEntry>")
	return b.String()
}

// escape writes s as XML text; what XML cannot carry becomes U+FFFD. ">" is
// escaped too, so that no text ends a CDATA section.
func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder does not fail
	return b.String()
}
