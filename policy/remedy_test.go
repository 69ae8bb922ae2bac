package policy_test

import (
	"testing"

	"pgregory.net/rapid"

	"portcullis/config"
	"portcullis/policy"
	"portcullis/portmap"
)

// TestRuleFor: for whatever is refused, and says that it needs a rule, the rule that is
// printed is read by the configuration as it stands, has a name of its own, and allows
// the request: above all others, and right above the one that refused it. What a wall
// refuses needs none, and no rule helps.
func TestRuleFor(t *testing.T) {
	t.Parallel()
	needed, walls := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		c := genConfig(t)
		r := genRequest.Draw(t, "request")
		if rapid.Bool().Draw(t, "no MAC") {
			r.Client.MAC = portmap.MAC{}
		}
		f := facts()
		have := rapid.IntRange(0, 3).Draw(t, "of the rule")
		f.RuleMappings = func(string) int { return have }
		f.RuleTotal = f.RuleMappings
		d := made(t, c).Decide(r, f)
		if d.Action == portmap.Allow {
			return
		}
		helps := func(place int, rl policy.Rule) portmap.Decision {
			with := c
			with.Rules = append(append(append([]policy.Rule{}, c.Rules[:place]...), rl), c.Rules[place:]...)
			return made(t, with).Decide(r, f)
		}
		rl := policy.RuleFor(r, c.Rules)
		if d.Wall {
			walls++
			if d.NeedsRule {
				t.Fatalf("%+v: a wall says that a rule is needed", d)
			}
			if rl.Check() == nil {
				if d := helps(0, rl); d.Action == portmap.Allow {
					t.Fatalf("%+v: a rule allows what a wall refuses", r)
				}
			}
			return
		}
		if !d.NeedsRule {
			if d.Reason != portmap.UniqueLocal {
				t.Fatalf("%+v: no rule is said to help", d)
			}
			return
		}
		needed++
		text := config.RuleText(rl)
		read, err := config.Parse("rule.toml", []byte(text))
		if err != nil || len(read.Rules) != 1 {
			t.Fatalf("%v in\n%s", err, text)
		}
		place := len(c.Rules)
		for i, other := range c.Rules {
			if other.Name == rl.Name {
				t.Fatalf("the name %q is taken", rl.Name)
			}
			if other.Name == d.Rule {
				place = i
			}
		}
		for _, at := range []int{0, place} {
			now := helps(at, read.Rules[0])
			if now.Action != portmap.Allow && now.Reason != portmap.UniqueLocal {
				t.Fatalf("%+v was refused: %+v\nwith\n%s at %d: %+v", r, d, text, at, now)
			}
		}
	})
	if needed < 10 || walls < 10 {
		t.Errorf("%d refusals needed a rule, %d were a wall's", needed, walls)
	}
}

func made(t *rapid.T, c policy.Config) *policy.Policy {
	p, err := policy.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestRuleForIsNarrow: the rule opens nothing of another device, another port or protocol.
func TestRuleForIsNarrow(t *testing.T) {
	t.Parallel()
	asked := nat(tcp, 8080, 8080)
	p := build(t, policy.Config{Default: portmap.Deny, Rules: []policy.Rule{policy.RuleFor(asked, nil)}})
	other := asked
	other.Client.MAC[5]++
	for what, r := range map[string]portmap.Request{
		"udp": nat(udp, 8080, 8080), "another port": nat(tcp, 8080, 8081), "another device": other, "below 1024": nat(tcp, 80, 8080),
	} {
		if d := p.Decide(r, facts()); d.Action == portmap.Allow {
			t.Errorf("%s is allowed too", what)
		}
	}
	if d := p.Decide(asked, facts()); d.Action != portmap.Allow {
		t.Errorf("%+v", d)
	}
	taken := []policy.Rule{policy.RuleFor(asked, nil)}
	taken = append(taken, policy.RuleFor(asked, taken))
	if name := policy.RuleFor(asked, taken).Name; name != "tcp 8080 for 192.168.1.10 (3)" {
		t.Errorf("the third is called %q", name)
	}
}
