package pcp_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"portcullis/pcp"
	"portcullis/portmap"
)

// wantCodes is what each Reason becomes: in NAT-PMP, in PCP, and in PCP where only
// this external port would do.
var wantCodes = map[portmap.Reason]struct {
	natpmp, pcp, exact int
	seconds            int // of the PCP error
}{
	portmap.NotRequester:    {2, 2, 2, 1800},
	portmap.NotAHost:        {2, 2, 2, 1800},
	portmap.GatewayTarget:   {2, 2, 2, 1800},
	portmap.OffLink:         {2, 2, 2, 1800},
	portmap.BadTransport:    {2, 9, 9, 1800},
	portmap.BadPort:         {2, 3, 3, 1800},
	portmap.ForbiddenPort:   {2, 2, 2, 1800},
	portmap.PrivilegedPort:  {2, 2, 2, 1800},
	portmap.BadRemote:       {2, 5, 5, 1800},
	portmap.IdentityChanged: {2, 2, 11, 30},
	portmap.NotOwner:        {2, 2, 2, 1800},
	portmap.WrongNonce:      {2, 2, 2, 1800},
	portmap.TooManyRemotes:  {2, 13, 13, 1800},
	portmap.RuleDenied:      {2, 2, 2, 1800},
	portmap.DefaultDenied:   {2, 2, 2, 1800},
	portmap.NeedsApproval:   {2, 2, 2, 30},
	portmap.OwnerDenied:     {2, 2, 2, 1800},
	portmap.ClientQuota:     {4, 10, 10, 30},
	portmap.TotalQuota:      {4, 8, 8, 30},
	portmap.GrantRate:       {4, 10, 10, 30},
	portmap.PortTaken:       {4, 8, 11, 30},
	portmap.PortReserved:    {4, 8, 11, 30},
	portmap.PortInUse:       {4, 8, 11, 30},
	portmap.NoPorts:         {4, 8, 8, 30},
	portmap.NoAddress:       {3, 7, 7, 30},
	portmap.PrivateAddress:  {3, 7, 7, 30},
	portmap.UniqueLocal:     {2, 2, 2, 1800},
	portmap.AskedElsewhere:  {2, 2, 2, 1800},
	portmap.NoSuchMapping:   {2, 2, 2, 1800},
	portmap.FirewallFailed:  {4, 8, 8, 30},
	portmap.Busy:            {4, 8, 8, 30},
	portmap.Ended:           {2, 2, 2, 1800},
	portmap.Removed:         {2, 2, 2, 1800},
	portmap.Revoked:         {2, 2, 2, 1800},
}

// TestCodes walks every Reason through both tables.
func TestCodes(t *testing.T) {
	t.Parallel()
	if got, want := pcp.Refusals(), len(portmap.Reasons()); got != want || len(wantCodes) != want {
		t.Errorf("%d of %d reasons have codes, %d are expected", got, want, len(wantCodes))
	}
	for _, reason := range portmap.Reasons() {
		want := wantCodes[reason]
		err := &portmap.Error{Reason: reason}
		code, lasts, natpmp := pcp.CodeOf(err, false)
		exact, _, _ := pcp.CodeOf(err, true)
		if code != want.pcp || exact != want.exact || natpmp != want.natpmp || lasts != time.Duration(want.seconds)*time.Second {
			t.Errorf("%v: PCP %d for %v, exactly %d, NAT-PMP %d; want %+v", reason, code, lasts, exact, natpmp, want)
		}
		err.Left = 50 * time.Minute
		if _, lasts, _ := pcp.CodeOf(err, false); lasts != err.Left {
			t.Errorf("%v: lasts %v, is known to last %v", reason, lasts, err.Left)
		}
		err.External = true
		if exact, _, _ := pcp.CodeOf(err, true); exact != 11 {
			t.Errorf("%v of this external port only: %d", reason, exact)
		}
	}
	for _, err := range []error{errors.New("a failure of our own"), context.DeadlineExceeded} {
		if code, lasts, natpmp := pcp.CodeOf(err, false); code != 8 || natpmp != 4 || lasts != 30*time.Second {
			t.Errorf("%v: PCP %d for %v, NAT-PMP %d", err, code, lasts, natpmp)
		}
	}
}
