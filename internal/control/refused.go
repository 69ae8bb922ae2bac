package control

import (
	"context"
	"net/netip"

	"portcullis/internal/http1"
	"portcullis/portmap"
)

// Asker is the host that asked.
type Asker struct {
	Address   string `json:"address"`
	MAC       string `json:"mac"` // "": its link has none, or it is not known
	Host      string `json:"host"`
	Interface string `json:"interface"`
}

// NewAsker returns the JSON form of a client.
func NewAsker(c *portmap.Client) Asker {
	return Asker{Address: address(c.Addr), MAC: c.MAC.String(), Host: c.Name, Interface: c.Interface}
}

// address returns the text of an address, "" where there is none.
func address(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// Verdict is what is said to a request, and why.
type Verdict struct {
	Action string `json:"action"` // allow, ask or deny
	Reason string `json:"reason"` // portmap.Reason's word; "" when allowed
	Rule   string `json:"rule"`   // the owner's rule that decided, or ""
	Wall   bool   `json:"wall"`   // no rule can allow it
	Why    string `json:"why"`    // a sentence
	Add    string `json:"add"`    // a whole [[rule]] that would allow it; "": no rule would
	Above  string `json:"above"`  // the rule that Add must stand above; "": it may stand anywhere
}

// RefusedDevice is what was refused to one device lately.
type RefusedDevice struct {
	Client  Asker     `json:"client"`   // as it asked last
	LeftOut uint64    `json:"left_out"` // how often it was refused what is not listed any more
	Refused []Refused `json:"refused"`  // the latest first
}

// Refused is one request that was refused, as often as that happened.
type Refused struct {
	Time         string `json:"time"`  // of the last; RFC 3339
	Count        uint64 `json:"count"` // as far as it is remembered
	Protocol     string `json:"protocol"`
	Family       int    `json:"family"`        // 4 or 6
	ExternalPort uint16 `json:"external_port"` // 0: any
	InternalIP   string `json:"internal_ip"`
	InternalPort uint16 `json:"internal_port"`
	Remote       string `json:"remote"` // "": anyone
	Via          string `json:"via"`
	Description  string `json:"description"`
	Verdict
	// AllowedBy is why the same would be opened if the device asked again; "" while it would not.
	AllowedBy string `json:"allowed_by,omitempty"`
}

// Refused asks what was refused lately, the device first that was refused last.
func (c *Client) Refused(ctx context.Context) ([]RefusedDevice, error) {
	var list []RefusedDevice
	return list, c.call(ctx, http1.Get, "/v1/refused", nil, &list)
}

func (s *Server) refused(ctx context.Context, _ *http1.Request) *http1.Response {
	return reply(s.cfg.Refused(ctx))
}
