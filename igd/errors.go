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

// answer is what a Reason becomes under the two versions of a service.
type answer struct {
	v1, v2 code
	tell   bool // the reason's sentence may be shown to the client
}

// mappingReasons turns the engine's Reasons into UPnP errors. A denial is 606 and never
// 718, because clients answer 718 by trying the next port; full is 728 where that
// exists and 501 where it does not (RFC 6970 section 5.3). Sentences that speak of the
// gateway's own listeners or of the kernel stay inside.
var mappingReasons = map[portmap.Reason]answer{
	portmap.NotRequester:    {codeNotAuthorized, codeNotAuthorized, true},
	portmap.NotAHost:        {codeInvalidArgs, codeInvalidArgs, true},
	portmap.GatewayTarget:   {codeNotAuthorized, codeNotAuthorized, true},
	portmap.OffLink:         {codeNotAuthorized, codeNotAuthorized, true},
	portmap.BadTransport:    {codeInvalidArgs, codeOutOfRange, true},
	portmap.BadPort:         {codeInvalidArgs, codeInvalidArgs, true},
	portmap.ForbiddenPort:   {codeNotAuthorized, codeNotAuthorized, true},
	portmap.PrivilegedPort:  {codeNotAuthorized, codeNotAuthorized, true},
	portmap.BadRemote:       {codeInvalidArgs, codeInvalidArgs, true},
	portmap.IdentityChanged: {codeConflict, codeConflict, true}, // another client has the port: try the next
	portmap.NotOwner:        {codeNoSuchEntry, codeNotAuthorized, false},

	portmap.WrongNonce:     {codeNotAuthorized, codeNotAuthorized, false}, // PCP's
	portmap.TooManyRemotes: {codeActionFailed, codeActionFailed, true},    // PCP's (RFC 6970 section 5.3)

	portmap.RuleDenied:    {codeNotAuthorized, codeNotAuthorized, true},
	portmap.DefaultDenied: {codeNotAuthorized, codeNotAuthorized, true},
	portmap.NeedsApproval: {codeNotAuthorized, codeNotAuthorized, true},
	portmap.ClientQuota:   {codeActionFailed, codeNoPortMaps, true},
	portmap.TotalQuota:    {codeActionFailed, codeNoPortMaps, true},
	portmap.GrantRate:     {codeActionFailed, codeNoPortMaps, true},

	portmap.PortTaken:      {codeConflict, codeConflict, true},
	portmap.PortReserved:   {codeConflict, codeConflict, true},
	portmap.PortInUse:      {codeConflict, codeOtherMechanism, false},
	portmap.NoPorts:        {codeActionFailed, codeNoPortMaps, true},
	portmap.NoAddress:      {codeActionFailed, codeActionFailed, true},
	portmap.PrivateAddress: {codeActionFailed, codeActionFailed, true},
	portmap.UniqueLocal:    {codeNotAuthorized, codeNotAuthorized, true}, // a pinhole's
	portmap.NoSuchMapping:  {codeNoSuchEntry, codeNoSuchEntry, false},
	portmap.AskedElsewhere: {codeNotAuthorized, codeNotAuthorized, true}, // NAT-PMP's and PCP's
	portmap.FirewallFailed: {codeActionFailed, codeActionFailed, false},
	portmap.Busy:           {codeActionFailed, codeActionFailed, true},

	// How mappings end; no request is answered with these.
	portmap.Ended:   {codeActionFailed, codeActionFailed, false},
	portmap.Removed: {codeActionFailed, codeActionFailed, false},
	portmap.Revoked: {codeActionFailed, codeActionFailed, false},
}

// pinholeReasons is the same for WANIPv6FirewallControl. A target that is no host
// of the LAN is not authorized (abuse case B12), as is one that is another's.
// Pinholes have no port of the gateway's, so that nothing is in the way of them.
var pinholeReasons = map[portmap.Reason]answer{
	portmap.NotRequester:    always(codeNotAuthorized, true),
	portmap.NotAHost:        always(codeNotAuthorized, true),
	portmap.GatewayTarget:   always(codeNotAuthorized, true),
	portmap.OffLink:         always(codeNotAuthorized, true),
	portmap.BadTransport:    always(codeNoProtocol, true),
	portmap.BadPort:         always(codeNoAnyInternal, true),
	portmap.ForbiddenPort:   always(codeNotAuthorized, true),
	portmap.PrivilegedPort:  always(codeNotAuthorized, true),
	portmap.BadRemote:       always(codeInvalidArgs, true),
	portmap.IdentityChanged: always(codeNotAuthorized, true),
	portmap.NotOwner:        always(codeNoPinhole, false), // as if there were none (abuse case J4)

	portmap.WrongNonce:     always(codeNotAuthorized, false), // PCP's
	portmap.TooManyRemotes: always(codeActionFailed, true),   // PCP's

	portmap.RuleDenied:    always(codeNotAuthorized, true),
	portmap.DefaultDenied: always(codeNotAuthorized, true),
	portmap.NeedsApproval: always(codeNotAuthorized, true),
	portmap.ClientQuota:   always(codeNoPinholes, true),
	portmap.TotalQuota:    always(codeNoPinholes, true),
	portmap.GrantRate:     always(codeNoPinholes, true),

	portmap.PortTaken:      always(codeActionFailed, true),
	portmap.PortReserved:   always(codeActionFailed, true),
	portmap.PortInUse:      always(codeActionFailed, false),
	portmap.NoPorts:        always(codeNoPinholes, true),
	portmap.NoAddress:      always(codeNoInbound, true),
	portmap.PrivateAddress: always(codeNoInbound, true),
	portmap.UniqueLocal:    always(codeNotAuthorized, true), // not 703, which speaks of all of the host's addresses
	portmap.NoSuchMapping:  always(codeNoPinhole, false),
	portmap.AskedElsewhere: always(codeNotAuthorized, true), // NAT-PMP's and PCP's
	portmap.FirewallFailed: always(codeActionFailed, false),
	portmap.Busy:           always(codeActionFailed, true),

	portmap.Ended:   always(codeActionFailed, false),
	portmap.Removed: always(codeActionFailed, false),
	portmap.Revoked: always(codeActionFailed, false),
}

func always(c code, tell bool) answer { return answer{c, c, tell} }

// faultOf returns the UPnP error for an error of the engine, for a service of this
// version. An error without a Reason is the daemon's own failure.
func (s *service) faultOf(err error, version int) *fault {
	var f *fault
	if errors.As(err, &f) {
		return f
	}
	reasons := s.reasons
	if reasons == nil {
		reasons = mappingReasons
	}
	a, known := reasons[portmap.ReasonOf(err)]
	if !known {
		a = answer{v1: codeActionFailed, v2: codeActionFailed}
	}
	f = &fault{code: a.v1}
	if version >= 2 {
		f.code = a.v2
	}
	var refusal *portmap.Error
	if a.tell && errors.As(err, &refusal) {
		f.detail = strings.TrimSpace(refusal.Detail)
	}
	return f
}
