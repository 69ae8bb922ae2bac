package igd

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"portcullis/internal/digest"
	"portcullis/internal/xml1"
)

// The texts of the description where its owner gives none. They name what this is, and
// nothing by which an attacker could choose his weapon: no serial number, no version, no
// address of an administration page (abuse case K6).
const (
	manufacturer     = "Portcullis"
	modelDescription = "Internet gateway"
	modelName        = "Portcullis"
)

// Bounds in characters, of UDA 1.1 section 2.3. It would have names of models be shorter than
// 32, and those of gateways are not.
const (
	maxText        = 63
	maxDescription = 127
	maxURL         = 255
)

// Product is what the description says of the gateway beside its name; a text that is empty is
// left out, or is ours where UPnP wants one.
type Product struct {
	Manufacturer, ManufacturerURL                      string
	ModelName, ModelNumber, ModelDescription, ModelURL string
	SerialNumber                                       string
	PresentationURL                                    string // of a page of the gateway's own
}

// bounded returns it with what UPnP wants, and no text longer than it may be. What is cut of a
// URL would lead elsewhere, so that one that is too long is left out.
func (p Product) bounded() Product {
	p.Manufacturer = cmp.Or(p.Manufacturer, manufacturer)
	p.ModelName = cmp.Or(p.ModelName, modelName)
	p.ModelDescription = cutRunes(cmp.Or(p.ModelDescription, modelDescription), maxDescription)
	for _, text := range []*string{&p.Manufacturer, &p.ModelName, &p.ModelNumber, &p.SerialNumber} {
		*text = cutRunes(*text, maxText)
	}
	for _, url := range []*string{&p.ManufacturerURL, &p.ModelURL, &p.PresentationURL} {
		if len(*url) > maxURL {
			*url = ""
		}
	}
	return p
}

const xmlHead = `<?xml version="1.0"?>` + "\n"

// documents returns every description document by its path, and the number that
// stands for this very set of them (configId, UDA 1.1 section 2.2: 0 to
// 16777215). The number is made from the documents, so it changes when one of
// them does; it is written into all of them last.
func (d *Device) documents() (docs map[string][]byte, configID uint32) {
	texts := make(map[string]string)
	var all []byte
	write := func(path, text string) {
		texts[path] = text
		all = fmt.Appendf(all, "%d %s %d %s\n", len(path), path, len(text), text)
	}
	for _, igd := range igdVersions {
		write(d.rootPath(igd), d.rootDocument(igd))
		for _, s := range d.services {
			if s.offered(igd) {
				write(d.path(igd, s, scpdFile), d.serviceDocument(s, igd))
			}
		}
	}
	sum := digest.Sum(all)
	configID = binary.BigEndian.Uint32(sum[:]) >> 8
	docs = make(map[string][]byte, len(texts))
	for path, text := range texts {
		docs[path] = []byte(strings.Replace(text, configMark, `"`+strconv.FormatUint(uint64(configID), 10)+`"`, 1))
	}
	return docs, configID
}

// configMark stands in the documents where the number will be. What the owner
// wrote cannot contain it, because quotes are escaped.
const configMark = `"configId"`

// specVersion: gateways of version 1 speak UDA 1.0, because clients of that time pass
// over a device that claims more.
func specVersion(igd int) string {
	return "<specVersion><major>1</major><minor>" + digit(igd-1) + "</minor></specVersion>\n"
}

func (d *Device) rootDocument(igd int) string {
	var b strings.Builder
	b.WriteString(xmlHead)
	b.WriteString(`<root xmlns="urn:schemas-upnp-org:device-1-0" configId=` + configMark + ">\n")
	b.WriteString(specVersion(igd))
	d.describe(&b, d.root, igd, 0)
	b.WriteString("</root>\n")
	return b.String()
}

// describe writes one device and those embedded in it; level counts from the
// root. The order of elements is that of UDA 1.1 section 2.3.
func (d *Device) describe(b *strings.Builder, dev *device, igd, level int) {
	b.WriteString("<device>\n")
	element(b, "deviceType", devicePrefix+dev.name+":"+digit(under(dev.latest, igd)))
	element(b, "friendlyName", d.friendlyName)
	element(b, "manufacturer", d.product.Manufacturer)
	optional(b, "manufacturerURL", d.product.ManufacturerURL)
	element(b, "modelDescription", d.product.ModelDescription)
	element(b, "modelName", d.product.ModelName)
	optional(b, "modelNumber", d.product.ModelNumber)
	optional(b, "modelURL", d.product.ModelURL)
	optional(b, "serialNumber", d.product.SerialNumber)
	element(b, "UDN", d.udns[level])
	b.WriteString("<serviceList>\n")
	for _, s := range dev.services {
		if s.offered(igd) {
			d.describeService(b, s, igd)
		}
	}
	b.WriteString("</serviceList>\n")
	if dev.embedded != nil {
		b.WriteString("<deviceList>\n")
		d.describe(b, dev.embedded, igd, level+1)
		b.WriteString("</deviceList>\n")
	}
	if level == 0 {
		optional(b, "presentationURL", d.product.PresentationURL)
	}
	b.WriteString("</device>\n")
}

func (d *Device) describeService(b *strings.Builder, s *service, igd int) {
	eventURL := ""
	if d.notifier != nil {
		eventURL = d.path(igd, s, eventFile)
	}
	b.WriteString("<service>\n")
	element(b, "serviceType", s.typeOf(under(s.latest, igd)))
	element(b, "serviceId", serviceIDPrefix+s.id)
	element(b, "SCPDURL", d.path(igd, s, scpdFile))
	element(b, "controlURL", d.path(igd, s, controlFile))
	element(b, "eventSubURL", eventURL)
	b.WriteString("</service>\n")
}

func (d *Device) serviceDocument(s *service, igd int) string {
	version := under(s.latest, igd)
	var b strings.Builder
	b.WriteString(xmlHead)
	b.WriteString(`<scpd xmlns="urn:schemas-upnp-org:service-1-0" configId=` + configMark + ">\n")
	b.WriteString(specVersion(igd))
	b.WriteString("<actionList>\n")
	for i := range s.actions {
		if s.actions[i].since <= version {
			describeAction(&b, &s.actions[i])
		}
	}
	b.WriteString("</actionList>\n<serviceStateTable>\n")
	for i := range s.variables {
		if s.variables[i].since <= version {
			d.describeVariable(&b, &s.variables[i], version)
		}
	}
	b.WriteString("</serviceStateTable>\n</scpd>\n")
	return b.String()
}

func describeAction(b *strings.Builder, a *action) {
	b.WriteString("<action>\n")
	element(b, "name", a.name)
	if len(a.in)+len(a.out) > 0 {
		b.WriteString("<argumentList>\n")
		describeArguments(b, a.in, "in")
		describeArguments(b, a.out, "out")
		b.WriteString("</argumentList>\n")
	}
	b.WriteString("</action>\n")
}

func describeArguments(b *strings.Builder, args []argument, direction string) {
	for _, a := range args {
		b.WriteString("<argument>\n")
		element(b, "name", a.name)
		element(b, "direction", direction)
		element(b, "relatedStateVariable", a.variable)
		b.WriteString("</argument>\n")
	}
}

func (d *Device) describeVariable(b *strings.Builder, v *variable, version int) {
	send := "no"
	if v.evented != never && d.notifier != nil {
		send = "yes"
	}
	b.WriteString(`<stateVariable sendEvents="` + send + `">` + "\n")
	element(b, "name", v.name)
	element(b, "dataType", string(v.kind))
	if v.allowed != nil {
		b.WriteString("<allowedValueList>\n")
		for _, a := range v.allowed {
			element(b, "allowedValue", a)
		}
		b.WriteString("</allowedValueList>\n")
	}
	if l := v.limits; l != nil && l.since <= version {
		b.WriteString("<allowedValueRange>\n")
		element(b, "minimum", strconv.FormatUint(uint64(l.min), 10))
		element(b, "maximum", strconv.FormatUint(uint64(l.max), 10))
		b.WriteString("</allowedValueRange>\n")
	}
	b.WriteString("</stateVariable>\n")
}

func optional(b *strings.Builder, name, value string) {
	if value != "" {
		element(b, name, value)
	}
}

func element(b *strings.Builder, name, value string) {
	b.WriteString("<" + name + ">" + xml1.Escape(value) + "</" + name + ">\n")
}
