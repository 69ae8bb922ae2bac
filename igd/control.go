package igd

import (
	"context"
	"errors"
	"strings"
	"time"

	"portcullis/internal/http1"
	"portcullis/internal/httpd"
	"portcullis/soap"
)

// patience is how long the engine may take over one action, from the moment on at which
// the request is whole, as httpd's time for the answer runs: less than that, so
// that an answer is always written.
const patience = 4 * time.Second

const _ = uint64(httpd.DefaultTimeout - patience - time.Second/2) // is not negative

// control performs one action (UDA 1.1 section 3; in the order of checks that
// docs/protocol-notes.md has). A client that goes away while the engine works changes
// nothing: some close their half of the connection as soon as they have sent the
// request.
func (h *Handler) control(r *http1.Request, s *service, v visitor) *http1.Response {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	header, status := envelope(r)
	if status != 0 {
		return http1.Empty(status)
	}
	msg, err := soap.Decode(header, r.Body)
	switch {
	case errors.Is(err, soap.ErrMalformed):
		return http1.Empty(http1.BadRequest)
	case errors.Is(err, soap.ErrVersion):
		return httpd.XML(http1.InternalServerError, soap.EncodeVersionMismatch())
	}
	c := &call{visitor: v, ctx: ctx, now: time.Now(), service: s}
	var reply []byte
	if err == nil {
		reply, err = c.perform(msg)
	}
	if err != nil {
		refused := c.refusal(err)
		h.device.log.Debug("action refused", "interface", h.iface, "client", v.client.Addr,
			"service", s.name, "code", refused.code.number, "detail", refused.detail)
		return httpd.XML(http1.InternalServerError, soap.EncodeFault(refused.code.number, refused.description()))
	}
	return httpd.XML(http1.OK, reply)
}

// envelope returns the SOAPAction header, or the HTTP status that refuses the request. A
// page in a browser cannot send the header without asking first, and is told no (abuse
// cases D2, D3); so a media type need not be there, which scripts with Python's requests
// leave out. One that is there must be XML's: forms and plain text are what a page may
// send unasked.
func envelope(r *http1.Request) (header string, status int) {
	headers := r.Header["Soapaction"]
	if len(headers) != 1 {
		return "", http1.BadRequest
	}
	if types := r.Header["Content-Type"]; len(types) > 0 {
		switch media, _, _ := strings.Cut(types[0], ";"); strings.ToLower(strings.TrimSpace(media)) {
		case "text/xml", "application/soap+xml":
		default:
			return "", http1.UnsupportedMediaType
		}
	}
	if len(r.Body) > soap.MaxBody {
		return "", http1.ContentTooLarge
	}
	return headers[0], 0
}

// queryType is the pseudo service of QueryStateVariable (UDA 1.0 section 3.3).
const queryType = "urn:schemas-upnp-org:control-1-0"

// perform does what msg asks, and returns the envelope of the reply.
func (c *call) perform(msg *soap.Action) ([]byte, error) {
	if msg.ServiceType == queryType && msg.Name == "QueryStateVariable" {
		return c.query(msg)
	}
	name, version := parseType(msg.ServiceType)
	if name != c.service.name || version < 1 || version > c.service.latest {
		return nil, fail(codeInvalidAction)
	}
	c.version = version
	a := c.service.action(msg.Name, version)
	if a == nil {
		return nil, fail(codeInvalidAction)
	}
	if err := c.read(a, msg); err != nil {
		return nil, err
	}
	values, err := a.do(c)
	if err != nil {
		return nil, err
	}
	return encode(msg, a, values), nil
}

// encode writes the reply of a success.
func encode(msg *soap.Action, a *action, values []string) []byte {
	out := make([]soap.Arg, len(a.out))
	for i := range a.out {
		out[i] = soap.Arg{Name: a.out[i].name, Value: values[i], CDATA: a.out[i].cdata}
	}
	return soap.EncodeResponse(msg.ServiceType, msg.Name, out)
}

// query answers QueryStateVariable, which UDA 1.0 had and an old desktop client
// still polls, for the variables it polls.
func (c *call) query(msg *soap.Action) ([]byte, error) {
	name, present := msg.Arg("varName")
	if !present {
		return nil, fail(codeInvalidArgs)
	}
	v := c.service.variable(strings.TrimSpace(name))
	if v == nil || !v.queried {
		return nil, fail(codeInvalidVar)
	}
	now, err := c.counts(c.ctx)
	if err != nil {
		return nil, err
	}
	return soap.EncodeResponse(msg.ServiceType, msg.Name, []soap.Arg{{Name: "return", Value: v.value(now)}}), nil
}

// refusal turns any error of an action into a fault.
func (c *call) refusal(err error) *fault {
	switch {
	case errors.Is(err, soap.ErrMismatch):
		return &fault{code: codeInvalidAction}
	case errors.Is(err, soap.ErrDuplicate):
		return &fault{code: codeInvalidArgs, detail: "an argument is given twice"}
	case errors.Is(err, soap.ErrTooLong) && c.service.noText:
		return &fault{code: codeInvalidArgs, detail: "an argument is too long for an address or a number"}
	case errors.Is(err, soap.ErrTooLong):
		return &fault{code: codeTooLong}
	}
	return c.service.faultOf(err, c.version)
}
