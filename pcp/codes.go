package pcp

import (
	"errors"
	"time"

	"portcullis/portmap"
)

// code is a result code of PCP (RFC 6887 section 7.4).
type code uint8

const (
	success               code = 0
	unsuppVersion         code = 1
	notAuthorized         code = 2
	malformedRequest      code = 3
	unsuppOpcode          code = 4
	unsuppOption          code = 5
	malformedOption       code = 6
	networkFailure        code = 7
	noResources           code = 8
	unsuppProtocol        code = 9
	userExQuota           code = 10
	cannotProvideExternal code = 11
	addressMismatch       code = 12
	excessiveRemotePeers  code = 13
)

// result is a result code of NAT-PMP (RFC 6886 section 3.5).
type result uint16

const (
	resultOK             result = 0
	resultVersion        result = 1
	resultRefused        result = 2
	resultNetworkFailure result = 3
	resultNoResources    result = 4
	resultOpcode         result = 5
)

// How long an error lasts (RFC 6887 section 7.4).
const (
	longError  = 30 * time.Minute
	shortError = 30 * time.Second
)

// lifetime returns how long an error of the parser, which is about the request and
// nothing else, will last.
func (c code) lifetime() time.Duration {
	switch c {
	case success:
		return 0
	case networkFailure, noResources, userExQuota:
		return shortError
	}
	return longError
}

// refusal is what a Reason becomes in the two protocols.
type refusal struct {
	natpmp result
	pcp    code
	lasts  time.Duration // of the PCP error
}

// refusals has every Reason. What only stands in the way of one external port is
// no reason to refuse (RFC 6887 section 11.3): it comes here only when no other
// port would do, and PREFER_FAILURE turns it into CANNOT_PROVIDE_EXTERNAL.
var refusals = map[portmap.Reason]refusal{
	portmap.NotRequester:    {resultRefused, notAuthorized, longError},
	portmap.NotAHost:        {resultRefused, notAuthorized, longError},
	portmap.GatewayTarget:   {resultRefused, notAuthorized, longError},
	portmap.OffLink:         {resultRefused, notAuthorized, longError},
	portmap.BadTransport:    {resultRefused, unsuppProtocol, longError},
	portmap.BadPort:         {resultRefused, malformedRequest, longError},
	portmap.ForbiddenPort:   {resultRefused, notAuthorized, longError},
	portmap.PrivilegedPort:  {resultRefused, notAuthorized, longError},
	portmap.BadRemote:       {resultRefused, unsuppOption, longError},
	portmap.IdentityChanged: {resultRefused, notAuthorized, shortError},
	portmap.NotOwner:        {resultRefused, notAuthorized, longError},
	portmap.WrongNonce:      {resultRefused, notAuthorized, longError},
	portmap.TooManyRemotes:  {resultRefused, excessiveRemotePeers, longError},

	portmap.RuleDenied:    {resultRefused, notAuthorized, longError},
	portmap.DefaultDenied: {resultRefused, notAuthorized, longError},
	portmap.NeedsApproval: {resultRefused, notAuthorized, shortError}, // so that a yes is soon felt
	portmap.OwnerDenied:   {resultRefused, notAuthorized, longError},
	portmap.ClientQuota:   {resultNoResources, userExQuota, shortError},
	portmap.TotalQuota:    {resultNoResources, noResources, shortError},
	portmap.GrantRate:     {resultNoResources, userExQuota, shortError},

	portmap.PortTaken:      {resultNoResources, noResources, shortError},
	portmap.PortReserved:   {resultNoResources, noResources, shortError},
	portmap.PortInUse:      {resultNoResources, noResources, shortError},
	portmap.NoPorts:        {resultNoResources, noResources, shortError},
	portmap.NoAddress:      {resultNetworkFailure, networkFailure, shortError},
	portmap.PrivateAddress: {resultNetworkFailure, networkFailure, shortError},
	portmap.UniqueLocal:    {resultRefused, notAuthorized, longError}, // the owner's to change, no failure that passes
	portmap.NoSuchMapping:  {resultRefused, notAuthorized, longError}, // deletions take it for success
	portmap.AskedElsewhere: {resultRefused, notAuthorized, longError}, // as for what is configured (RFC 6886 section 3.4)
	portmap.FirewallFailed: {resultNoResources, noResources, shortError},
	portmap.Busy:           {resultNoResources, noResources, shortError},

	portmap.Ended:   {resultRefused, notAuthorized, longError},
	portmap.Removed: {resultRefused, notAuthorized, longError},
	portmap.Revoked: {resultRefused, notAuthorized, longError},
}

// codeOf returns the PCP code of a refusal and how long it lasts; exact means that
// the client asked for this external port or nothing.
func codeOf(err error, exact bool) (code, time.Duration) {
	reason := portmap.ReasonOf(err)
	r, lasts := refusals[reason], time.Duration(0)
	var told *portmap.Error
	if errors.As(err, &told) {
		lasts = told.Left
		if exact && (told.External || reason.OfExternalPort()) {
			r = refusal{pcp: cannotProvideExternal, lasts: longError}
		}
	}
	if lasts == 0 {
		lasts = r.lasts
	}
	return r.pcp, lasts
}
