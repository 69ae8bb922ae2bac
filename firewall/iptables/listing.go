package iptables

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"portcullis/firewall"
	"portcullis/internal/slog"
	"portcullis/portmap"
)

// What is listed in chains of the nat table.
//
// On routers with fw3 the page of OpenWrt (luci-app-upnp) shows what the program iptables
// lists of miniupnpd's chains: DNAT rules in MINIUPNPD, and in newer releases MASQUERADE rules
// in MINIUPNPD-POSTROUTING, where the row's number is the rule's. So rules of that form stand
// there, from the first on, and each asks for an interface that cannot be. They open nothing,
// whatever leads to the chains. What translates is the table of firewall/nft.

// postrouting is behind the name of the second chain.
const postrouting = "-POSTROUTING"

// listingBatch is how many mappings a run of iptables-restore has, as much as it can in a user
// namespace.
const listingBatch = 200

// Listing is a pair of such chains. Its methods are safe for concurrent use.
type Listing struct {
	log   *slog.Logger
	chain firewall.Chain
	netns int
	main  string // the program

	mu       sync.Mutex // guards what follows
	programs *programs  // nil: not found yet
	rows     []string   // two rules for each mapping
	shown    bool       // Show was called
	wrong    string     // what the log has been told last
	wrote    []string   // the rows that were written last,
	echo     string     // and how the program saves these
	sum      uint64     // of the table when they were last found there,
	found    bool       // where the kernel shows it
}

// NewListing returns a listing in a chain of the nat table, and the one for postrouting beside
// it, in a network namespace, by its file descriptor; 0: the current one. program is "" for
// the one that the page runs. Close must be called.
func NewListing(log *slog.Logger, netns int, program string, chain firewall.Chain) *Listing {
	if program == "" {
		program = mainProgram
	}
	return &Listing{log: log, netns: netns, main: program, chain: chain}
}

// Show makes the rules be those of mappings of IPv4, in their order. What keeps it from doing
// so is logged, and tried again by Audit.
func (l *Listing) Show(ctx context.Context, _ int, all []portmap.Mapping) {
	rows := make([]string, 0, 2*len(all))
	for i := range all {
		m := &all[i]
		host, proto := m.Internal.Addr(), m.Transport.String()
		rows = append(rows,
			fmt.Sprintf("-A %s -i %s -p %s -m %[3]s --dport %d -j DNAT --to-destination %s\n", l.chain.Name, firewall.Nowhere, proto, m.ExternalPort, m.Internal),
			fmt.Sprintf("-A %s%s -s %s/32 -i %s -p %s -m %[5]s --sport %d -j MASQUERADE --to-ports %d\n", l.chain.Name, postrouting, host, firewall.Nowhere, proto, m.Internal.Port(), m.ExternalPort))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rows, l.shown = rows, true
	l.say(ctx, l.bring(ctx))
}

// Audit puts the rules back that another program has removed.
func (l *Listing) Audit(ctx context.Context) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.shown {
		l.say(ctx, l.bring(ctx))
	}
}

// Close removes the rules, and the chains if nothing leads there; or, with keep, leaves all.
func (l *Listing) Close(ctx context.Context, keep bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	shown := l.shown
	l.shown = false // for an Audit that comes late, also where all stays
	if keep || !shown || l.programs == nil {
		return nil
	}
	there, err := l.programs.save(ctx, "nat")
	if err != nil {
		return err
	}
	for _, name := range l.names() {
		if lines, exists := there.chains[chainKey{"nat", name}]; exists && listed(lines) == len(lines) {
			err = errors.Join(err, l.programs.unlist(ctx, there, name))
		}
	}
	return err
}

// The methods below are called with the lock held.

func (l *Listing) names() []string { return []string{l.chain.Name, l.chain.Name + postrouting} }

// errForeign means that a chain has rules of another program.
var errForeign = errors.New("the chain has rules of another program")

// read returns the rules that are there, as the program saves them.
func (l *Listing) read(ctx context.Context) (text string, err error) {
	there, err := l.programs.save(ctx, "nat")
	if err != nil {
		return "", err
	}
	for _, name := range l.names() {
		lines, exists := there.chains[chainKey{"nat", name}]
		if listed(lines) < len(lines) {
			return "", fmt.Errorf("%w: %s; when they are gone, clear it: %s -t nat -F %[2]s", errForeign, name, l.main)
		}
		text += fmt.Sprintln(name, exists)
		for _, one := range lines {
			text += one.text() + "\n"
		}
	}
	return text, nil
}

// bring makes the chains be as they should, and touches nothing where they are.
func (l *Listing) bring(ctx context.Context) (err error) {
	if l.programs == nil {
		if l.programs, err = findPrograms(four, l.main, l.netns); err != nil {
			return err
		}
	}
	sum, shows := l.programs.shown("nat")
	written := slices.Equal(l.wrote, l.rows)
	if written && l.found && shows && sum == l.sum {
		return nil
	}
	there, err := l.read(ctx)
	l.sum, l.found = sum, shows && err == nil && there == l.echo && l.programs.still("nat", sum)
	if err != nil || written && there == l.echo {
		return err
	}
	l.echo, l.found = "", false
	script := fmt.Sprintf(":%s - [0:0]\n:%s - [0:0]\n", l.chain.Name, l.chain.Name+postrouting) // which empties them
	for from := 0; from == 0 || from < len(l.rows); from += 2 * listingBatch {
		script += strings.Join(l.rows[from:min(from+2*listingBatch, len(l.rows))], "")
		if err := l.programs.restore(ctx, "*nat\n"+script+"COMMIT\n"); err != nil {
			return err
		}
		script = ""
	}
	l.wrote = l.rows
	l.echo, err = l.read(ctx)
	return err
}

// say logs what is wrong, once.
func (l *Listing) say(ctx context.Context, err error) {
	was, wrong := l.wrong, ""
	if err != nil {
		wrong = err.Error()
	}
	switch {
	case ctx.Err() != nil || wrong == was:
		return
	case wrong == "":
		l.log.Info("mappings are listed in miniupnpd.chain again", "chain", l.chain.String())
	default:
		l.log.Warn("mappings are not listed in miniupnpd.chain", "chain", l.chain.String(), "why", wrong)
	}
	l.wrong = wrong
}

// listed returns how many of these rules are rows of a listing.
func listed(lines []line) (n int) {
	for _, l := range lines {
		if l.after("-i") == firewall.Nowhere {
			n++
		}
	}
	return n
}

// unlist removes the rules of a chain of the nat table, and the chain where nothing leads there.
func (p *programs) unlist(ctx context.Context, there *saved, chain string) error {
	script := ":" + chain + " - [0:0]\n"
	if !there.leadsTo("nat", chain) {
		script += "-X " + chain + "\n"
	}
	return p.restore(ctx, "*nat\n"+script+"COMMIT\n")
}

// leadsTo reports whether a rule of a table jumps to a chain of it.
func (s *saved) leadsTo(table, chain string) bool {
	for at, lines := range s.chains {
		if at.table == table && slices.ContainsFunc(lines, func(l line) bool { return l.target() == chain }) {
			return true
		}
	}
	return false
}

// clearListing removes what a listing has left, and returns the names of its chains.
func (p *programs) clearListing(ctx context.Context) (gone []string, err error) {
	if p.flavour == legacy && !loaded(p.family, p.netns, "nat") {
		return nil, nil
	}
	there, err := p.save(ctx, "nat")
	if err != nil {
		return nil, err
	}
	for at, lines := range there.chains {
		if len(lines) > 0 && listed(lines) == len(lines) {
			if err := p.unlist(ctx, there, at.chain); err != nil {
				return gone, err
			}
			gone = append(gone, "chain "+at.chain+" of "+p.main)
		}
	}
	return gone, nil
}
