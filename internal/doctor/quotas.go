package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"portcullis/config"
	"portcullis/internal/control"
	"portcullis/internal/netif"
	"portcullis/internal/wiring"
)

// Quotas are those that the mappings of a daemon fill.
type Quotas struct {
	Open    int      // mappings and pinholes
	Most    int      // that may be open; 0: it is not known
	Devices []string // that have as many as one may have: "192.168.1.2 has 32 of 32"
	LANs    []string // whose devices have, together: "br-lan has 256 of 256"
	Rules   []string // that allow no more: `"consoles" allows 16 of 16`
	Asked   []string // the same of one device: `"consoles" allows 192.168.1.2 4 of 4`
}

// quotas counts what is open. What the owner has opened is nobody's part.
func quotas(c config.Config, list []control.Mapping, lans []netif.LAN) Quotas {
	q := Quotas{Most: c.Limits.Mappings}
	perLAN := wiring.Policy(c).PerLAN(len(lans))
	name := make(map[string]string)
	devices, byLAN, byRule, byBoth := make(map[string]int), make(map[string]int), make(map[string]int), make(map[[2]string]int)
	for i := range list {
		m := &list[i]
		if q.Open++; m.Via == "owner" {
			continue
		}
		device := m.ClientMAC
		if strings.Trim(device, "0:") == "" {
			device = m.InternalIP
		}
		name[device] = m.InternalIP
		devices[device]++
		byRule[m.Rule]++
		byBoth[[2]string{m.Rule, device}]++
		if host, err := netip.ParseAddr(m.InternalIP); err == nil {
			for _, l := range lans {
				if l.OnLink(host) {
					byLAN[l.Name]++
					break
				}
			}
		}
	}
	for device, n := range devices {
		if n >= c.Limits.MappingsPerClient {
			q.Devices = append(q.Devices, fmt.Sprintf("%s has %d of %d", name[device], n, c.Limits.MappingsPerClient))
		}
	}
	for lan, n := range byLAN {
		if perLAN > 0 && n >= perLAN {
			q.LANs = append(q.LANs, fmt.Sprintf("%s has %d of %d", lan, n, perLAN))
		}
	}
	for _, r := range c.Rules {
		if n := byRule[r.Name]; r.MaxMappingsTotal > 0 && n >= r.MaxMappingsTotal {
			q.Rules = append(q.Rules, fmt.Sprintf("the rule %q allows %d of %d", r.Name, n, r.MaxMappingsTotal))
		}
		for both, n := range byBoth {
			if both[0] == r.Name && r.MaxMappings > 0 && n >= r.MaxMappings {
				q.Asked = append(q.Asked, fmt.Sprintf("the rule %q allows %s %d of %d", r.Name, name[both[1]], n, r.MaxMappings))
			}
		}
	}
	for _, all := range [][]string{q.Devices, q.LANs, q.Rules, q.Asked} {
		slices.Sort(all)
	}
	return q
}

// mostFull is how many of a kind are named.
const mostFull = 5

// judgeQuotas adds what nobody is granted any more.
func judgeQuotas(f *Facts, add adder) {
	q := f.Quotas
	if q.Most > 0 && q.Open >= q.Most {
		add("quota", Failure, "raise mappings in [limits]"+f.then("limits.mappings")+"\nor close some: portcullis list"+f.Option+", portcullis delete"+f.Option,
			"%d of %d mappings are open: no more are granted", q.Open, q.Most)
	}
	for _, x := range []struct {
		id, what, key, remedy string
		full                  []string
	}{
		{"quota_client", "%s mappings open, and no more are granted there", "limits.mappings_per_client", "raise mappings_per_client in [limits]", q.Devices},
		{"quota_lan", "%s mappings open, and no more are granted to devices there", "limits.mappings_per_lan", "raise mappings_per_lan in [limits]", q.LANs},
		{"quota_rule", "%s mappings, and no more", "rule", "raise max_mappings_total of that rule", q.Rules},
		{"quota_rule_client", "%s mappings, and no more", "rule", "raise max_mappings of that rule", q.Asked},
	} {
		if len(x.full) == 0 {
			continue
		}
		more := ""
		if n := len(x.full); n > mostFull {
			x.full, more = x.full[:mostFull], fmt.Sprintf(" and %d more", n-mostFull)
		}
		add(x.id, Warning, x.remedy+f.then(x.key), x.what, strings.Join(x.full, ", ")+more)
	}
}

// mostRefused is how many refusals are told with their rules.
const mostRefused = 3

// judgeRefusals adds what was refused lately, and the rules that would allow it. A refusal is
// no fault: it is what the gate is there for.
func judgeRefusals(f *Facts, add adder) {
	if f.Daemon.Pending > 0 {
		add("pending", Warning, "`portcullis pending"+f.Option+"` lists them, and says how to answer",
			"ports that devices have asked for and that wait for you: %d", f.Daemon.Pending)
	}
	if f.Daemon.Refused == 0 {
		return
	}
	count := "1 request was"
	if n := f.Daemon.Refused; n > 1 {
		count = fmt.Sprintf("%d requests were", n)
	}
	add("refused", Fine, "", "%s refused since the daemon was started; `portcullis refused%s` lists the last", count, f.Option)
	told := 0
	rules := map[string]bool{}
	for _, d := range f.Refusals {
		for i := range d.Refused {
			r := &d.Refused[i]
			if r.Add == "" || r.Action == "ask" || rules[r.Add] || told == mostRefused {
				continue
			}
			told++
			rules[r.Add] = true
			at := "add to "
			if r.Above != "" {
				at = fmt.Sprintf("add above the rule %q in ", r.Above)
			}
			why, _, _ := strings.Cut(r.Why, "; ")
			add("refused_lately", Fine, "if it is to be allowed, "+at+f.file()+":\n"+strings.TrimSuffix(r.Add, "\n")+f.then("rule"),
				"%s asked for %s port %d by %s, %s: %s", d.Client.Address, r.Protocol, r.InternalPort, r.Via, since(r.Time), why)
		}
	}
}

// since returns how long ago an RFC 3339 time was.
func since(text string) string {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return "at " + text
	}
	return max(0, time.Since(t)).Truncate(time.Second).String() + " ago"
}
