package warden

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"sync"

	"portcullis/portmap"
)

// vendorFiles are where distributions have the IEEE's list of MAC prefixes, if it is installed
// (hwdata, ieee-data).
var vendorFiles = []string{"/usr/share/hwdata/oui.txt", "/usr/share/ieee-data/oui.txt", "/var/lib/ieee-data/oui.txt"}

const (
	maxVendor  = 64  // octets of a name
	maxVendors = 512 // prefixes that are remembered
)

// vendors are the names of MAC prefixes as far as they were asked for.
type vendors struct {
	mu    sync.Mutex
	known map[[3]byte]string // guarded by mu; "": it is not in the list
}

// look finds the vendors of these devices, in one reading of the list; of what is not known
// nothing is said. An address that a device has made up itself has none.
func (v *vendors) look(all []portmap.MAC) func(portmap.MAC) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.known == nil || len(v.known) > maxVendors {
		v.known = make(map[[3]byte]string)
	}
	missing := map[string][3]byte{}
	for _, m := range all {
		p := [3]byte(m[:3])
		if _, known := v.known[p]; !known && m[0]&2 == 0 && m != (portmap.MAC{}) {
			missing[fmt.Sprintf("%02X-%02X-%02X", p[0], p[1], p[2])] = p
		}
	}
	if len(missing) > 0 {
		for _, p := range missing {
			v.known[p] = ""
		}
		v.read(missing)
	}
	found := make(map[[3]byte]string, len(all))
	for _, m := range all {
		found[[3]byte(m[:3])] = v.known[[3]byte(m[:3])]
	}
	return func(m portmap.MAC) string { return found[[3]byte(m[:3])] }
}

// read reads the first list that is there, for lines like "00-50-F2   (hex)		MICROSOFT CORP.".
func (v *vendors) read(missing map[string][3]byte) {
	for _, name := range vendorFiles {
		f, err := os.Open(name) // #nosec G304 -- one of ours
		if err != nil {
			continue
		}
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			prefix, rest, found := strings.Cut(lines.Text(), " ")
			if p, wanted := missing[prefix]; found && wanted {
				_, name, _ := strings.Cut(rest, ")")
				name = strings.TrimSpace(name)
				v.known[p] = strings.ToValidUTF8(name[:min(len(name), maxVendor)], "")
			}
		}
		return
	}
}
