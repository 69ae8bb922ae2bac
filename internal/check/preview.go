package check

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"portcullis/config"
	"portcullis/internal/netif"
	"portcullis/internal/slog"
	"portcullis/internal/wiring"
)

// Live is what the daemon would do, if it began now.
type Live struct {
	LAN      []LAN    `json:"lan"`
	WAN      string   `json:"wan"`  // "": none yet
	WAN6     string   `json:"wan6"` // "": none yet
	Firewall string   `json:"firewall"`
	Choices  []Choice `json:"choices"`
	Warnings []string `json:"warnings"` // what it would wait for, and what may be wrong
}

// LAN is an interface whose hosts may ask.
type LAN struct {
	Interface string   `json:"interface"`
	Prefixes  []string `json:"prefixes"`
}

// Choice is one decision and its reason.
type Choice struct {
	Line int    `json:"line,omitempty"` // of the file, where it decides; 0: it does not
	What string `json:"what"`           // a sentence
}

// Preview returns what would be served, and why. The error is that the daemon would not
// begin.
func Preview(ctx context.Context, c config.Config, lines config.Lines, s netif.State) (Live, error) {
	roles, unfit := netif.Choose(s, wiring.Network(c))
	l := Live{LAN: []LAN{}, WAN: roles.WAN.Name, WAN6: roles.WAN6.Name, Warnings: []string{}}
	for _, lan := range roles.LAN {
		l.LAN = append(l.LAN, LAN{lan.Name, texts(lan.Prefixes)})
	}
	for _, why := range append(slices.Clone(roles.Why), unserved(s, roles, c)...) {
		l.Choices = append(l.Choices, Choice{lineOf(c, lines, why), why})
	}
	if errors.Is(unfit, netif.ErrNoLAN) { // which is waited for
		l.Warnings, unfit = append(l.Warnings, unfit.Error()), nil
	}
	l.Warnings = append(l.Warnings, roles.Warn...)
	backend, err := wiring.Choose(ctx, slog.New(slog.DiscardHandler), c)
	l.Firewall = backend.Name
	l.Choices = append(l.Choices, Choice{lines.Of("firewall.backend", 0), "the firewall is " + backend.Why})
	return l, errors.Join(unfit, err)
}

// unserved says of the interfaces without a role, of which the roles say nothing, why
// they have none.
func unserved(s netif.State, r netif.Roles, c config.Config) []string {
	var all []string
	for _, link := range s.Links {
		said := func(why string) bool { return strings.HasPrefix(why, link.Name+" ") }
		switch {
		case link.Loopback || slices.ContainsFunc(r.Why, said):
		case len(c.LAN.Interfaces) > 0:
			all = append(all, link.Name+" is not served: lan.interfaces does not name it")
		case !link.Up:
			all = append(all, link.Name+" is not served: it is not up")
		default:
			all = append(all, link.Name+" is not served: it has no private IPv4 address")
		}
	}
	return all
}

// lineOf returns the line that names the interface that a sentence begins with, or 0.
func lineOf(c config.Config, lines config.Lines, why string) int {
	name, _, _ := strings.Cut(why, " ")
	switch i := slices.Index(c.LAN.Interfaces, config.Interface(name)); {
	case i >= 0:
		return lines.Of("lan.interfaces", i)
	case name == string(c.WAN.Interface):
		return lines.Of("wan.interface", 0)
	case name == string(c.WAN.Interface6):
		return lines.Of("wan.interface6", 0)
	}
	return 0
}

func texts[T fmt.Stringer](list []T) []string {
	all := make([]string, len(list))
	for i, x := range list {
		all[i] = x.String()
	}
	return all
}
