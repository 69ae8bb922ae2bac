package config

import (
	"reflect"

	"portcullis/policy"
)

// RuleText returns a rule as it is written in the file, with its header.
func RuleText(rl policy.Rule) string {
	return string(appendTable(nil, "[["+ruleTag+"]]", reflect.ValueOf(rl)))
}
