package iptables

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"portcullis/firewall"
)

// What the rules are made of, to be tried.
const (
	tryNAT    = "-p tcp -j DNAT --to-destination 192.0.2.1:1"
	tryFilter = "-p tcp -m conntrack --ctorigdstport 1 --ctreplsrcport 1 -m comment --comment portcullis " +
		"-j REJECT --reject-with tcp-reset"
	tryTime = "-m time --datestop 2030-01-01T00:00:00 -j ACCEPT"
)

// probe finds the programs and tries what the rules are made of, in a chain that
// no packet meets; all at once, and one by one where that fails.
func (b *Backend) probe(ctx context.Context) (err error) {
	if b.programs[four], err = findPrograms(four, b.cfg.Program, b.cfg.NetNS); err != nil {
		return err
	}
	nat := tryRules("nat", tryNAT)
	if b.try(ctx, four, tryRules("filter", tryFilter, tryTime)+nat) != nil {
		if err := b.try(ctx, four, nat); err != nil {
			return missing("NAT", "iptable_nat, xt_nat and xt_conntrack", err)
		}
		if err := b.try(ctx, four, tryRules("filter", tryFilter)); err != nil {
			return missing("filtering by connection", "iptable_filter, xt_conntrack, xt_comment and ipt_REJECT", err)
		}
		b.timeless = b.try(ctx, four, tryRules("filter", tryTime)) != nil
	}
	if b.programs[six], err = findPrograms(six, b.cfg.Program, b.cfg.NetNS); err == nil {
		err = b.try(ctx, six, tryRules("filter", tryFilter))
	}
	if err != nil {
		b.programs[six] = nil
		b.cfg.Log.Warn("no IPv6 pinholes can be made", "err", err)
	}
	return nil
}

func missing(feature, module string, err error) error {
	if errors.Is(err, firewall.ErrPermission) {
		return err
	}
	return &firewall.FeatureError{Feature: feature + " in iptables", Module: module, Err: err}
}

const chainProbe = prefix + "PROBE"

func tryRules(table string, rules ...string) string {
	script := fmt.Sprintf("*%s\n:%s - [0:0]\n", table, chainProbe)
	for _, r := range rules {
		script += "-A " + chainProbe + " " + r + "\n"
	}
	return script + "COMMIT\n"
}

// try has the kernel take a script of tryRules, and takes the chain away again,
// whatever became of it.
func (b *Backend) try(ctx context.Context, f family, script string) error {
	p := b.programs[f]
	failed := p.restore(ctx, script)
	return errors.Join(failed, inNamespace(p.netns, func() error {
		for _, table := range tables[f] {
			if !strings.Contains(script, "*"+table+"\n") {
				continue
			}
			if there, err := p.chains.ChainExists(table, chainProbe); err != nil || !there {
				continue // nothing of that table was taken
			}
			if err := p.chains.ClearAndDeleteChain(table, chainProbe); err != nil {
				return err
			}
		}
		return nil
	}))
}
