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

// parse reads a file of a format, of which at most MaxFile bytes. Of an unknown
// format every line is damaged.
func (c *collector) parse(f Format, data []byte) {
	if len(data) > MaxFile {
		data = data[:MaxFile]
	}
	switch text := string(data); f {
	case Dnsmasq:
		c.dnsmasq(text)
	case Odhcpd:
		c.odhcpd(text)
	case ISC:
		c.isc(text)
	case Kea:
		c.kea(text)
	default:
		c.lines(text, func(string) bool { return false })
	}
}

// Recognise returns the format, by the first line that shows it.
func Recognise(data []byte) Format {
	if len(data) > MaxFile {
		data = data[:MaxFile]
	}
	f := Unknown
	newCollector().lines(string(data), func(line string) bool {
		if f == Unknown {
			f = formatOf(line)
		}
		return true
	})
	return f
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
