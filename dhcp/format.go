package dhcp

import "strings"

// Format is a kind of lease file, by the word of the configuration.
type Format string

// The formats; Unknown is to be recognised.
const (
	Unknown Format = ""
	Dnsmasq Format = "dnsmasq"
	Odhcpd  Format = "odhcpd"
	ISC     Format = "isc"
	Kea     Format = "kea"
)

// into are the parsers.
var into = map[Format]func(c *collector, text string){
	Dnsmasq: (*collector).dnsmasq,
	Odhcpd:  (*collector).odhcpd,
	ISC:     (*collector).isc,
	Kea:     (*collector).kea,
}

// Parse reads a file of a format, of which at most MaxFile bytes. Of an unknown
// format every line is damaged.
func Parse(f Format, data []byte) Parsed {
	c := newCollector()
	c.parse(f, data)
	return c.parsed()
}

func (c *collector) parse(f Format, data []byte) {
	if len(data) > MaxFile {
		data = data[:MaxFile]
	}
	if read := into[f]; read != nil {
		read(c, string(data))
		return
	}
	c.lines(string(data), func(string) bool { return false })
}

// Recognise tells the format by the first line that shows it.
func Recognise(data []byte) Format {
	if len(data) > MaxFile {
		data = data[:MaxFile]
	}
	for line := range strings.Lines(string(data)) {
		if len(line) > maxLine {
			continue
		}
		if f := formatOf(strings.TrimSpace(line)); f != Unknown {
			return f
		}
	}
	return Unknown
}

func formatOf(line string) Format {
	if strings.HasPrefix(line, "address,") {
		return Kea
	}
	w := strings.Fields(line)
	switch {
	case len(w) >= 8 && w[0] == "#" && isNumber(strings.TrimPrefix(w[5], "-")) && isNumber(w[7]):
		return Odhcpd
	case len(w) >= 3 && w[0] == "lease" && w[2] == "{", len(w) >= 2 && (w[0] == "server-duid" || w[0] == "authoring-byte-order"):
		return ISC
	case len(w) == 2 && w[0] == "duid" && unhex(w[1]) != nil:
		return Dnsmasq
	case len(w) >= 4 && isNumber(w[0]) && isAddress(w[2]):
		return Dnsmasq
	case len(w) >= 2 && isAddress(w[0]): // of the hosts file that odhcpd's can be
		return Odhcpd
	}
	return Unknown
}

func isAddress(s string) bool {
	_, ok := address(s)
	return ok
}

func isNumber(s string) bool {
	_, ok := seconds(s)
	return ok
}
