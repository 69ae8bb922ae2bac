package warden

import (
	"os"
	"path/filepath"
	"testing"

	"portcullis/portmap"
)

// TestVendors: a device's maker is what the IEEE's list says, where the machine has it, and it
// is read once for what is asked again.
func TestVendors(t *testing.T) {
	file := filepath.Join(t.TempDir(), "oui.txt")
	const list = "OUI/MA-L\r\n\r\n00-50-F2   (hex)\t\tMICROSOFT CORP.\r\n0050F2     (base 16)\t\tMICROSOFT CORP.\r\n\t\t\t\tREDMOND\r\n02-00-00   (hex)\t\tNobody\r\n"
	if err := os.WriteFile(file, []byte(list), 0o600); err != nil {
		t.Fatal(err)
	}
	defer func(old []string) { vendorFiles = old }(vendorFiles)
	vendorFiles = []string{"/nowhere/oui.txt", file}
	var v vendors
	xbox, other, random := portmap.MAC{0, 0x50, 0xf2, 1, 2, 3}, portmap.MAC{0, 1, 2, 3, 4, 5}, portmap.MAC{2, 0, 0, 1, 2, 3}
	for range 2 {
		name := v.look([]portmap.MAC{xbox, other, random, {}})
		if name(xbox) != "MICROSOFT CORP." || name(other) != "" || name(random) != "" || name(portmap.MAC{}) != "" {
			t.Errorf("%q %q %q", name(xbox), name(other), name(random))
		}
		vendorFiles = nil
	}
}
