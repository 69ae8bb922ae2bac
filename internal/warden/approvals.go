package warden

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"portcullis/internal/approvals"
	"portcullis/internal/control"
	"portcullis/policy"
	"portcullis/portmap"
)

// answerTimeout bounds how long the firewall may take to close what is not allowed any more.
const answerTimeout = 10 * time.Second

// asked is what the owner is asked, and says, for the control socket: nobody else has it.
type asked struct{ warden *Warden }

// Pending implements control.Asked.
func (o asked) Pending() []control.Pending {
	waiting := o.warden.approvals.Waiting()
	list := make([]control.Pending, len(waiting))
	macs := make([]portmap.MAC, len(waiting))
	for i := range waiting {
		macs[i] = waiting[i].Request.Client.MAC
	}
	vendor := o.warden.vendors.look(macs)
	for i := range waiting {
		q := &waiting[i].Request
		c := &q.Client
		list[i] = control.Pending{
			ID: waiting[i].ID, Protocol: q.Transport.String(), Family: 4, ExternalPort: q.ExternalPort, InternalPort: q.Internal.Port(),
			InternalIP: q.Internal.Addr().String(), Interface: c.Interface, ClientMAC: c.MAC.String(), ClientHost: cmp.Or(o.warden.host(c), c.Name),
			Vendor: vendor(c.MAC), Service: policy.Service(q.Transport, q.Internal.Port()), Via: c.Via.String(), Description: q.Description, Rule: waiting[i].Rule,
			Count: waiting[i].Count, First: waiting[i].First.UTC().Format(time.RFC3339), Last: waiting[i].Last.UTC().Format(time.RFC3339),
		}
		if q.Kind == portmap.Pinhole6 {
			list[i].Family = 6
		}
	}
	return list
}

// Approvals implements control.Asked.
func (o asked) Approvals() []control.Approval {
	said := o.warden.approvals.List()
	list := make([]control.Approval, len(said))
	for i := range said {
		list[i] = o.said(&said[i])
	}
	return list
}

func (o asked) said(a *approvals.Answer) control.Approval {
	c := a.Client
	c.Name = cmp.Or(o.warden.host(&c), c.Name)
	return control.NewApproval(&a.Answer, &c, &portmap.Mapping{Description: a.Description, Rule: a.Rule}, a.Made)
}

// Approve implements control.Asked.
func (o asked) Approve(ctx context.Context, a control.Answer) (control.Approval, error) {
	return o.answer(ctx, approvals.Reply{ID: a.ID, Allow: true, For: a.Duration, Once: a.Once, Device: a.Device})
}

// Deny implements control.Asked.
func (o asked) Deny(ctx context.Context, a control.Answer) (control.Approval, error) {
	return o.answer(ctx, approvals.Reply{ID: a.ID, Device: a.Device})
}

// answer has a reply hold. Who hangs up has it done all the same.
func (o asked) answer(ctx context.Context, r approvals.Reply) (control.Approval, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTimeout)
	defer cancel()
	a, closed, err := o.warden.approvals.Answer(ctx, r)
	if err != nil {
		return control.Approval{}, answerError(err)
	}
	made := o.said(&a)
	made.Closed = control.NewRevoked(closed)
	return made, nil
}

// Revoke implements control.Asked.
func (o asked) Revoke(ctx context.Context, id uint64) (control.Withdrawn, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTimeout)
	defer cancel()
	closed, err := o.warden.approvals.Revoke(ctx, id)
	if err != nil {
		return control.Withdrawn{}, answerError(err)
	}
	return control.Withdrawn{Closed: control.NewRevoked(closed)}, nil
}

func answerError(err error) error {
	reason := ""
	switch {
	case errors.Is(err, approvals.ErrNothing):
		reason = "no-such-request"
	case errors.Is(err, approvals.ErrTooMany):
		reason = "too-many"
	case errors.Is(err, approvals.ErrOnce):
		reason = "bad-request"
	case errors.As(err, new(*approvals.StoreError)):
		reason = "not-stored"
	default:
		return fmt.Errorf("this holds, but not all that it does not allow could be closed; say it again: %w", err)
	}
	return &control.AnswerError{Reason: reason, Err: err}
}
