package ssdp_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"portcullis/ssdp"
)

const root = "upnp:rootdevice"

// lines joins header lines under the start line of a search.
func lines(headers ...string) string {
	return "M-SEARCH * HTTP/1.1\r\n" + strings.Join(headers, "\r\n") + "\r\n\r\n"
}

const man = `MAN: "ssdp:discover"`

func TestParse(t *testing.T) {
	t.Parallel()
	found := func(seconds int) ssdp.Search {
		return ssdp.Search{Target: root, Window: time.Duration(seconds) * time.Second}
	}
	long := func(name string, octets int) string {
		return name + strings.Repeat("A", octets-len(name))
	}
	for _, c := range []struct {
		name    string
		in      string
		unicast bool
		want    ssdp.Search
		err     error
	}{
		{name: "SSDP-1/as in the book", in: lines("HOST: 239.255.255.250:1900", man, "MX: 2", "ST: "+root), want: found(2)},
		{name: "SSDP-10/multicast without MX", in: lines(man, "ST: "+root), err: ssdp.ErrMX},
		{name: "SSDP-11/MX 120", in: lines(man, "MX: 120", "ST: "+root), want: found(5)},
		{name: "SSDP-12/MX empty", in: lines(man, "MX:", "ST: "+root), err: ssdp.ErrMX},
		{name: "SSDP-12/MX not a number", in: lines(man, "MX: two", "ST: "+root), err: ssdp.ErrMX},
		{name: "SSDP-12/MX with a fraction", in: lines(man, "MX: 2.5", "ST: "+root), err: ssdp.ErrMX},
		{name: "SSDP-12/MX 0", in: lines(man, "MX: 0", "ST: "+root), want: found(0)},
		{name: "SSDP-13/unicast without MX", in: lines("HOST: 192.168.1.1:1900", man, "ST: "+root), unicast: true, want: found(1)},
		{name: "SSDP-13/unicast MX 4", in: lines(man, "MX: 4", "ST: "+root), unicast: true, want: found(1)},
		{name: "SSDP-13/unicast MX not a number", in: lines(man, "MX: x", "ST: "+root), unicast: true, err: ssdp.ErrMX},
		{name: "SSDP-14/MAN missing", in: lines("MX: 2", "ST: "+root), err: ssdp.ErrMAN},
		{name: "SSDP-14/MAN other", in: lines(`MAN: "ssdp:other"`, "MX: 2", "ST: "+root), err: ssdp.ErrMAN},
		{name: "SSDP-14/MAN without quotes", in: lines("MAN: ssdp:discover", "MX: 2", "ST: "+root), want: found(2)},
		{name: "SSDP-14/MAN with one quote", in: lines(`MAN: "ssdp:discover`, "MX: 2", "ST: "+root), err: ssdp.ErrMAN},
		{name: "SSDP-14/MAN in capitals", in: lines(`MAN: "SSDP:DISCOVER"`, "MX: 2", "ST: "+root), err: ssdp.ErrMAN},
		{name: "SSDP-14/ST missing", in: lines(man, "MX: 2"), err: ssdp.ErrST},
		{name: "SSDP-14/ST empty", in: lines(man, "MX: 2", "ST:"), err: ssdp.ErrST},
		{name: "SSDP-14/ST blank", in: lines(man, "MX: 2", "ST: \t "), err: ssdp.ErrST},
		{name: "SSDP-16/lower case, unknown headers", in: lines("host: x", `man: "ssdp:discover"`, "mx: 2", "st: "+root,
			"X-Unknown: 1", "CPFN.UPNP.ORG: A control point", "X-Empty:"), want: found(2)},
		{name: "SSDP-16/libtorrent writes no blanks", in: lines("HOST: 239.255.255.250:1900", "ST:"+root, `MAN:"ssdp:discover"`, "MX:3"), want: found(3)},
		{name: "SSDP-16/blanks around", in: lines("ST \t:  "+root+" \t", man, "MX : 2 "), want: found(2)},
		{name: "SSDP-16/body is ignored", in: lines(man, "MX: 2", "ST: "+root) + "ST: other\r\n\x00", want: found(2)},

		{name: "SSDP-15/start line HTTP/1.0", in: strings.Replace(lines(man, "MX: 2", "ST: "+root), "1.1", "1.0", 1), err: ssdp.ErrNotSearch},
		{name: "SSDP-15/start line in lower case", in: strings.Replace(lines(man, "MX: 2", "ST: "+root), "M-S", "m-s", 1), err: ssdp.ErrNotSearch},
		{name: "SSDP-15/start line with a path", in: strings.Replace(lines(man, "MX: 2", "ST: "+root), "*", "/x", 1), err: ssdp.ErrNotSearch},
		{name: "SSDP-15/start line with two blanks", in: strings.Replace(lines(man, "MX: 2", "ST: "+root), " *", "  *", 1), err: ssdp.ErrNotSearch},
		{name: "SSDP-15/empty line before", in: "\r\n" + lines(man, "MX: 2", "ST: "+root), err: ssdp.ErrNotSearch},
		{name: "SSDP-15/empty datagram", in: "", err: ssdp.ErrNotSearch},
		{name: "E6/notify", in: "NOTIFY * HTTP/1.1\r\nNT: a\r\nUSN: " + strings.Repeat("u", 1200), err: ssdp.ErrNotSearch},
		{name: "E6/response", in: "HTTP/1.1 200 OK\r\nST: a\r\n\r\n", err: ssdp.ErrNotSearch},
		{name: "E6/notify of 64 kB", in: "NOTIFY * HTTP/1.1\r\nUSN: " + strings.Repeat("u", 64<<10), err: ssdp.ErrTooLong},

		{name: "E2/1500 octets", in: pad(lines(man, "MX: 2", "ST: "+root), 1500), want: found(2)},
		{name: "E2/1501 octets", in: pad(lines(man, "MX: 2", "ST: "+root), 1501), err: ssdp.ErrTooLong},
		{name: "E2/line of 256", in: lines(man, "MX: 2", "ST: "+root, long("HOST: ", 256)), want: found(2)},
		{name: "E2/line of 257", in: lines(man, "MX: 2", "ST: "+root, long("HOST: ", 257)), err: ssdp.ErrTooLong},
		{name: "E2/ST of 1200", in: lines(man, "MX: 2", long("ST: uuid:", 1200)), err: ssdp.ErrTooLong},
		{name: "E2/32 headers", in: lines(man, "MX: 2", "ST: "+root+strings.Repeat("\r\nX: 1", 29)), want: found(2)},
		{name: "E2/33 headers", in: lines(man, "MX: 2", "ST: "+root+strings.Repeat("\r\nX: 1", 30)), err: ssdp.ErrTooLong},
		// ODD-1: libplum, ssdpy, lighthouse, SwiftSSDP.
		{name: "ODD-1/no empty line", in: strings.TrimSuffix(lines(man, "MX: 2", "ST: "+root), "\r\n"), want: found(2)},
		{name: "ODD-1/no empty line, MAN without quotes, MX 10", in: strings.TrimSuffix(lines("HOST: 239.255.255.250:1900", "MAN: ssdp:discover", "MX: 10", "ST: "+root), "\r\n"), want: found(5)},
		{name: "E2/no end of line", in: strings.TrimSuffix(lines(man, "MX: 2", "ST: "+root), "\r\n\r\n"), err: ssdp.ErrGrammar},
		{name: "E2/half a line break at the end", in: strings.TrimSuffix(lines(man, "MX: 2", "ST: "+root), "\n\r\n"), err: ssdp.ErrGrammar},
		{name: "E2/a line of 257 and no empty line", in: strings.TrimSuffix(lines(man, "MX: 2", "ST: "+root, long("HOST: ", 257)), "\r\n"), err: ssdp.ErrTooLong},
		{name: "E2/33 headers and no empty line", in: strings.TrimSuffix(lines(man, "MX: 2", "ST: "+root+strings.Repeat("\r\nX: 1", 30)), "\r\n"), err: ssdp.ErrTooLong},
		{name: "E2/start line alone", in: "M-SEARCH * HTTP/1.1\r\n", err: ssdp.ErrMAN},
		{name: "E2/LF alone", in: strings.ReplaceAll(lines(man, "MX: 2", "ST: "+root), "\r\n", "\n"), err: ssdp.ErrNotSearch},
		{name: "E2/LF between headers", in: lines(man+"\nMX: 2", "ST: "+root), err: ssdp.ErrGrammar},
		{name: "E2/CR between headers", in: lines(man+"\rMX: 2", "ST: "+root), err: ssdp.ErrGrammar},
		{name: "E2/NUL in ST", in: lines(man, "MX: 2", "ST: "+root+"\x00"), err: ssdp.ErrGrammar},
		{name: "E2/DEL in a value", in: lines(man, "MX: 2", "ST: "+root, "X: \x7f"), err: ssdp.ErrGrammar},
		{name: "E2/no colon", in: lines(man, "MX: 2", "ST: "+root, "junk"), err: ssdp.ErrGrammar},
		{name: "E2/no name", in: lines(man, "MX: 2", "ST: "+root, ": x"), err: ssdp.ErrGrammar},
		{name: "E2/blank in a name", in: lines(man, "MX: 2", "ST: "+root, "X Y: x"), err: ssdp.ErrGrammar},
		{name: "E2/folded line", in: lines(man, "MX: 2", "ST:", " "+root), err: ssdp.ErrGrammar},
		{name: "E2/two ST", in: lines(man, "MX: 2", "ST: "+root, "st: ssdp:all"), err: ssdp.ErrGrammar},
		{name: "E2/two MX, first empty", in: lines(man, "MX:", "MX: 2", "ST: "+root), err: ssdp.ErrGrammar},
		{name: "E2/two MAN", in: lines(man, man, "MX: 2", "ST: "+root), err: ssdp.ErrGrammar},
		{name: "E2/a name that folds to ST only in Unicode", in: lines(man, "MX: 2", "\u017ft: "+root), err: ssdp.ErrGrammar},

		{name: "E4/MX 999999", in: lines(man, "MX: 999999", "ST: "+root), want: found(5)},
		{name: "E4/MX of 200 digits", in: lines(man, "MX: "+strings.Repeat("9", 200), "ST: "+root), want: found(5)},
		{name: "E4/MX of 2^64+1", in: lines(man, "MX: 18446744073709551617", "ST: "+root), want: found(5)},
		{name: "E4/MX -1", in: lines(man, "MX: -1", "ST: "+root), err: ssdp.ErrMX},
		{name: "E4/MX +2", in: lines(man, "MX: +2", "ST: "+root), err: ssdp.ErrMX},
		{name: "E4/neither MAN nor MX", in: lines("ST: " + root), err: ssdp.ErrMAN},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := ssdp.Parse([]byte(c.in), !c.unicast)
			if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
				t.Fatalf("error %v, want %v", err, c.err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// pad appends a body until the datagram is that long.
func pad(s string, octets int) string { return s + strings.Repeat("b", octets-len(s)) }

// TestParseTruncated cuts a search at every octet: none of the pieces may count as a
// search, but the one that lacks the empty line alone.
func TestParseTruncated(t *testing.T) {
	t.Parallel()
	whole := strings.TrimSuffix(lines(man, "MX: 2", "ST: "+root), "\r\n")
	for n := range len(whole) {
		if got, err := ssdp.Parse([]byte(whole[:n]), true); err == nil {
			t.Errorf("%d octets of %d pass: %+v", n, len(whole), got)
		}
	}
	if _, err := ssdp.Parse([]byte(whole+"\r"), true); err == nil {
		t.Error("half an empty line passes")
	}
}

// TestParseAllocatesNothing: what is refused must cost nothing, however often it comes
// (E2).
func TestParseAllocatesNothing(t *testing.T) {
	for _, in := range []string{
		"NOTIFY * HTTP/1.1\r\n\r\n",
		lines(man, "MX: 99999999999999999999x", "ST: "+root),
		lines(man, "MX: 2", "ST: "+root, "junk"),
	} {
		b := []byte(in)
		if n := testing.AllocsPerRun(100, func() { _, _ = ssdp.Parse(b, true) }); n != 0 {
			t.Errorf("%q: %v allocations", in, n)
		}
	}
}
