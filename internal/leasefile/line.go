package leasefile

import (
	"fmt"
	"sort"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"portcullis/portmap"
)

// Most is how many mappings of a family are shown, the oldest: a page has a row for each.
const Most = 1024

// maxText is how many octets of a description are shown: miniupnpd and some that read its
// files have 320 for a line.
const maxText = 160

// line is a mapping as a file has it, without the line's end.
type line struct {
	id   uint64
	text string
}

// Shown returns the mappings of a kind that are open, in the order in which they are shown
// everywhere: the oldest first, so that a row keeps its place.
func Shown(t *portmap.Table, kind portmap.Kind) []portmap.Mapping {
	var all []portmap.Mapping
	for m := range t.All() {
		if m.Kind == kind && m.Open() {
			all = append(all, m)
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].ID < all[j].ID })
	return all[:min(len(all), Most)]
}

// linesOf returns the lines of mappings.
func linesOf(all []portmap.Mapping, now time.Time) []line {
	list := make([]line, len(all))
	for i := range all {
		m := &all[i]
		list[i] = line{m.ID, line4(m, now)}
		if m.Kind == portmap.Pinhole6 {
			list[i].text = line6(m, now)
		}
	}
	return list
}

// line4 has six fields. Newer readers take one of seven for another form, so the description
// has no colon.
func line4(m *portmap.Mapping, now time.Time) string {
	return fmt.Sprintf("%s%d:%s", place(m), expiry(m, now), text(m))
}

// line6 has eight fields with semicolons between them. Of several remotes it has the first:
// that there is one is what matters to a reader.
func line6(m *portmap.Mapping, now time.Time) string {
	from, port := "", uint16(0)
	if len(m.Remotes) > 0 {
		from, port = m.Remotes[0].Prefix.Addr().String(), m.Remotes[0].Port
	}
	return fmt.Sprintf("%s%s;%d;%d;%d;%s", place(m), from, port, m.Number, expiry(m, now), text(m))
}

// place is how a line begins: which port leads where. Another mapping may have the ID, if the
// state directory has been lost.
func place(m *portmap.Mapping) string {
	transport := strings.ToUpper(m.Transport.String())
	if m.Kind == portmap.Pinhole6 {
		return fmt.Sprintf("%s;%s;%d;", transport, m.Internal.Addr(), m.Internal.Port())
	}
	return fmt.Sprintf("%s:%d:%s:%d:", transport, m.ExternalPort, m.Internal.Addr(), m.Internal.Port())
}

// expiry is when the lease ends, in seconds since 1970; 0: never.
func expiry(m *portmap.Mapping, now time.Time) int64 {
	left := m.Left(now)
	if left < 0 {
		return 0
	}
	return now.Add(left).Unix()
}

// text is what the page of OpenWrt knows the protocol by, or what the device calls it. The
// nonce of PCP is a secret, so there are zeros in its place.
func text(m *portmap.Mapping) string {
	switch m.Client.Via {
	case portmap.ViaPCP:
		return "PCP MAP " + strings.Repeat("0", 2*len(m.Nonce))
	case portmap.ViaNATPMP:
		return fmt.Sprintf("NAT-PMP %d %s", m.ExternalPort, m.Transport)
	}
	return harmless(m.Description)
}

// harmless returns a text that a device has chosen without what separates fields and lines,
// and without what means something to a page that does not escape it.
func harmless(text string) string {
	text = strings.Map(func(c rune) rune {
		if c == utf8.RuneError || !unicode.IsPrint(c) || strings.ContainsRune(":;<>&\"'`\\", c) {
			return '_'
		}
		return c
	}, text)
	for len(text) > maxText {
		_, size := utf8.DecodeLastRuneInString(text)
		text = text[:len(text)-size]
	}
	return text
}

// file returns the text of a file.
func file(list []line) []byte {
	var b strings.Builder
	for i := range list {
		b.WriteString(list[i].text)
		b.WriteByte('\n')
	}
	return []byte(b.String())
}

// missing returns the lines that were taken out of what was written. It is not ok where
// anything else was done.
func missing(written []line, there string) (gone []line, ok bool) {
	rest := []string{}
	if there = strings.TrimSuffix(there, "\n"); there != "" {
		rest = strings.Split(there, "\n")
	}
	for i := range written {
		if len(rest) > 0 && rest[0] == written[i].text {
			rest = rest[1:]
			continue
		}
		gone = append(gone, written[i])
	}
	return gone, len(rest) == 0
}
