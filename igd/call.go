package igd

import (
	"context"
	"strings"
	"time"

	"portcullis/soap"
)

// call is one action on its way, with its arguments checked.
type call struct {
	visitor
	ctx     context.Context // of this request alone
	now     time.Time
	service *service
	version int // of the service, as the request names it
	args    []named
}

// named is an argument by its name; no action has more than a look can pass over.
type named struct {
	name string
	value
}

// value is an argument: its text, and its number where its type is one.
type value struct {
	text   string
	number uint32
}

func (c *call) text(name string) string   { return c.arg(name).text }
func (c *call) number(name string) uint32 { return c.arg(name).number }
func (c *call) port(name string) uint16   { return uint16(c.arg(name).number) } // #nosec G115 -- checked as ui2
func (c *call) true(name string) bool     { return c.arg(name).number == 1 }

func (c *call) arg(name string) value {
	for i := range c.args {
		if c.args[i].name == name {
			return c.args[i].value
		}
	}
	return value{}
}

// read checks the in arguments of an action against the table: 402 for what is
// missing or not of its type, for values outside the allowed list 402 under
// version 1 and 601 from version 2 (WANIPConnection:2 section 2.5.16). Other
// arguments are passed over (UDA 1.1 section 3.2.1).
func (c *call) read(a *action, msg *soap.Action) error {
	c.args = make([]named, 0, len(a.in))
	for _, in := range a.in {
		s, present := msg.Arg(in.name)
		if !present && !in.optional {
			return &fault{code: codeInvalidArgs, detail: in.name + " is missing"}
		}
		v, ok := in.parse(c.service.variable(in.variable), s)
		if !ok {
			return &fault{code: codeInvalidArgs, detail: in.name + " is not a valid value"}
		}
		c.args = append(c.args, named{in.name, v})
	}
	for i, in := range a.in {
		sv := c.service.variable(in.variable)
		if sv.permits(c.args[i].text) {
			continue
		}
		f := &fault{code: codeInvalidArgs, detail: in.name + " must be one of " + strings.Join(sv.allowed, ", ")}
		if c.version >= 2 {
			f.code = codeOutOfRange
		}
		return f
	}
	return nil
}

func (in argument) parse(v *variable, s string) (value, bool) {
	if in.wildcard && s == "*" {
		s = "0"
	}
	if in.protocol {
		s = protocolNumber(s)
	}
	switch v.kind {
	case ui2:
		n, err := soap.ParseUI2(s)
		return value{s, uint32(n)}, err == nil
	case ui4:
		n, err := soap.ParseUI4(s)
		return value{s, n}, err == nil
	case boolean:
		b, err := soap.ParseBoolean(s)
		if b {
			return value{s, 1}, err == nil
		}
		return value{s, 0}, err == nil
	}
	return value{text: s}, true
}

// permits reports whether s is in the allowed list. It is compared whole: "TCP "
// is not TCP (abuse case B7).
func (v *variable) permits(s string) bool {
	if v.allowed == nil {
		return true
	}
	for _, a := range v.allowed {
		if s == a || v.anyCase && strings.EqualFold(s, a) {
			return true
		}
	}
	return false
}
