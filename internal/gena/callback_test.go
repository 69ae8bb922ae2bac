package gena_test

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"portcullis/internal/gena"
)

var (
	self4 = netip.MustParseAddr("192.168.1.50")
	self6 = netip.MustParseAddr("2001:db8:1::50")
)

// sized returns a URL of n bytes.
func sized(n int) string {
	const head = "http://192.168.1.50:49200/"
	return head + strings.Repeat("a", n-len(head))
}

func TestCallbacksKept(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, header string
		self         netip.Addr
		want         []gena.Callback
	}{
		{"GENA-1/one URL", "<http://192.168.1.50:49200/cb>", self4, []gena.Callback{{49200, "/cb"}}},
		{"GENA-10/two URLs", "<http://192.168.1.50:49200/a><http://192.168.1.50:49201/b>", self4, []gena.Callback{{49200, "/a"}, {49201, "/b"}}},
		{"blanks around and between", " \t<http://192.168.1.50:49200/a> \t <http://192.168.1.50:49201/b> ", self4, []gena.Callback{{49200, "/a"}, {49201, "/b"}}},
		{"no path", "<http://192.168.1.50:49200>", self4, []gena.Callback{{49200, "/"}}},
		{"query without path", "<http://192.168.1.50:49200?x=1>", self4, []gena.Callback{{49200, "/?x=1"}}},
		{"F7/path is not touched", "<http://192.168.1.50:49200//a/../%2e%2E/b;c?d=%00&e=`|\\^{}'~@:>", self4, []gena.Callback{{49200, "//a/../%2e%2E/b;c?d=%00&e=`|\\^{}'~@:"}}},
		{"F2/256 bytes", "<" + sized(256) + ">", self4, []gena.Callback{{49200, sized(256)[len("http://192.168.1.50:49200"):]}}},
		{"F2/lowest port", "<http://192.168.1.50:1024/>", self4, []gena.Callback{{1024, "/"}}},
		{"F2/highest port", "<http://192.168.1.50:65535/>", self4, []gena.Callback{{65535, "/"}}},
		{"F2/first valid after foreign ones", "<http://198.51.100.9:80/x><https://192.168.1.50:49200/><http://192.168.1.50:49200/cb>", self4, []gena.Callback{{49200, "/cb"}}},
		{"F2/valid before a foreign one", "<http://192.168.1.50:49200/cb><http://192.168.1.20:49200/x>", self4, []gena.Callback{{49200, "/cb"}}},
		{"IPv6", "<http://[2001:db8:1::50]:49200/cb>", self6, []gena.Callback{{49200, "/cb"}}},
		{"IPv6 written out", "<http://[2001:DB8:1:0:0:0:0:50]:49200/cb>", self6, []gena.Callback{{49200, "/cb"}}},
		{"four URLs", strings.Repeat("<http://192.168.1.50:49200/>", 4), self4, []gena.Callback{{49200, "/"}, {49200, "/"}, {49200, "/"}, {49200, "/"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, err := gena.ParseCallbacks(tc.header, tc.self)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// refusedCallbacks are the headers of GENA-7, GENA-8, F1 and F2 that a subscriber at
// 192.168.1.50 must not get through with.
var refusedCallbacks = map[string]string{
	"GENA-7/empty":          "",
	"GENA-7/no brackets":    "http://192.168.1.50/",
	"GENA-7/https":          "<https://192.168.1.50:49200/cb>",
	"GENA-7/empty brackets": "<>",
	"GENA-8/off-link":       "<http://198.51.100.9:49200/cb>",
	"F1/CallStranger":       "<http://198.51.100.9:80/CallStranger.php?c=1>",
	"F1/another LAN host":   "<http://192.168.1.20:22/>",
	"F1/another, high":      "<http://192.168.1.20:49200/>",
	"F1/gateway":            "<http://192.168.1.1:5000/>",
	"F1/loopback":           "<http://127.0.0.1:49200/>",
	"F1/localhost":          "<http://localhost:49200/>",
	"F1/host name":          "<http://evil.example:49200/>",
	"F1/v4-mapped":          "<http://[::ffff:192.168.1.50]:49200/>",
	"F1/v4-mapped hex":      "<http://[::ffff:c0a8:132]:49200/>",
	"F1/v4-compatible":      "<http://[::192.168.1.50]:49200/>",
	"F1/all zeros":          "<http://0.0.0.0:49200/>",
	"F1/decimal host":       "<http://3232235826:49200/>",
	"F1/hex host":           "<http://0xC0A80132:49200/>",
	"F1/octal host":         "<http://192.168.001.050:49200/>",
	"F1/trailing dot":       "<http://192.168.1.50.:49200/>",
	"F1/short host":         "<http://192.168.306:49200/>",
	"F2/no port":            "<http://192.168.1.50/cb>",
	"F2/port 0":             "<http://192.168.1.50:0/>",
	"F2/port 80":            "<http://192.168.1.50:80/>",
	"F2/port 1023":          "<http://192.168.1.50:1023/>",
	"F2/port 65536":         "<http://192.168.1.50:65536/>",
	"F2/port wraps":         "<http://192.168.1.50:4294967296/>",
	"F2/port huge":          "<http://192.168.1.50:184467440737095516161/>",
	"F2/port signed":        "<http://192.168.1.50:+49200/>",
	"F2/port negative":      "<http://192.168.1.50:-1/>",
	"F2/port zero first":    "<http://192.168.1.50:049200/>",
	"F2/port empty":         "<http://192.168.1.50:/>",
	"F2/port hex":           "<http://192.168.1.50:0xC030/>",
	"F2/port underscore":    "<http://192.168.1.50:49_200/>",
	"F2/two ports":          "<http://192.168.1.50:49200:49200/>",
	"F2/user":               "<http://user@192.168.1.50:49200/>",
	"F2/user and password":  "<http://192.168.1.50:49200@198.51.100.9:49200/>",
	"F2/password":           "<http://198.51.100.9:1@192.168.1.50:49200/>",
	"F2/backslash":          "<http://192.168.1.50:49200\\@198.51.100.9/>",
	"F2/fragment":           "<http://192.168.1.50:49200/cb#x>",
	"F2/fragment as host":   "<http://192.168.1.50:49200#@198.51.100.9/>",
	"F2/no host":            "<http://:49200/>",
	"F2/no authority":       "<http:///cb>",
	"F2/no slashes":         "<http:192.168.1.50:49200/>",
	"F2/no scheme":          "<192.168.1.50:49200/cb>",
	"F2/other scheme":       "<gopher://192.168.1.50:49200/>",
	"F2/upper-case scheme":  "<HTTP://192.168.1.50:49200/>",
	"F2/bracketed IPv4":     "<http://[192.168.1.50]:49200/>",
	"F2/half bracket":       "<http://[192.168.1.50:49200/>",
	"F2/blank in URL":       "<http://192.168.1.50:49200/c b>",
	"F2/blank before":       "< http://192.168.1.50:49200/cb>",
	"F2/tab in URL":         "<http://192.168.1.50:49200/c\tb>",
	"F2/line break":         "<http://192.168.1.50:49200/\r\nX: y>",
	"F2/NUL":                "<http://192.168.1.50:49200/\x00>",
	"F2/DEL":                "<http://192.168.1.50:49200/\x7f>",
	"F2/byte above ASCII":   "<http://192.168.1.50:49200/\xff>",
	"F2/UTF-8":              "<http://192.168.1.50:49200/\u00e9>",
	"F2/quote":              "<http://192.168.1.50:49200/\">",
	"F2/unterminated":       "<http://192.168.1.50:49200/cb",
	"F2/second cut":         "<http://192.168.1.50:49200/cb><http://192.168.1.50:49200/",
	"F2/text behind":        "<http://192.168.1.50:49200/cb>x",
	"F2/text before":        "x<http://192.168.1.50:49200/cb>",
	"F2/comma":              "<http://192.168.1.50:49200/a>,<http://192.168.1.50:49200/b>",
	"F2/nested":             "<<http://192.168.1.50:49200/cb>>",
	"F2/open in URL":        "<http://192.168.1.50:49200/<cb>",
	"F2/close first":        ">http://192.168.1.50:49200/cb<",
	"F2/good, then empty":   "<http://192.168.1.50:49200/cb><>x",
	"F2/257 bytes":          "<" + sized(257) + ">",
	"F7/512-byte path":      "<" + sized(512+25) + ">",
	"F2/good, then long":    "<http://192.168.1.50:49200/cb><" + sized(257) + ">",
	"F2/five URLs":          strings.Repeat("<http://192.168.1.50:49200/>", 5),
	"F2/ten thousand URLs":  strings.Repeat("<http://192.168.1.50:49200/>", 10000),
	"F2/five, four far":     strings.Repeat("<http://192.168.1.20:49200/>", 4) + "<http://192.168.1.50:49200/>",
}

func TestCallbacksRefused(t *testing.T) {
	t.Parallel()
	for name, header := range refusedCallbacks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got, err := gena.ParseCallbacks(header, self4); err == nil {
				t.Errorf("accepted: %v", got)
			}
		})
	}
	for name, header := range map[string]string{
		"F1/IPv4 of a dual host": "<http://192.168.1.50:49200/>",
		"F1/no brackets":         "<http://2001:db8:1::50:49200/>",
		"F1/zone":                "<http://[2001:db8:1::50%25br-lan]:49200/>",
		"F1/bare zone":           "<http://[2001:db8:1::50%br-lan]:49200/>",
		"F1/text after bracket":  "<http://[2001:db8:1::50]x:49200/>",
		"F1/no port":             "<http://[2001:db8:1::50]/>",
		"F1/empty port":          "<http://[2001:db8:1::50]:/>",
		"F1/another host":        "<http://[2001:db8:1::20]:49200/>",
	} {
		t.Run("IPv6/"+name, func(t *testing.T) {
			t.Parallel()
			if got, err := gena.ParseCallbacks(header, self6); err == nil {
				t.Errorf("accepted: %v", got)
			}
		})
	}
	// A socket edge that forgot to unmap (A8) opens nothing.
	mapped := netip.MustParseAddr("::ffff:192.168.1.50")
	for _, header := range []string{"<http://192.168.1.50:49200/>", "<http://[::ffff:192.168.1.50]:49200/>"} {
		if got, err := gena.ParseCallbacks(header, mapped); err == nil {
			t.Errorf("A8/mapped subscriber: %s accepted: %v", header, got)
		}
	}
}

// FuzzCallback: what is accepted leads to the subscriber, to a port of users,
// with a target that fits into a request line, and stands in the header as it is.
func FuzzCallback(f *testing.F) {
	for _, header := range refusedCallbacks {
		if len(header) < 2000 {
			f.Add(header, true)
		}
	}
	f.Add("<http://192.168.1.50:49200/cb?x=1> <http://[2001:db8:1::50]:1024>", true)
	f.Add("<http://[2001:db8:1::50]:65535/a/../b><http://192.168.1.50:49200/cb>", false)
	f.Fuzz(func(t *testing.T, header string, v4 bool) {
		self, literal := self4, "192.168.1.50"
		if !v4 {
			self, literal = self6, ""
		}
		got, err := gena.ParseCallbacks(header, self)
		if (err == nil) != (len(got) > 0) {
			t.Fatalf("%d URLs with error %v", len(got), err)
		}
		if len(got) > gena.MaxURLs {
			t.Fatalf("%d URLs", len(got))
		}
		for _, c := range got {
			if c.Port < 1024 {
				t.Errorf("port %d", c.Port)
			}
			if c.Target[0] != '/' || len(c.Target) > gena.MaxURL || strings.ContainsAny(c.Target, " \t\r\n\x00\x7f<>\"#") {
				t.Errorf("target %q", c.Target)
			}
			port := ":" + strconv.Itoa(int(c.Port))
			if path := strings.TrimPrefix(c.Target, "/"); literal != "" {
				whole := "<http://" + literal + port
				if !strings.Contains(header, whole+c.Target+">") && !strings.Contains(header, whole+path+">") {
					t.Errorf("%s%s is not in %q", whole, c.Target, header)
				}
			} else if !ownIPv6(header, port, path) {
				t.Errorf("%s %s has no literal of ours in %q", port, c.Target, header)
			}
		}
	})
}

// ownIPv6 finds a URL with self6, however written, this port and this path, and
// finds the address with other means than the parser: net/netip on each
// bracketed piece before the port.
func ownIPv6(header, port, path string) bool {
	for _, url := range strings.Split(header, "<") {
		host, rest, ok := strings.Cut(strings.TrimPrefix(url, "http://["), "]"+port)
		if !ok || !strings.HasPrefix(strings.TrimPrefix(rest, "/"), path+">") {
			continue
		}
		if addr, err := netip.ParseAddr(host); err == nil && addr == self6 {
			return true
		}
	}
	return false
}

var timeouts = []struct {
	name, header string
	want         time.Duration
	ok           bool
}{
	{"GENA-1/300", "Second-300", 300 * time.Second, true},
	{"lower case", "second-300", 300 * time.Second, true},
	{"zero", "Second-0", 0, true},
	{"zeros first", "Second-0001800", 1800 * time.Second, true},
	{"F4/infinite", "Second-infinite", 0, false},
	{"F4/bare infinite", "infinite", 0, false},
	{"F4/2^63", "Second-9223372036854775808", 9223372036 * time.Second, true},
	{"F4/most seconds", "Second-9223372036", 9223372036 * time.Second, true},
	{"F4/more digits than any number", "Second-" + strings.Repeat("9", 5000), 9223372036 * time.Second, true},
	{"F4/negative", "Second--1", 0, false},
	{"signed", "Second-+1", 0, false},
	{"fraction", "Second-1.5", 0, false},
	{"hex", "Second-0x10", 0, false},
	{"blank", "Second- 300", 0, false},
	{"text behind", "Second-300s", 0, false},
	{"list", "Second-300, Second-1800", 0, false},
	{"no number", "Second-", 0, false},
	{"number alone", "300", 0, false},
	{"empty", "", 0, false},
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	for _, tc := range timeouts {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, ok := gena.ParseTimeout(tc.header)
			if got != tc.want || ok != tc.ok {
				t.Errorf("got %v %v, want %v %v", got, ok, tc.want, tc.ok)
			}
		})
	}
}

// FuzzTimeout: what is accepted is a whole number of seconds, not negative, and
// for numbers that fit it is the number that was written.
func FuzzTimeout(f *testing.F) {
	for _, tc := range timeouts {
		f.Add(tc.header)
	}
	f.Fuzz(func(t *testing.T, header string) {
		got, ok := gena.ParseTimeout(header)
		if !ok {
			if got != 0 {
				t.Fatalf("refused with %v", got)
			}
			return
		}
		if got < 0 || got%time.Second != 0 {
			t.Fatalf("%v", got)
		}
		n, err := strconv.ParseUint(header[len("Second-"):], 10, 64)
		if err == nil && n <= 9223372036 && got != time.Duration(n)*time.Second {
			t.Fatalf("%q is %v", header, got)
		}
	})
}
