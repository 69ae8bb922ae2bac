package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"portcullis/internal/cmdline"
	"portcullis/internal/control"
)

// runList prints the mappings. The daemon sends all of them, one after another, and only
// those that are asked for are kept.
func runList(ctx context.Context, call *cmdline.Call) error {
	daemon, err := daemonOf(call)
	if err != nil {
		return err
	}
	wanted, err := filters(ctx, call, daemon)
	if err != nil {
		return err
	}
	list, uncounted := []control.Mapping{}, false
	err = daemon.EachMapping(ctx, func(m *control.Mapping) {
		uncounted = uncounted || m.Uncounted
		for _, f := range wanted {
			if !f(m) {
				return
			}
		}
		list = append(list, *m)
	})
	if err != nil {
		return err
	}
	if uncounted {
		fmt.Fprintln(call.Err, "portcullis: packet counts are missing; the log says why")
	}
	if word, given := call.Given["client"]; given && len(list) == 0 {
		if err := deviceOf(word).unknown(ctx, daemon); err != nil {
			return err
		}
	}
	sorted(list, call.Given["sort"])
	if call.Has("json") {
		return printJSON(call.Out, list)
	}
	if len(list) == 0 && len(wanted) > 0 {
		fmt.Fprintln(call.Err, "portcullis: no mapping matches "+asked(call))
	}
	return printMappings(call.Out, list, widthOf(call.Out))
}

// asked returns the filters as they were given, each with a value that was understood.
func asked(call *cmdline.Call) string {
	var all []string
	for _, name := range []string{"client", "lan", "mac"} {
		if word, given := call.Given[name]; given {
			all = append(all, "--"+name+" "+printable(word))
		}
	}
	return strings.Join(all, " ")
}

// A filter reports whether a mapping is meant.
type filter func(m *control.Mapping) bool

func filters(ctx context.Context, call *cmdline.Call, daemon *control.Client) (all []filter, err error) {
	if word, given := call.Given["client"]; given {
		who := deviceOf(word)
		all = append(all, func(m *control.Mapping) bool { return who.is(m.InternalIP, m.ClientMAC, m.ClientHost) })
	}
	if word, given := call.Given["mac"]; given {
		mac, ok := macOf(word)
		if !ok {
			return nil, cmdline.Usagef("--mac: %.40q is not a MAC address, like aa:bb:cc:dd:ee:ff", word)
		}
		all = append(all, func(m *control.Mapping) bool { return m.ClientMAC == mac })
	}
	if word, given := call.Given["lan"]; given {
		f, err := ofLAN(ctx, word, daemon)
		if err != nil {
			return nil, err
		}
		all = append(all, f)
	}
	return all, nil
}

// ofLAN returns a filter for what leads into the network of an interface, which the daemon
// knows: the owner's own mappings are of no interface.
func ofLAN(ctx context.Context, name string, daemon *control.Client) (filter, error) {
	s, err := daemon.Status(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, l := range s.LAN {
		names = append(names, l.Interface)
		if l.Interface == name {
			return inside(l.Prefixes), nil
		}
	}
	return nil, fmt.Errorf("no LAN is served on %.40q; those that are: %s", name, cmp.Or(strings.Join(names, ", "), "none"))
}

func inside(prefixes []string) filter {
	var all []netip.Prefix
	for _, text := range prefixes {
		if p, err := netip.ParsePrefix(text); err == nil {
			all = append(all, p)
		}
	}
	return func(m *control.Mapping) bool {
		addr, err := netip.ParseAddr(m.InternalIP)
		return err == nil && slices.ContainsFunc(all, func(p netip.Prefix) bool { return p.Contains(addr) })
	}
}

// orders are the words of --sort, and which of two mappings comes first. Traffic is the
// largest first, and what never ends last.
var orders = map[string]func(a, b *control.Mapping) int{
	"id":      func(a, b *control.Mapping) int { return cmp.Compare(a.ID, b.ID) },
	"port":    func(a, b *control.Mapping) int { return cmp.Compare(a.ExternalPort, b.ExternalPort) },
	"target":  func(a, b *control.Mapping) int { return addrOf(a).Compare(addrOf(b)) },
	"expires": func(a, b *control.Mapping) int { return cmp.Compare(uint64(a.ExpiresIn-1), uint64(b.ExpiresIn-1)) }, // #nosec G115 -- 0 is never
	"packets": func(a, b *control.Mapping) int { return cmp.Compare(b.Packets, a.Packets) },
	"bytes":   func(a, b *control.Mapping) int { return cmp.Compare(b.Bytes, a.Bytes) },
}

func addrOf(m *control.Mapping) netip.AddrPort {
	addr, _ := netip.ParseAddr(m.InternalIP)
	return netip.AddrPortFrom(addr, m.InternalPort)
}

// sorted puts the list into an order, of which the command line knows the words; without
// one it stays as the daemon sent it, by port.
func sorted(list []control.Mapping, order string) {
	if before := orders[order]; before != nil {
		sort.SliceStable(list, func(i, j int) bool { return before(&list[i], &list[j]) < 0 })
	}
}

// columns are those of the list, by what the owner looks for first. shrinks is the order in
// which they are left out where the terminal is too narrow, 0 never.
var columns = []column{
	{"ID", 0, func(m *control.Mapping) string { return strconv.FormatUint(m.ID, 10) }},
	{"PORT", 0, func(m *control.Mapping) string { return strconv.Itoa(int(m.ExternalPort)) + "/" + m.Protocol }},
	{"TARGET", 0, target},
	{"HOST", 6, func(m *control.Mapping) string { return printable(m.ClientHost) }},
	{"MAC", 7, func(m *control.Mapping) string { return m.ClientMAC }},
	{"FROM", 8, from},
	{"VIA", 3, func(m *control.Mapping) string { return m.Via }},
	{"EXPIRES", 0, endsIn},
	{"PACKETS", 4, func(m *control.Mapping) string { return counted(m, strconv.FormatUint(m.Packets, 10)) }},
	{"BYTES", 1, func(m *control.Mapping) string { return counted(m, size(m.Bytes)) }},
	{"RULE", 2, func(m *control.Mapping) string { return printable(m.Rule) }},
	{description, 5, func(m *control.Mapping) string { return printable(m.Description) }},
}

// description is the column that takes what room is left.
const description = "DESCRIPTION"

func printMappings(out io.Writer, list []control.Mapping, width int) error {
	return newGrid(columns, list).fit(width).print(out)
}

func target(m *control.Mapping) string {
	addr, _ := netip.ParseAddr(m.InternalIP)
	return netip.AddrPortFrom(addr, m.InternalPort).String()
}

// from returns who may come in by a mapping, "" for anyone.
func from(m *control.Mapping) string {
	switch {
	case !m.Enabled:
		return "nobody (disabled)"
	case m.Suspended:
		return "nobody (another device has the address)"
	}
	return m.Remote
}

// fromWhom is from as the end of a sentence.
func fromWhom(m *control.Mapping) string {
	if who := from(m); who != "" {
		return " from " + who
	}
	return ""
}

func counted(m *control.Mapping, number string) string {
	if m.Uncounted {
		return "-"
	}
	return number
}

func endsIn(m *control.Mapping) string {
	switch {
	case m.ExpiresIn == 0:
		return "never"
	case m.Endless:
		return span(m.ExpiresIn) + " unless seen"
	}
	return span(m.ExpiresIn)
}

// span returns a time in seconds by its two largest units, as "6d23h".
func span(seconds int64) string {
	d := time.Duration(seconds) * time.Second
	day := 24 * time.Hour
	switch {
	case d >= day:
		return pair(int64(d/day), "d", int64(d%day/time.Hour), "h")
	case d >= time.Hour:
		return pair(int64(d/time.Hour), "h", int64(d%time.Hour/time.Minute), "m")
	case d >= time.Minute:
		return pair(int64(d/time.Minute), "m", int64(d%time.Minute/time.Second), "s")
	}
	return strconv.FormatInt(seconds, 10) + "s"
}

func pair(a int64, unit string, b int64, less string) string {
	text := strconv.FormatInt(a, 10) + unit
	if b > 0 {
		text += strconv.FormatInt(b, 10) + less
	}
	return text
}

// size returns a number of bytes by its largest unit, as "1.5M".
func size(bytes uint64) string {
	if bytes < 1000 {
		return strconv.FormatUint(bytes, 10)
	}
	n, unit := float64(bytes), 0
	for n >= 999.5 && unit < len("kMGTPE") {
		n, unit = n/1000, unit+1
	}
	format := "%.0f%c"
	if n < 9.95 {
		format = "%.1f%c"
	}
	return fmt.Sprintf(format, n, "kMGTPE"[unit-1])
}
