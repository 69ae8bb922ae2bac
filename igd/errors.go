package igd

import (
	"errors"
	"strings"
	"unicode/utf8"

	"portcullis/portmap"
)

// code is a UPnP error: its number, and the name by which people find it in the
// book. Numbers from 700 belong to a service; another one may name them otherwise.
type code struct {
	number int
	name   string
}

// The codes in use (UDA 1.1 section 3.2.2, WANIPConnection:2 section 2.5). The
// retired 724 to 727 are not among them: what they would refuse is done.
var (
	codeInvalidAction   = code{401, "Invalid Action"}
	codeInvalidArgs     = code{402, "Invalid Args"}
	codeInvalidVar      = code{404, "Invalid Var"}
	codeActionFailed    = code{501, "Action Failed"}
	codeOutOfRange      = code{601, "Argument Value Out of Range"}
	codeTooLong         = code{605, "String Argument Too Long"}
	codeNotAuthorized   = code{606, "Action not authorized"}
	codeSetupFailed     = code{704, "ConnectionSetupFailed"}
	codeInvalidIndex    = code{713, "SpecifiedArrayIndexInvalid"}
	codeNoSuchEntry     = code{714, "NoSuchEntryInArray"}
	codeNoWildcardPort  = code{716, "WildCardNotPermittedInExtPort"}
	codeConflict        = code{718, "ConflictInMappingEntry"}
	codeNoPortMaps      = code{728, "NoPortMapsAvailable"}
	codeOtherMechanism  = code{729, "ConflictWithOtherMechanisms"}
	codeMappingNotFound = code{730, "PortMappingNotFound"}
	codeReadOnly        = code{731, "ReadOnly"}
	codeNoWildcardInt   = code{732, "WildCardNotPermittedInIntPort"}
	codeInconsistent    = code{733, "InconsistentParameters"}
)

// Those of WANIPv6FirewallControl:1, whose numbers mean other things elsewhere. 702,
// FirewallDisabled, is never sent: what the LAN did not ask for does not come in.
var (
	codeNoPinholes       = code{701, "PinholeSpaceExhausted"}
	codeNoInbound        = code{703, "InboundPinholeNotAllowed"}
	codeNoPinhole        = code{704, "NoSuchEntry"}
	codeNoProtocol       = code{705, "ProtocolNotSupported"}
	codeNoAnyInternal    = code{706, "InternalPortWildcardingNotAllowed"}
	codeNoAnyProtocol    = code{707, "ProtocolWildcardingNotAllowed"}
	codeNoWildcardClient = code{708, "WildCardNotPermittedInSrcIP"}
	codeNoTraffic        = code{709, "NoTrafficReceived"}
)

// fault is a refusal in UPnP's words.
type fault struct {
	code   code
	detail string // a sentence for people, or ""
}

func (f *fault) Error() string { return f.description() }

// description is the errorDescription: the standard name, and the reason in
// words. Clients go by the number alone.
func (f *fault) description() string {
	if f.detail == "" {
		return f.code.name
	}
	return f.code.name + ": " + cut(f.detail, maxDetail)
}

const maxDetail = 200 // bytes of a reason that are sent

func fail(c code) error { return &fault{code: c} }

// cut shortens s to at most n bytes at the edge of a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// answer is what a Reason becomes.
type answer struct {
	v1, v2  code // in the two versions of the services of IPv4
	pinhole code // in WANIPv6FirewallControl
	tell    bool // the reason's sentence may be shown to the client
}

func everywhere(c code, tell bool) answer { return answer{c, c, c, tell} }

// reasons turns the engine's Reasons into UPnP errors. A denial is 606 and never
// 718, because clients answer 718 by trying the next port; full is 728 where that
// exists and 501 where it does not (RFC 6970 section 5.3). Sentences that speak of the
// gateway's own listeners or of the kernel stay inside.
//
// Of pinholes, a target that is no host of the LAN is not authorized (abuse case B12),
// as is one that is another's. They have no port of the gateway's, so that nothing is
// in the way of them.
var reasons = map[portmap.Reason]answer{
	portmap.NotRequester:    everywhere(codeNotAuthorized, true),
	portmap.NotAHost:        {codeInvalidArgs, codeInvalidArgs, codeNotAuthorized, true},
	portmap.GatewayTarget:   everywhere(codeNotAuthorized, true),
	portmap.OffLink:         everywhere(codeNotAuthorized, true),
	portmap.BadTransport:    {codeInvalidArgs, codeOutOfRange, codeNoProtocol, true},
	portmap.BadPort:         {codeInvalidArgs, codeInvalidArgs, codeNoAnyInternal, true},
	portmap.ForbiddenPort:   everywhere(codeNotAuthorized, true),
	portmap.PrivilegedPort:  everywhere(codeNotAuthorized, true),
	portmap.BadRemote:       everywhere(codeInvalidArgs, true),
	portmap.IdentityChanged: {codeConflict, codeConflict, codeNotAuthorized, true},      // another client has the port: try the next
	portmap.NotOwner:        {codeNoSuchEntry, codeNotAuthorized, codeNoPinhole, false}, // of pinholes as if there were none (abuse case J4)
	portmap.WrongNonce:      everywhere(codeNotAuthorized, false),                       // PCP's
	portmap.TooManyRemotes:  everywhere(codeActionFailed, true),                         // PCP's (RFC 6970 section 5.3)

	portmap.RuleDenied:    everywhere(codeNotAuthorized, true),
	portmap.DefaultDenied: everywhere(codeNotAuthorized, true),
	portmap.NeedsApproval: everywhere(codeNotAuthorized, true),
	portmap.OwnerDenied:   everywhere(codeNotAuthorized, true),
	portmap.ClientQuota:   {codeActionFailed, codeNoPortMaps, codeNoPinholes, true},
	portmap.TotalQuota:    {codeActionFailed, codeNoPortMaps, codeNoPinholes, true},
	portmap.GrantRate:     {codeActionFailed, codeNoPortMaps, codeNoPinholes, true},

	portmap.PortTaken:      {codeConflict, codeConflict, codeActionFailed, true},
	portmap.PortReserved:   {codeConflict, codeConflict, codeActionFailed, true},
	portmap.PortInUse:      {codeConflict, codeOtherMechanism, codeActionFailed, false},
	portmap.NoPorts:        {codeActionFailed, codeNoPortMaps, codeNoPinholes, true},
	portmap.NoAddress:      {codeActionFailed, codeActionFailed, codeNoInbound, true},
	portmap.PrivateAddress: {codeActionFailed, codeActionFailed, codeNoInbound, true},
	portmap.UniqueLocal:    everywhere(codeNotAuthorized, true), // not 703, which speaks of all of the host's addresses
	portmap.NoSuchMapping:  {codeNoSuchEntry, codeNoSuchEntry, codeNoPinhole, false},
	portmap.AskedElsewhere: everywhere(codeNotAuthorized, true), // NAT-PMP's and PCP's
	portmap.FirewallFailed: everywhere(codeActionFailed, false),
	portmap.Busy:           everywhere(codeActionFailed, true),

	// How mappings end; no request is answered with these.
	portmap.Ended:   everywhere(codeActionFailed, false),
	portmap.Removed: everywhere(codeActionFailed, false),
	portmap.Revoked: everywhere(codeActionFailed, false),
}

// faultOf returns the UPnP error for an error of the engine, for a service of this
// version. An error without a Reason is the daemon's own failure.
func (s *service) faultOf(err error, version int) *fault {
	var f *fault
	if errors.As(err, &f) {
		return f
	}
	a, known := reasons[portmap.ReasonOf(err)]
	if !known {
		a = everywhere(codeActionFailed, false)
	}
	switch {
	case s.pinholes:
		f = &fault{code: a.pinhole}
	case version >= 2:
		f = &fault{code: a.v2}
	default:
		f = &fault{code: a.v1}
	}
	var refusal *portmap.Error
	if a.tell && errors.As(err, &refusal) {
		f.detail = strings.TrimSpace(refusal.Detail)
	}
	return f
}
