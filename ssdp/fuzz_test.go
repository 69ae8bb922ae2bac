package ssdp_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"portcullis/ssdp"
)

// maxFactor is how many times longer than its search one answer may be. The
// shortest search there is (unicast, without MX, for everything) has 53 octets.
const maxFactor = 9

// FuzzParse: nothing but a well-formed search passes, judged by a reader that
// shares no code with ours; and no answer is out of proportion or holds text of
// the client.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		lines("HOST: 239.255.255.250:1900", man, "MX: 2", "ST: "+root),
		lines("HOST: 239.255.255.250:1900", "ST:"+root, `MAN:"ssdp:discover"`, "MX:3"),
		lines("MAN:ssdp:discover", "MX:0", "ST:ssdp:all"),
		lines("MAN:ssdp:discover", "ST:ssdp:all"),
		lines("Host: 239.255.255.250:1900", "Man: \"ssdp:discover\"", "ST: "+urnDevice+"InternetGatewayDevice:1", "MX: 3", "USER-AGENT: x/1"),
		lines("host: [FF02::C]:1900", man, "mx: 99", "st: uuid:"+strings.ToUpper(uuidC)),
		lines(man, "ST: "+urnService+"WANIPConnection:2"),
		lines(man, "MX: -1", "ST: ssdp:all"),
		lines(man, man, "ST:"),
		"NOTIFY * HTTP/1.1\r\nNT: a\r\n\r\n",
		"HTTP/1.1 200 OK\r\n\r\n",
		"M-SEARCH * HTTP/1.1\r\n\r\n",
		"M-SEARCH * HTTP/1.1\r\nMAN:ssdp:discover\r\nST:ssdp:all\r\n",
		"M-SEARCH * HTTP/1.1\r\nMAN:ssdp:discover\r\nST:ssdp:all",
	} {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	now := time.Unix(1_700_000_000, 0)
	f.Fuzz(func(t *testing.T, in []byte, multicast bool) {
		got, err := ssdp.Parse(in, multicast)
		if err != nil {
			if got != (ssdp.Search{}) {
				t.Fatalf("error %v with %+v", err, got)
			}
			return
		}
		if why := unsound(in, got, multicast); why != "" {
			t.Fatalf("%s: %q gives %+v", why, in, got)
		}
		answers, err := ssdp.Answers(config(), got.Target, gateway, now)
		if err != nil {
			t.Fatal(err)
		}
		if most := len(announced()); len(answers) > most || len(answers) > 1 && got.Target != "ssdp:all" {
			t.Fatalf("%d answers to %q", len(answers), got.Target)
		}
		for _, a := range answers {
			if len(a) > maxFactor*len(in) || len(a) > 512 {
				t.Fatalf("%d octets answer %d", len(a), len(in))
			}
			if m := read(t, a); m.line != "HTTP/1.1 200 OK" || !bytes.HasSuffix(a, []byte("\r\n\r\n")) {
				t.Fatalf("malformed answer %q", a)
			}
		}
	})
}

// unsound says what is wrong with a datagram that passed as a search, "" when
// nothing is.
func unsound(in []byte, s ssdp.Search, multicast bool) string {
	head, _, ended := strings.Cut(string(in), "\r\n\r\n")
	if !ended {
		head, ended = strings.CutSuffix(string(in), "\r\n")
	}
	all := strings.Split(head, "\r\n")
	switch {
	case len(in) > ssdp.MaxDatagram:
		return "too long"
	case !ended || all[0] != "M-SEARCH * HTTP/1.1":
		return "no search"
	case strings.ContainsAny(strings.ReplaceAll(head, "\r\n", ""), "\r\n\x00"):
		return "odd delimiter"
	}
	values := map[string][]string{}
	for _, line := range all[1:] {
		name, value, found := strings.Cut(line, ":")
		if !found || len(line) > 256 {
			return "bad line"
		}
		name = strings.ToLower(strings.TrimRight(name, " \t"))
		values[name] = append(values[name], strings.Trim(value, " \t"))
	}
	if len(values["man"]) != 1 || strings.Trim(values["man"][0], `"`) != "ssdp:discover" {
		return "MAN"
	}
	if len(values["st"]) != 1 || values["st"][0] != s.Target || s.Target == "" {
		return "ST"
	}
	if n := len(values["mx"]); n > 1 || multicast && n == 0 || n == 1 && strings.Trim(values["mx"][0], "0123456789") != "" {
		return "MX"
	}
	if s.Window < 0 || s.Window > 5*time.Second || !multicast && s.Window != time.Second {
		return "window"
	}
	return ""
}
