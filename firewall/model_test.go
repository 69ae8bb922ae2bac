package firewall_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"portcullis/firewall"
	"portcullis/portmap"
)

var epoch = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// mapping reads "7 udp 5000 from 198.51.100.0/24 port 53 -> 10.0.0.2:5000 for 600s
// age 3 off": ID, transport, external port, restrictions, internal endpoint,
// lease, how much later than the epoch it was made, disabled. A pinhole is "7 udp
// pin -> [2001:db8::2]:5000".
func mapping(t interface{ Fatalf(string, ...any) }, text string) portmap.Mapping {
	words := strings.Fields(text)
	var m portmap.Mapping
	var port uint16
	var proto string
	if words[2] == "pin" {
		m.Kind, words[2] = portmap.Pinhole6, "0"
	}
	if _, err := fmt.Sscanf(strings.Join(words[:3], " "), "%d %s %d", &m.ID, &proto, &port); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	m.Transport = map[string]portmap.Transport{"tcp": portmap.TCP, "udp": portmap.UDP}[proto]
	m.ExternalPort = port
	m.Created = epoch
	for i := 3; i < len(words); i++ {
		switch words[i] {
		case "from":
			i++
			m.Remotes = append(m.Remotes, portmap.Remote{Prefix: prefix(words[i])})
		case "port":
			i++
			fmt.Sscan(words[i], &m.Remotes[len(m.Remotes)-1].Port)
		case "->":
			i++
			m.Internal = netip.MustParseAddrPort(words[i])
		case "for":
			i++
			d, err := time.ParseDuration(words[i])
			if err != nil {
				t.Fatalf("%q: %v", text, err)
			}
			m.Expires = epoch.Add(d)
		case "age":
			i++
			var s int
			fmt.Sscan(words[i], &s)
			m.Created = epoch.Add(time.Duration(s) * time.Second)
		case "off":
			m.Disabled = true
		}
	}
	if m.Kind == portmap.Pinhole6 {
		m.ExternalPort = m.Internal.Port()
	}
	return m
}

// prefix reads one, or a single address.
func prefix(text string) netip.Prefix {
	if strings.Contains(text, "/") {
		return netip.MustParsePrefix(text)
	}
	a := netip.MustParseAddr(text)
	return netip.PrefixFrom(a, a.BitLen())
}

func mappings(t *testing.T, texts ...string) []portmap.Mapping {
	var ms []portmap.Mapping
	for _, s := range texts {
		ms = append(ms, mapping(t, s))
	}
	return ms
}

// step is one Apply: what is removed and added, and what the kernel has to do.
type step struct {
	del, add []string
	want     string
}

// story is some steps, and what the kernel holds after them.
type story struct {
	steps []step
	world string
}

// shown leaves the entries of mapped ports out, unless the story is about them:
// there is one for each port with a hole.
func (s story) shown(text string) string {
	if strings.Contains(s.steps[0].want, "is mapped") {
		return text
	}
	var b strings.Builder
	for l := range strings.Lines(text) {
		if !strings.HasSuffix(l, "is mapped\n") {
			b.WriteString(l)
		}
	}
	return b.String()
}

func TestState(t *testing.T) {
	playSteps(t, map[string]story{
		"add": {
			[]step{{add: []string{"1 udp 5000 -> 10.0.0.2:5000"}, want: `
				add udp 5000 -> 10.0.0.2:5000
				add udp 10.0.0.2:5000 keeps 5000`}},
			"udp 5000 -> 10.0.0.2:5000\nudp 10.0.0.2:5000 keeps 5000",
		},
		"add twice": {
			[]step{
				{add: []string{"1 udp 5000 -> 10.0.0.2:5000 for 60s"}, want: `
					add udp 5000 -> 10.0.0.2:5000
					add udp 10.0.0.2:5000 keeps 5000`},
				{add: []string{"1 udp 5000 -> 10.0.0.2:5000 for 60s"}},
			},
			"udp 5000 -> 10.0.0.2:5000\nudp 10.0.0.2:5000 keeps 5000",
		},
		"delete unknown": {
			[]step{{del: []string{"9 tcp 1 -> 10.0.0.9:1"}}},
			"",
		},
		"delete under an ID that holds another port": {
			[]step{
				{add: []string{"1 tcp 80 -> 10.0.0.2:80"}, want: `
					add tcp 80 -> 10.0.0.2:80
					add tcp 10.0.0.2:80 keeps 80`},
				{del: []string{"2 tcp 80 -> 10.0.0.2:80"}},
			},
			"tcp 80 -> 10.0.0.2:80\ntcp 10.0.0.2:80 keeps 80",
		},
		"renew": {
			[]step{
				{add: []string{"1 udp 5000 -> 10.0.0.2:5000 for 60s"}, want: `
					add udp 5000 -> 10.0.0.2:5000
					add udp 10.0.0.2:5000 keeps 5000`},
				{
					del: []string{"1 udp 5000 -> 10.0.0.2:5000 for 60s"},
					add: []string{"1 udp 5000 -> 10.0.0.2:5000 for 120s"}, want: `
					retime udp 5000 -> 10.0.0.2:5000
					retime udp 10.0.0.2:5000 keeps 5000`,
				},
			},
			"udp 5000 -> 10.0.0.2:5000\nudp 10.0.0.2:5000 keeps 5000",
		},
		"another target": {
			[]step{
				{add: []string{"1 udp 5000 -> 10.0.0.2:5000"}, want: `
					add udp 5000 -> 10.0.0.2:5000
					add udp 10.0.0.2:5000 keeps 5000`},
				{add: []string{"1 udp 5000 -> 10.0.0.2:6000"}, want: `
					del udp 5000 -> 10.0.0.2:5000
					del udp 10.0.0.2:5000 keeps 5000
					add udp 5000 -> 10.0.0.2:6000
					add udp 10.0.0.2:6000 keeps 5000`},
			},
			"udp 5000 -> 10.0.0.2:6000\nudp 10.0.0.2:6000 keeps 5000",
		},
		"another external port": {
			[]step{
				{add: []string{"1 udp 5000 -> 10.0.0.2:5000"}, want: `
					add udp 5000 -> 10.0.0.2:5000
					add udp 10.0.0.2:5000 keeps 5000`},
				{add: []string{"1 udp 5001 -> 10.0.0.2:5000"}, want: `
					del udp 5000 -> 10.0.0.2:5000
					del udp 10.0.0.2:5000 keeps 5000
					add udp 5001 -> 10.0.0.2:5000
					add udp 10.0.0.2:5000 keeps 5001`},
			},
			"udp 5001 -> 10.0.0.2:5000\nudp 10.0.0.2:5000 keeps 5001",
		},
		"taken over": {
			[]step{
				{add: []string{"1 udp 5000 -> 10.0.0.2:5000"}, want: `
					add udp 5000 -> 10.0.0.2:5000
					add udp 10.0.0.2:5000 keeps 5000`},
				{
					del: []string{"1 udp 5000 -> 10.0.0.2:5000"},
					add: []string{"2 udp 5000 -> 10.0.0.3:5000"}, want: `
					del udp 5000 -> 10.0.0.2:5000
					del udp 10.0.0.2:5000 keeps 5000
					add udp 5000 -> 10.0.0.3:5000
					add udp 10.0.0.3:5000 keeps 5000`,
				},
			},
			"udp 5000 -> 10.0.0.3:5000\nudp 10.0.0.3:5000 keeps 5000",
		},
		"two ports swap": {
			[]step{
				{add: []string{"1 udp 5000 -> 10.0.0.2:1", "2 udp 5001 -> 10.0.0.2:2"}, want: `
					add udp 5000 -> 10.0.0.2:1
					add udp 5001 -> 10.0.0.2:2
					add udp 10.0.0.2:1 keeps 5000
					add udp 10.0.0.2:2 keeps 5001`},
				{
					del: []string{"1 udp 5000 -> 10.0.0.2:1", "2 udp 5001 -> 10.0.0.2:2"},
					add: []string{"1 udp 5001 -> 10.0.0.2:1", "2 udp 5000 -> 10.0.0.2:2"}, want: `
					del udp 5000 -> 10.0.0.2:1
					del udp 5001 -> 10.0.0.2:2
					del udp 10.0.0.2:1 keeps 5000
					del udp 10.0.0.2:2 keeps 5001
					add udp 5000 -> 10.0.0.2:2
					add udp 5001 -> 10.0.0.2:1
					add udp 10.0.0.2:2 keeps 5000
					add udp 10.0.0.2:1 keeps 5001`,
				},
			},
			"udp 5000 -> 10.0.0.2:2\nudp 5001 -> 10.0.0.2:1\nudp 10.0.0.2:2 keeps 5000\nudp 10.0.0.2:1 keeps 5001",
		},
		"tcp and udp are apart": {
			[]step{{add: []string{"1 udp 5000 -> 10.0.0.2:5000", "2 tcp 5000 -> 10.0.0.2:5000"}, want: `
				add tcp 5000 -> 10.0.0.2:5000
				add udp 5000 -> 10.0.0.2:5000
				add tcp 10.0.0.2:5000 keeps 5000
				add udp 10.0.0.2:5000 keeps 5000`}},
			"tcp 5000 -> 10.0.0.2:5000\nudp 5000 -> 10.0.0.2:5000\n" +
				"tcp 10.0.0.2:5000 keeps 5000\nudp 10.0.0.2:5000 keeps 5000",
		},
		"shared endpoint keeps the oldest port": {
			[]step{
				{add: []string{"1 tcp 8001 -> 10.0.0.2:80 age 5", "2 tcp 8002 -> 10.0.0.2:80 age 1"}, want: `
					add tcp 8001 -> 10.0.0.2:80
					add tcp 8002 -> 10.0.0.2:80
					add tcp 10.0.0.2:80 keeps 8002`},
				{del: []string{"1 tcp 8001 -> 10.0.0.2:80"}, want: `
					del tcp 8001 -> 10.0.0.2:80`},
				{add: []string{"3 tcp 8003 -> 10.0.0.2:80 age 9 for 60s"}, want: `
					add tcp 8003 -> 10.0.0.2:80`},
				{del: []string{"2 tcp 8002 -> 10.0.0.2:80"}, want: `
					del tcp 8002 -> 10.0.0.2:80
					del tcp 10.0.0.2:80 keeps 8002
					add tcp 10.0.0.2:80 keeps 8003`},
			},
			"tcp 8003 -> 10.0.0.2:80\ntcp 10.0.0.2:80 keeps 8003",
		},
		"shared endpoint, same age: the lower ID": {
			[]step{{add: []string{"2 tcp 8002 -> 10.0.0.2:80", "1 tcp 8001 -> 10.0.0.2:80"}, want: `
				add tcp 8001 -> 10.0.0.2:80
				add tcp 8002 -> 10.0.0.2:80
				add tcp 10.0.0.2:80 keeps 8001`}},
			"tcp 8001 -> 10.0.0.2:80\ntcp 8002 -> 10.0.0.2:80\ntcp 10.0.0.2:80 keeps 8001",
		},
		"remotes share a port": {
			[]step{{add: []string{
				"1 tcp 8000 -> 10.0.0.2:80",
				"2 tcp 8000 from 198.51.100.7 -> 10.0.0.2:81",
			}, want: `
				add tcp 8000 -> 10.0.0.2:80
				add tcp 8000 from 198.51.100.7 -> 10.0.0.2:81
				add tcp 10.0.0.2:80 keeps 8000
				add tcp 10.0.0.2:81 keeps 8000`}},
			"tcp 8000 -> 10.0.0.2:80\ntcp 8000 from 198.51.100.7 -> 10.0.0.2:81\n" +
				"tcp 10.0.0.2:80 keeps 8000\ntcp 10.0.0.2:81 keeps 8000",
		},
		"a remote is added to a mapping": {
			[]step{
				{add: []string{"1 tcp 8000 -> 10.0.0.2:80"}, want: `
					add tcp 8000 -> 10.0.0.2:80
					add tcp 10.0.0.2:80 keeps 8000`},
				{add: []string{"1 tcp 8000 from 198.51.100.7 -> 10.0.0.2:80"}, want: `
					del tcp 8000 -> 10.0.0.2:80
					add tcp 8000 from 198.51.100.7 -> 10.0.0.2:80`},
			},
			"tcp 8000 from 198.51.100.7 -> 10.0.0.2:80\ntcp 10.0.0.2:80 keeps 8000",
		},
		"B11/disabled has no entries": {
			[]step{{add: []string{"1 tcp 8000 -> 10.0.0.2:80 off"}}},
			"",
		},
		"B11/switched off and on": {
			[]step{
				{add: []string{"1 tcp 8000 -> 10.0.0.2:80"}, want: `
					add tcp 8000 -> 10.0.0.2:80
					add tcp 10.0.0.2:80 keeps 8000`},
				{add: []string{"1 tcp 8000 -> 10.0.0.2:80 off"}, want: `
					del tcp 8000 -> 10.0.0.2:80
					del tcp 10.0.0.2:80 keeps 8000`},
				{add: []string{"1 tcp 8000 -> 10.0.0.2:80"}, want: `
					add tcp 8000 -> 10.0.0.2:80
					add tcp 10.0.0.2:80 keeps 8000`},
			},
			"tcp 8000 -> 10.0.0.2:80\ntcp 10.0.0.2:80 keeps 8000",
		},
		"made and removed in one step": {
			[]step{{
				add: []string{"1 tcp 8000 -> 10.0.0.2:80", "2 tcp 8000 -> 10.0.0.3:80"}, want: `
				add tcp 8000 -> 10.0.0.3:80
				add tcp 10.0.0.3:80 keeps 8000`,
			}},
			"tcp 8000 -> 10.0.0.3:80\ntcp 10.0.0.3:80 keeps 8000",
		},
	})
}

// A port is mapped while one of its mappings is, and for as long as the longest.
func TestMappedPorts(t *testing.T) {
	playSteps(t, map[string]story{
		"renewed": {
			[]step{
				{add: []string{"1 udp 5000 -> 10.0.0.2:6000 for 60s"}, want: `
					add udp 5000 -> 10.0.0.2:6000
					add udp 10.0.0.2:6000 keeps 5000
					add udp 5000 is mapped`},
				{add: []string{"1 udp 5000 -> 10.0.0.2:6000 for 90s"}, want: `
					retime udp 5000 -> 10.0.0.2:6000
					retime udp 10.0.0.2:6000 keeps 5000
					retime udp 5000 is mapped`},
			},
			"udp 5000 -> 10.0.0.2:6000\nudp 10.0.0.2:6000 keeps 5000\nudp 5000 is mapped",
		},
		"taken over in one step": {
			[]step{
				{add: []string{"1 udp 5000 -> 10.0.0.2:6000"}, want: `
					add udp 5000 -> 10.0.0.2:6000
					add udp 10.0.0.2:6000 keeps 5000
					add udp 5000 is mapped`},
				{del: []string{"1 udp 5000 -> 10.0.0.2:6000"}, add: []string{"2 udp 5000 -> 10.0.0.3:6000"}, want: `
					del udp 5000 -> 10.0.0.2:6000
					del udp 10.0.0.2:6000 keeps 5000
					add udp 5000 -> 10.0.0.3:6000
					add udp 10.0.0.3:6000 keeps 5000`},
			},
			"udp 5000 -> 10.0.0.3:6000\nudp 10.0.0.3:6000 keeps 5000\nudp 5000 is mapped",
		},
		"shared by two": {
			[]step{
				{add: []string{"1 tcp 80 from 198.51.100.7 -> 10.0.0.2:80 for 60s"}, want: `
					add tcp 80 from 198.51.100.7 -> 10.0.0.2:80
					add tcp 10.0.0.2:80 keeps 80
					add tcp 80 is mapped`},
				{add: []string{"2 tcp 80 from 198.51.100.8 -> 10.0.0.3:80 for 90s"}, want: `
					add tcp 80 from 198.51.100.8 -> 10.0.0.3:80
					add tcp 10.0.0.3:80 keeps 80
					retime tcp 80 is mapped`},
				{del: []string{"2 tcp 80 -> 10.0.0.3:80"}, want: `
					del tcp 80 from 198.51.100.8 -> 10.0.0.3:80
					del tcp 10.0.0.3:80 keeps 80
					retime tcp 80 is mapped`},
				{del: []string{"1 tcp 80 -> 10.0.0.2:80"}, want: `
					del tcp 80 from 198.51.100.7 -> 10.0.0.2:80
					del tcp 10.0.0.2:80 keeps 80
					del tcp 80 is mapped`},
			},
			"",
		},
		"two ports to one endpoint, of which one is kept": {
			[]step{{add: []string{"1 udp 5000 -> 10.0.0.2:6000", "2 udp 5001 -> 10.0.0.2:6000 age 1"}, want: `
				add udp 5000 -> 10.0.0.2:6000
				add udp 5001 -> 10.0.0.2:6000
				add udp 10.0.0.2:6000 keeps 5000
				add udp 5000 is mapped
				add udp 5001 is mapped`}},
			"udp 5000 -> 10.0.0.2:6000\nudp 5001 -> 10.0.0.2:6000\nudp 10.0.0.2:6000 keeps 5000\nudp 5000 is mapped\nudp 5001 is mapped",
		},
	})
}

func playSteps(t *testing.T, stories map[string]story) {
	for name, tc := range stories {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := firewall.NewState()
			for i, st := range tc.steps {
				c, err := s.Plan(mappings(t, st.add...), mappings(t, st.del...))
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(lines(st.want), tc.shown(c.String())); diff != "" {
					t.Errorf("step %d (-want +got):\n%s", i, diff)
				}
				if c.Empty() != (st.want == "") {
					t.Errorf("step %d: Empty is %v", i, c.Empty())
				}
				s.Commit(c)
			}
			if diff := cmp.Diff(lines(tc.world), tc.shown(firewall.World(s.Entries()))); diff != "" {
				t.Errorf("world (-want +got):\n%s", diff)
			}
		})
	}
}

// lines strips the indentation of a raw string.
func lines(s string) string {
	var b strings.Builder
	for _, l := range strings.Split(s, "\n") {
		if l = strings.TrimSpace(l); l != "" {
			b.WriteString(l + "\n")
		}
	}
	return b.String()
}

func TestRefused(t *testing.T) {
	remote := func(prefix string, port uint16) portmap.Remote {
		return portmap.Remote{Prefix: netip.MustParsePrefix(prefix), Port: port}
	}
	for name, tc := range map[string]struct {
		change func(*portmap.Mapping)
		want   portmap.Reason
	}{
		"B10/not masked":       {func(m *portmap.Mapping) { m.Remotes = []portmap.Remote{remote("198.51.100.7/24", 0)} }, portmap.BadRemote},
		"B10/IPv6 remote":      {func(m *portmap.Mapping) { m.Remotes = []portmap.Remote{remote("2001:db8::1/128", 0)} }, portmap.BadRemote},
		"B10/v4-mapped remote": {func(m *portmap.Mapping) { m.Remotes = []portmap.Remote{remote("::ffff:198.51.100.7/128", 0)} }, portmap.BadRemote},
		"B10/zero remote":      {func(m *portmap.Mapping) { m.Remotes = []portmap.Remote{{}} }, portmap.BadRemote},
		"PCP-54/nine remotes": {func(m *portmap.Mapping) {
			for i := range 9 {
				m.Remotes = append(m.Remotes, remote(fmt.Sprintf("198.51.100.%d/32", i), 0))
			}
		}, portmap.TooManyRemotes},
		"B7/transport":            {func(m *portmap.Mapping) { m.Transport = 1 }, portmap.BadTransport},
		"B6/external port 0":      {func(m *portmap.Mapping) { m.ExternalPort = 0 }, portmap.BadPort},
		"B6/internal port 0":      {func(m *portmap.Mapping) { m.Internal = netip.MustParseAddrPort("10.0.0.2:0") }, portmap.BadPort},
		"A8/v4-mapped host":       {func(m *portmap.Mapping) { m.Internal = netip.MustParseAddrPort("[::ffff:10.0.0.2]:80") }, portmap.NotAHost},
		"B4/unspecified host":     {func(m *portmap.Mapping) { m.Internal = netip.MustParseAddrPort("0.0.0.0:80") }, portmap.NotAHost},
		"another kind":            {func(m *portmap.Mapping) { m.Kind = portmap.Pinhole6 + 1 }, portmap.FirewallFailed},
		"a mapping without an ID": {func(m *portmap.Mapping) { m.ID = 0 }, portmap.FirewallFailed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := firewall.NewState()
			good, bad := mapping(t, "1 tcp 8000 -> 10.0.0.2:80"), mapping(t, "2 tcp 8001 -> 10.0.0.2:81")
			tc.change(&bad)
			c, err := s.Plan([]portmap.Mapping{good, bad}, nil)
			if got := portmap.ReasonOf(err); got != tc.want {
				t.Errorf("refused with %v (%v), want %v", got, err, tc.want)
			}
			if c != nil {
				t.Errorf("a change in spite of the refusal: %s", c)
			}
			var refusal *portmap.Error
			if errors.As(err, &refusal) && refusal.Detail == "" {
				t.Error("no sentence")
			}
		})
	}
}

func TestGoverning(t *testing.T) {
	s := firewall.NewState()
	c, err := s.Plan(mappings(t,
		"1 tcp 8000 -> 10.0.0.2:80",
		"2 tcp 8000 from 198.51.100.7 -> 10.0.0.2:81",
		"3 tcp 9000 from 198.51.100.7 -> 10.0.0.2:90",
		"4 tcp 8000 from 198.51.100.0/24 port 53 -> 10.0.0.2:82",
		"5 tcp 8000 from 192.0.2.0/24 -> 10.0.0.2:83",
		"6 tcp pin from 2001:db8:9::7 -> [2001:db8::2]:8000",
		"7 tcp pin from 2001:db8:9::/64 port 53 -> [2001:db8::2]:8000"), nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Commit(c)
	for name, tc := range map[string]struct {
		port uint16
		src  string
		want uint64
	}{
		"anyone":             {8000, "198.51.100.8", 1},
		"the host itself":    {8000, "198.51.100.7", 2},
		"limited, the host":  {9000, "198.51.100.7", 3},
		"limited, a foreign": {9000, "198.51.100.8", 0},
		"a source port":      {8000, "198.51.100.8:53", 4},
		"a host before it":   {8000, "198.51.100.7:53", 2},
		"a network":          {8000, "192.0.2.9:53", 5},
		"no such port":       {7000, "198.51.100.7", 0},
	} {
		if !strings.Contains(tc.src, ":") {
			tc.src += ":40000"
		}
		m, _ := s.Governing(portmap.TCP, tc.port, netip.MustParseAddrPort(tc.src))
		if m.ID != tc.want {
			t.Errorf("%s: mapping %d, want %d", name, m.ID, tc.want)
		}
	}
	for src, want := range map[string]uint64{
		"[2001:db8:9::7]:53": 6, "[2001:db8:9::8]:53": 7, "[2001:db8:9::8]:54": 0, "[2001:db8:8::7]:53": 0,
	} {
		if m, _ := s.GoverningPin(portmap.TCP, netip.MustParseAddrPort("[2001:db8::2]:8000"), netip.MustParseAddrPort(src)); m.ID != want {
			t.Errorf("from %s: pinhole %d, want %d", src, m.ID, want)
		}
	}
	if m, ok := s.GoverningPin(portmap.UDP, netip.MustParseAddrPort("[2001:db8::2]:8000"), netip.MustParseAddrPort("[2001:db8:9::7]:53")); ok {
		t.Errorf("the other transport: pinhole %d", m.ID)
	}
	for _, e := range s.Entries() {
		if m, ok := s.Holder(e.Key()); ok != (e.Kind == firewall.Hole || e.Kind == firewall.Pin) || ok && m.Internal != e.Internal {
			t.Errorf("%s is held by %s", e, &m)
		}
	}
}

// Gone and New tell whose flows must end; a renewal ends none.
func TestFlowsOfChange(t *testing.T) {
	s := firewall.NewState()
	apply := func(add, del []string) *firewall.Delta {
		t.Helper()
		c, err := s.Plan(mappings(t, add...), mappings(t, del...))
		if err != nil {
			t.Fatal(err)
		}
		s.Commit(c)
		return c
	}
	ids := func(ms []portmap.Mapping) (got []uint64) {
		for _, m := range ms {
			got = append(got, m.ID)
		}
		return got
	}
	one := "1 udp 5000 -> 10.0.0.2:5000 for 60s"
	if c := apply([]string{one}, nil); len(c.New) != 1 || len(c.Gone) != 0 {
		t.Errorf("add: new %v, gone %v", c.New, ids(c.Gone))
	}
	if c := apply([]string{"1 udp 5000 -> 10.0.0.2:5000 for 90s"}, []string{one}); len(c.New) != 0 || len(c.Gone) != 0 {
		t.Errorf("C8/renewal: new %v, gone %v", c.New, ids(c.Gone))
	}
	if c := apply([]string{"2 udp 5000 -> 10.0.0.3:5000"}, []string{one}); len(c.New) != 1 || !cmp.Equal(ids(c.Gone), []uint64{1}) {
		t.Errorf("take-over: new %v, gone %v", c.New, ids(c.Gone))
	}
	if c := apply(nil, []string{"2 udp 5000 -> 10.0.0.3:5000"}); len(c.New) != 0 || !cmp.Equal(ids(c.Gone), []uint64{2}) {
		t.Errorf("C8/delete: new %v, gone %v", c.New, ids(c.Gone))
	}
	pin := "3 udp pin -> [2001:db8::2]:5000 for 60s"
	if c := apply([]string{pin}, nil); len(c.New) != 1 || len(c.Gone) != 0 {
		t.Errorf("pinhole: new %v, gone %v", c.New, ids(c.Gone))
	}
	if c := apply([]string{"3 udp pin -> [2001:db8::2]:5000 for 90s"}, nil); len(c.New) != 0 || len(c.Gone) != 0 || !cmp.Equal(ids(c.Renewed), []uint64{3}) {
		t.Errorf("pinhole renewed: new %v, gone %v, renewed %v", c.New, ids(c.Gone), ids(c.Renewed))
	}
	if c := apply(nil, []string{pin}); len(c.New) != 0 || !cmp.Equal(ids(c.Gone), []uint64{3}) {
		t.Errorf("C8/pinhole deleted: new %v, gone %v", c.New, ids(c.Gone))
	}
}
