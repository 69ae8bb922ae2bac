package warden

import (
	"testing"

	"portcullis/portmap"
)

// TestAllowedBy: why a request would be allowed is told with the rule, the owner's answer, and
// that it is open.
func TestAllowedBy(t *testing.T) {
	t.Parallel()
	answer := &portmap.Answer{ID: 482913}
	for want, v := range map[string]portmap.Verdict{
		`no rule speaks of this and policy.default is "allow"`:                                       {},
		`the rule "games" allows this`:                                                               {Decision: portmap.Decision{Rule: "games"}},
		`the rule "games" allows this; it is open already`:                                           {Decision: portmap.Decision{Rule: "games"}, Renewal: true},
		`the rule "guests" says "ask", and the owner has approved it (answer 482913)`:                {Decision: portmap.Decision{Rule: "guests", Answer: answer}},
		`policy.default is "ask", and the owner has approved it (answer 482913); it is open already`: {Decision: portmap.Decision{Answer: answer}, Renewal: true},
	} {
		if got := allowedBy(v); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
