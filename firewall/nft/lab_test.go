package nft_test

import (
	"io"
	"regexp"
	"strings"
	"testing"

	"portcullis/firewall"
	"portcullis/firewall/homenet"
	"portcullis/firewall/nft"
	"portcullis/internal/netns/netnstest"
	"portcullis/internal/slog"
)

// Short names for what stands in every line.
var (
	ctx   = homenet.Context
	world = homenet.World
)

// do runs the nft program with a ruleset.
func do(t testing.TB, n *netnstest.Space, ruleset string) {
	t.Helper()
	run(t, n, ruleset, "-f", "-")
}

// list lists with the nft program: "table inet portcullis".
func list(t testing.TB, n *netnstest.Space, argv ...string) string {
	t.Helper()
	return run(t, n, "", append([]string{"list"}, argv...)...)
}

func run(t testing.TB, n *netnstest.Space, stdin string, argv ...string) string {
	t.Helper()
	netnstest.NeedProgram(t, "nft")
	out, err := n.Run(stdin, append([]string{"nft"}, argv...)...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// open returns a backend in a namespace, configured.
func open(t testing.TB, n *netnstest.Space, change ...func(*nft.Config)) *nft.Backend {
	t.Helper()
	b := unconfigured(t, n, change...)
	homenet.Start(t, b, homenet.Facts())
	return b
}

// unconfigured returns one that has been told nothing, and must be closed.
func unconfigured(t testing.TB, n *netnstest.Space, change ...func(*nft.Config)) *nft.Backend {
	t.Helper()
	cfg := nft.Config{Log: homenet.Logger(t), NetNS: n.FD()}
	for _, c := range change {
		c(&cfg)
	}
	b, err := nft.Open(ctx(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The owner's masquerade, as every home router has it.
const masquerade = `
table ip owner {
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		oifname "wan0" masquerade
	}
}`

// strictOwner is an owner's forward chain that drops what it does not know.
const strictOwner = `
table inet fw4 {
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		iifname "lan0" oifname "wan0" accept
	}
}`

// plain is a home whose owner forwards everything.
func plain() homenet.Firewall { return owned(masquerade) }

// strict is one whose owner drops what he does not know, save for our part of his
// chain.
func strict() homenet.Firewall {
	fw := owned(masquerade + strictOwner)
	fw.Facts = acceptChain("inet fw4 forward")
	fw.Scripts.Forward += "\nadd rule inet fw4 forward ip daddr 192.168.1.20 udp dport 6000 accept"
	return fw
}

func acceptChain(name string) func(*firewall.Facts) {
	return func(g *firewall.Facts) { g.AcceptChain = chain(name) }
}

// chain takes up to three words apart, whatever they are.
func chain(text string) (c firewall.Chain) {
	words := append(strings.SplitN(text, " ", 3), "", "")
	c.Family, c.Table, c.Name = words[0], words[1], words[2]
	return c
}

func owned(rules string) homenet.Firewall {
	return homenet.Firewall{
		Open:     func(t testing.TB, n *netnstest.Space) homenet.Backend { return unconfigured(t, n) },
		Do:       do,
		Refused:  refused,
		Timeouts: true,
		Scripts: homenet.Scripts{
			Home: rules,
			DropInput: `table inet owner {
				chain input {
					type filter hook input priority filter; policy accept;
					iifname "wan0" ct state != { established, related } drop
				}
			}`,
			Forward: `table ip owner {
				chain prerouting {
					type nat hook prerouting priority dstnat;
					iifname "wan0" udp dport 5000 dnat to 192.168.1.20:6000
				}
			}`,
			Unforward:   "flush chain ip owner prerouting",
			AcceptEcho:  "add rule inet fw4 forward meta l4proto ipv6-icmp accept",
			AcceptGuest: "add rule inet fw4 forward iifname lan1 oifname lan0 accept",
			AcceptPort:  "insert rule inet fw4 forward ip6 saddr 2001:db8:5::67 tcp dport 84 accept",
			Reload:      "flush ruleset" + rules,
			FlushPins:   "flush set inet portcullis pinholes",
		},
	}
}

var refusal = regexp.MustCompile(`tcp \. (\S+) \. (\S+) \. (\S+) \. \d+`)

func refused(t testing.TB, n *netnstest.Space) (all []string) {
	t.Helper()
	for _, m := range refusal.FindAllStringSubmatch(list(t, n, "set", "inet", "portcullis", "ended_flows6"), -1) {
		all = append(all, m[1]+" "+m[2]+" "+m[3])
	}
	return all
}
