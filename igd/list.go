package igd

import (
	"math"

	"portcullis/internal/xml1"
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
	if !c.client.Addr.Is4() { // it has pinholes
		return nil, fail(codeMappingNotFound)
	}
	most := math.MaxUint16
	if n := int(c.number("NewNumberOfPorts")); n != 0 {
		most = n
	}
	list, n, err := c.list(portmap.PortRange{First: first, Last: last}, most)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, fail(codeMappingNotFound)
	}
	return []string{list}, nil
}

// list writes the document of WANIPConnection:2 section 2.3.27, with the child elements
// of its sample (CHOICE-5), of n mappings: most, or as many as there are and find room.
func (c *call) list(ports portmap.PortRange, most int) (list string, n int, err error) {
	b := []byte(listHead)
	for more := true; more; {
		page, err := c.device.mapper.OwnPorts(c.ctx, c.client.ID(), c.transport(), ports, n, min(portmap.MaxPage, most-n))
		if err != nil {
			return "", 0, err
		}
		more = len(page.Mappings) > 0
		for i := range page.Mappings {
			whole := c.appendEntry(b, &page.Mappings[i])
			if len(whole)+len(listTail) > listLimit {
				more = false
				break
			}
			b = whole
			n++
		}
		more = more && n < min(most, page.Count)
	}
	return string(append(b, listTail...)), n, nil
}

func (c *call) appendEntry(b []byte, m *portmap.Mapping) []byte {
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
	b = append(b, "<p:PortMappingEntry>"...)
	for _, f := range fields {
		for _, part := range [...]string{"<p:", f.name, ">", xml1.Escape(f.value), "</p:", f.name, ">"} {
			b = append(b, part...)
		}
	}
	return append(b, "</p:PortMappingEntry>"...)
}
