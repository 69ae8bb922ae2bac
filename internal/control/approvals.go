package control

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"portcullis/internal/http1"
	"portcullis/portmap"
)

// Asked is what the server needs where the owner is asked.
type Asked interface {
	Pending() []Pending
	Approvals() []Approval
	// Approve and Deny have an answer hold, and return it with the mappings that it closed.
	Approve(context.Context, Answer) (Approval, error)
	Deny(context.Context, Answer) (Approval, error)
	Revoke(ctx context.Context, id uint64) (Withdrawn, error)
}

// Pending is a port of a device that was refused until the owner has answered.
type Pending struct {
	ID           uint64 `json:"id"`
	Protocol     string `json:"protocol"`
	Family       int    `json:"family"`        // 4 or 6
	ExternalPort uint16 `json:"external_port"` // 0: any
	InternalPort uint16 `json:"internal_port"`
	InternalIP   string `json:"internal_ip"`
	Interface    string `json:"interface"`
	ClientMAC    string `json:"client_mac"`
	ClientHost   string `json:"client_host"`
	Vendor       string `json:"vendor"`  // of the device, as its MAC address says; "": not known
	Service      string `json:"service"` // what the port is usually for, "": not known
	Via          string `json:"via"`
	Description  string `json:"description"` // the device's own words
	Rule         string `json:"rule"`        // that says "ask"; "": policy.default
	Count        uint64 `json:"count"`
	First        string `json:"first"` // RFC 3339
	Last         string `json:"last"`
}

// Approval is what the owner has said about what a device asks for.
type Approval struct {
	ID           uint64  `json:"id"`
	Decision     string  `json:"decision"` // approve or deny
	ClientMAC    string  `json:"client_mac"`
	ClientIP     string  `json:"client_ip"` // as it had asked; whom it is about where there is no MAC address
	ClientHost   string  `json:"client_host"`
	Interface    string  `json:"interface"`
	Protocol     string  `json:"protocol"`      // "": both
	InternalPort uint16  `json:"internal_port"` // 0: any
	Until        *string `json:"until"`         // RFC 3339; nil: for good
	Once         bool    `json:"once"`          // for one mapping, until that ends
	Used         bool    `json:"used"`          // with once: there is that mapping
	Via          string  `json:"via"`
	Description  string  `json:"description"`
	Rule         string  `json:"rule"`
	Created      string  `json:"created"` // RFC 3339

	Closed []Revoked `json:"closed,omitempty"` // mappings that it closed, in the answer to POST
}

// NewApproval returns the JSON form of an answer that a client's request led to.
func NewApproval(a *portmap.Answer, c *portmap.Client, asked *portmap.Mapping, made time.Time) Approval {
	p := Approval{
		ID: a.ID, Decision: "deny", ClientMAC: c.MAC.String(), ClientIP: address(c.Addr), ClientHost: c.Name, Interface: a.Device.Interface,
		InternalPort: a.Port, Once: a.Once, Used: a.Mapping != 0, Via: c.Via.String(), Description: asked.Description, Rule: asked.Rule,
		Created: made.UTC().Format(time.RFC3339),
	}
	if a.Allow {
		p.Decision = "approve"
	}
	if a.Transport != 0 {
		p.Protocol = a.Transport.String()
	}
	if !a.Until.IsZero() {
		until := a.Until.UTC().Format(time.RFC3339)
		p.Until = &until
	}
	return p
}

// Answer is the body of POST /v1/approve and /v1/deny.
type Answer struct {
	ID uint64 `json:"id"` // of what waits, or of an earlier answer
	// For is how long, as "90m" or "7d"; "once": for one mapping, until that ends; "": for good.
	// What is denied is so for good.
	For    string `json:"for,omitempty"`
	Device bool   `json:"device,omitempty"` // about all that the device asks for

	Duration time.Duration `json:"-"` // For, where it is one
	Once     bool          `json:"-"` // likewise
}

// Withdrawal is the body of POST /v1/revoke.
type Withdrawal struct {
	ID uint64 `json:"id"`
}

// Withdrawn is the answer to it.
type Withdrawn struct {
	Closed []Revoked `json:"closed"` // mappings that had stood by it
}

// Pending asks what waits for the owner, the latest first.
func (c *Client) Pending(ctx context.Context) ([]Pending, error) {
	var list []Pending
	return list, c.call(ctx, http1.Get, "/v1/pending", nil, &list)
}

// Approvals asks what the owner has said that holds, the latest first.
func (c *Client) Approvals(ctx context.Context) ([]Approval, error) {
	var list []Approval
	return list, c.call(ctx, http1.Get, "/v1/approvals", nil, &list)
}

// Approve says yes.
func (c *Client) Approve(ctx context.Context, a Answer) (Approval, error) {
	var made Approval
	return made, c.call(ctx, http1.Post, "/v1/approve", a, &made)
}

// Deny says no.
func (c *Client) Deny(ctx context.Context, a Answer) (Approval, error) {
	var made Approval
	return made, c.call(ctx, http1.Post, "/v1/deny", a, &made)
}

// Revoke takes an answer back.
func (c *Client) Revoke(ctx context.Context, id uint64) (Withdrawn, error) {
	var done Withdrawn
	return done, c.call(ctx, http1.Post, "/v1/revoke", Withdrawal{id}, &done)
}

func (s *Server) pending(context.Context, *http1.Request) *http1.Response {
	return reply(s.cfg.Asked.Pending())
}

func (s *Server) approvals(context.Context, *http1.Request) *http1.Response {
	return reply(s.cfg.Asked.Approvals())
}

func (s *Server) approve(ctx context.Context, r *http1.Request) *http1.Response {
	return s.answer(ctx, r, s.cfg.Asked.Approve, false)
}

func (s *Server) deny(ctx context.Context, r *http1.Request) *http1.Response {
	return s.answer(ctx, r, s.cfg.Asked.Deny, true)
}

// answer reads what the owner says, and has it hold.
func (s *Server) answer(ctx context.Context, r *http1.Request, say func(context.Context, Answer) (Approval, error), forGood bool) *http1.Response {
	var a Answer
	err := decode(r, &a)
	if err == nil {
		err = a.read()
	}
	if err == nil && forGood && a.For != "" {
		err = errors.New("what is denied is denied until that is revoked")
	}
	if err != nil {
		return fail(http1.BadRequest, "bad-request", err.Error())
	}
	made, err := say(ctx, a)
	if err != nil {
		return answerFailed(err)
	}
	return reply(made)
}

func (s *Server) revoke(ctx context.Context, r *http1.Request) *http1.Response {
	var w Withdrawal
	if err := decode(r, &w); err != nil {
		return fail(http1.BadRequest, "bad-request", err.Error())
	}
	done, err := s.cfg.Asked.Revoke(ctx, w.ID)
	if err != nil {
		return answerFailed(err)
	}
	return reply(done)
}

// AnswerError is why an answer does not hold, or not as it should.
type AnswerError struct {
	Reason string // of a Failure: no-such-request, not-stored, too-many, bad-request
	Err    error
}

// Error returns the sentence.
func (e *AnswerError) Error() string { return e.Err.Error() }

func answerFailed(err error) *http1.Response {
	var e *AnswerError
	if !errors.As(err, &e) {
		return fail(http1.InternalServerError, portmap.ReasonOf(err).String(), err.Error())
	}
	status := http1.Conflict
	switch e.Reason {
	case "no-such-request":
		status = http1.NotFound
	case "bad-request":
		status = http1.BadRequest
	case "not-stored":
		status = http1.InternalServerError
	}
	return fail(status, e.Reason, e.Error())
}

// maxFor is the longest time but for good.
const maxFor = 365 * 24 * time.Hour

// read takes in For.
func (a *Answer) read() error {
	switch a.For {
	case "":
		return nil
	case "once":
		a.Once = true
		return nil
	}
	d, err := time.ParseDuration(a.For)
	if days, found := strings.CutSuffix(a.For, "d"); found {
		var n uint64
		n, err = strconv.ParseUint(days, 10, 16)
		d = time.Duration(n) * 24 * time.Hour // #nosec G115 -- of 16 bits
	}
	if err != nil || d < time.Second || d > maxFor || d%time.Second != 0 {
		return fmt.Errorf("%.40q is not a time: once, or 90m, 24h, 7d, up to a year", a.For)
	}
	a.Duration = d
	return nil
}
