package doctor

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// owner is the program that writes the rules of a chain, and knows lasting ones from
// others.
type owner struct {
	program string // "ufw" or "firewalld"; "": whoever calls iptables or nft
	zone    string // of firewalld, for the LAN
}

// ownerOf returns who owns the chains that drop what a LAN asks.
func ownerOf(rules []Rules, d Dropped) owner {
	iptables := slices.ContainsFunc(d.Blame, func(b Blame) bool { return b.OfIPTables })
	var all strings.Builder
	for _, r := range rules {
		if ofIPTables := r.Load[0] != "nft"; ofIPTables == iptables {
			all.WriteString(r.Text)
		}
	}
	text := all.String()
	switch {
	case slices.ContainsFunc(d.Blame, func(b Blame) bool { return strings.Contains(b.Chain, " firewalld ") }),
		iptables && strings.Contains(text, ":INPUT_ZONES "):
		return owner{"firewalld", zoneOf(text, d.LAN)}
	case iptables && strings.Contains(text, ":ufw"):
		return owner{program: "ufw"}
	}
	return owner{}
}

// zoneOf returns firewalld's zone of an interface: the one that its rules send it to, or the
// one that they send all others to.
func zoneOf(rules, lan string) string {
	name := regexp.QuoteMeta(lan)
	for _, from := range []string{
		`iifname "` + name + `" goto filter_IN_`, `-A INPUT_ZONES -i ` + name + ` -g IN_`,
		`(?m)^\s*goto filter_IN_`, `-A INPUT_ZONES -g IN_`,
	} {
		if m := regexp.MustCompile(from + `([\w-]+)`).FindStringSubmatch(rules); m != nil {
			return m[1]
		}
	}
	return "public"
}

// judgeAsks adds what clients ask in vain.
func judgeAsks(f *Facts, add adder) {
	var lans []string // that are done
	for _, d := range f.Asks {
		if slices.Contains(lans, d.LAN) { // both families at once
			continue
		}
		lans = append(lans, d.LAN)
		asks, chains := slices.Clone(d.Asks), slices.Clone(d.Blame)
		for _, x := range f.Asks {
			if x.LAN == d.LAN && x.Asks[0].IPv6 != d.Asks[0].IPv6 {
				asks = append(asks, x.Asks...)
				for _, b := range x.Blame {
					if !slices.Contains(chains, b) {
						chains = append(chains, b)
					}
				}
			}
		}
		if len(chains) == 0 {
			add("asks", Failure, "find out what drops it, with `nft list ruleset`", "what devices on %s ask this gateway (%s) does not arrive", d.LAN, portsOf(asks))
			continue
		}
		add("asks", Failure, strings.Join(d.Owner.lines(d.LAN, asks, chains), "\n"),
			"%s", Dropped{LAN: d.LAN, Asks: asks, Blame: chains})
	}
	if f.AsksFailed != nil {
		add("asks", Warning, "", "whether devices reach this gateway was not tried: %v", f.AsksFailed)
	}
	if f.AsksSeen && len(lans) == 0 {
		add("asks", Fine, "", "what devices ask this gateway passes the rules of this machine")
	}
}

// numbers returns the ports of a transport, each once.
func numbers(asks []Ask, transport string) (all []string) {
	for _, a := range asks {
		if n := fmt.Sprint(a.Port); a.Transport == transport && !slices.Contains(all, n) {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return all
}

func portsOf(asks []Ask) string {
	var parts []string
	for _, t := range []string{"udp", "tcp"} {
		if n := numbers(asks, t); len(n) > 0 {
			parts = append(parts, t+" "+strings.Join(n, " and "))
		}
	}
	text := strings.Join(parts, ", ")
	four := slices.ContainsFunc(asks, func(a Ask) bool { return !a.IPv6 })
	six := slices.ContainsFunc(asks, func(a Ask) bool { return a.IPv6 })
	switch {
	case !six:
		text += ", IPv4"
	case !four:
		text += ", IPv6"
	}
	return text
}

// lines are the commands that let it pass, in the words of the firewall's program.
func (o owner) lines(lan string, asks []Ask, chains []Blame) (all []string) {
	var add, kept string
	for _, t := range []string{"udp", "tcp"} {
		n := numbers(asks, t)
		if len(n) == 0 {
			continue
		}
		switch o.program {
		case "ufw":
			all = append(all, fmt.Sprintf("ufw allow in on %s to any port %s proto %s", lan, strings.Join(n, ","), t))
			if slices.ContainsFunc(chains, func(b Blame) bool { return b.Answers }) {
				all = append(all, fmt.Sprintf("ufw allow out on %s proto %s from any port %s to any", lan, t, strings.Join(n, ",")))
			}
		case "firewalld":
			for _, p := range n {
				add += " --add-port=" + p + "/" + t
			}
		}
		for _, c := range chains {
			if !o.writes(c) {
				all = append(all, c.line(lan, t, n))
				kept = " and the same in the file that has these rules (/etc/nftables.conf)"
				if strings.Contains(c.Chain, " fw4 ") {
					kept = " and the same as a rule with target ACCEPT in /etc/config/firewall"
				} else if c.OfIPTables {
					kept = " and the same where these rules are kept (netfilter-persistent save)"
				}
			}
		}
	}
	if add != "" {
		all = append(all, "firewall-cmd --permanent --zone="+o.zone+add, "firewall-cmd --reload")
	}
	if kept != "" {
		all = append(all, kept[1:])
	}
	return all
}

// writes reports whether the words of the program are about this chain.
func (o owner) writes(b Blame) bool {
	switch o.program {
	case "ufw":
		return b.OfIPTables
	case "firewalld":
		return b.OfIPTables || strings.Contains(b.Chain, " firewalld ")
	}
	return false
}

// line is the command that has a chain let ports pass. What the gateway sends bears
// them as its own.
func (b Blame) line(lan, transport string, ports []string) string {
	words := strings.Fields(b.Chain)
	table, chain := words[1], words[2]
	if b.OfIPTables {
		program := map[string]string{"ip": "iptables", "ip6": "ip6tables"}[words[0]]
		if program == "" {
			program = words[0]
		}
		side, which := "-i", "--dports"
		if b.Answers {
			side, which = "-o", "--sports"
		}
		return fmt.Sprintf("%s -t %s -I %s %s %s -p %s -m multiport %s %s -j ACCEPT", program, table, chain, side, lan, transport, which, strings.Join(ports, ","))
	}
	side, which := "iifname", "dport"
	if b.Answers {
		side, which = "oifname", "sport"
	}
	set := ports[0]
	if len(ports) > 1 {
		set = "{ " + strings.Join(ports, ", ") + " }"
	}
	return fmt.Sprintf("nft insert rule %s %s %q %s %s %s accept", b.Chain, side, lan, transport, which, set)
}
