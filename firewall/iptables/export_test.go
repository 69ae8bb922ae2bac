package iptables

import "portcullis/firewall"

// IsRuleOf says whether a saved row is one of the rules of an entry.
func IsRuleOf(row string, e firewall.Entry) bool {
	s := &saved{chains: make(map[place][]line)}
	s.rule("", row)
	for at, lines := range s.chains {
		for _, l := range lines {
			if got, err := l.entry(at.chain); err == nil && got.Kind != 0 && got.Key() == e.Key() {
				return true
			}
		}
	}
	return false
}
