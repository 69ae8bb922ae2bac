package iptables_test

import (
	"io"
	"regexp"
	"strings"
	"testing"

	"portcullis/firewall/homenet"
	"portcullis/firewall/iptables"
	"portcullis/internal/netns/netnstest"
	"portcullis/internal/slog"
)

// mark is the one of the tests.
const mark = 0x100

// do runs a program for each line of a script: "iptables -t nat -F", in the flavour,
// or "nft flush ruleset".
func do(t testing.TB, n *netnstest.Space, flavour, script string) {
	t.Helper()
	for line := range strings.Lines(script) {
		words := strings.Fields(line)
		if words[0] != "nft" {
			words[0] += "-" + flavour
		}
		if out, err := n.Run("", words...); err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
	}
}

// save returns all rules of a family, "" or "6".
func save(t testing.TB, n *netnstest.Space, flavour, family string) string {
	t.Helper()
	out, err := n.Run("", "ip"+family+"tables-"+flavour+"-save")
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// wipe is somebody who flushes all rules of iptables, ours among them.
const wipe = `iptables -F
iptables -X
iptables -t nat -F
iptables -t nat -X
ip6tables -F
ip6tables -X
`

// hostRules are those of a home router whose owner drops what he does not know, so
// that each packet that passes has passed by our rule.
const hostRules = `iptables -t nat -A POSTROUTING -o wan0 -j MASQUERADE
iptables -P FORWARD DROP
iptables -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables -A FORWARD -i lan0 -j ACCEPT
ip6tables -P FORWARD DROP
ip6tables -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
ip6tables -A FORWARD -i lan0 -j ACCEPT
`

// strict is a home with these rules.
func strict(flavour string) homenet.Firewall {
	return homenet.Firewall{
		Open:     func(t testing.TB, n *netnstest.Space) homenet.Backend { return unconfigured(t, n, flavour) },
		Do:       func(t testing.TB, n *netnstest.Space, script string) { t.Helper(); do(t, n, flavour, script) },
		Refused:  refused,
		Timeouts: true,
		Scripts: homenet.Scripts{
			Home:      hostRules,
			DropInput: "iptables -A INPUT -i wan0 -m conntrack ! --ctstate RELATED,ESTABLISHED -j DROP",
			Forward: "iptables -t nat -A PREROUTING -i wan0 -p udp --dport 5000 -j DNAT --to-destination 192.168.1.20:6000\n" +
				"iptables -A FORWARD -d 192.168.1.20 -p udp --dport 6000 -j ACCEPT",
			Unforward:   "iptables -t nat -D PREROUTING -i wan0 -p udp --dport 5000 -j DNAT --to-destination 192.168.1.20:6000",
			AcceptEcho:  "ip6tables -A FORWARD -p icmpv6 -j ACCEPT",
			AcceptGuest: "ip6tables -A FORWARD -i lan1 -o lan0 -j ACCEPT",
			AcceptPort:  "ip6tables -A FORWARD -s 2001:db8:5::67 -p tcp --dport 84 -j ACCEPT",
			Reload:      wipe + hostRules,
			FlushPins:   "nft flush set inet portcullis pinholes",
		},
	}
}

var refusal = regexp.MustCompile(`tcp \. (\S+) \. (\S+) \. (\S+) \. \d+`)

func refused(t testing.TB, n *netnstest.Space) (all []string) {
	t.Helper()
	out, err := n.Run("", "nft", "list", "set", "inet", "portcullis", "ended_flows6")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range refusal.FindAllStringSubmatch(out, -1) {
		all = append(all, m[1]+" "+m[2]+" "+m[3])
	}
	return all
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// flavours are those the tests run with: legacy only where the kernel has it, which
// is a fact of the machine and not of the code.
func flavours(t testing.TB) []string {
	netnstest.NeedRoot(t)
	for _, p := range []string{"iptables-nft", "iptables-legacy"} {
		netnstest.NeedProgram(t, p)
	}
	n := netnstest.New(t, "probe")
	if out, err := n.Run("", "iptables-legacy", "-t", "nat", "-S"); err != nil {
		t.Logf("this kernel has no legacy tables, iptables-nft alone is tested: %v %s", err, out)
		return []string{"nft"}
	}
	return []string{"legacy", "nft"}
}

// each runs a test with each flavour.
func each(t *testing.T, f func(t *testing.T, flavour string)) {
	t.Parallel()
	for _, flavour := range flavours(t) {
		t.Run(flavour, func(t *testing.T) {
			t.Parallel()
			f(t, flavour)
		})
	}
}

// open returns a backend in a namespace, configured.
func open(t testing.TB, n *netnstest.Space, flavour string, change ...func(*iptables.Config)) *iptables.Backend {
	t.Helper()
	b := unconfigured(t, n, flavour, change...)
	homenet.Start(t, b, homenet.Facts())
	return b
}

// unconfigured returns one that has been told nothing, and must be closed.
func unconfigured(t testing.TB, n *netnstest.Space, flavour string, change ...func(*iptables.Config)) *iptables.Backend {
	t.Helper()
	cfg := iptables.Config{Log: homenet.Logger(t), NetNS: n.FD(), Program: "iptables-" + flavour, Mark: mark}
	for _, c := range change {
		c(&cfg)
	}
	b, err := iptables.Open(homenet.Context(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
