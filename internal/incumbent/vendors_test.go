package incumbent_test

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"portcullis/config"
)

// TestVendors: the configuration in docs/vendors.md is one, and it sets all that a vendor says of
// his gateway.
func TestVendors(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/vendors.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(page), "```toml\n")
	text, _, found := strings.Cut(text, "```\n")
	c, err := config.Parse("vendors.md", []byte(text))
	if !found || err != nil {
		t.Fatal(found, err)
	}
	got, usual := reflect.ValueOf(c.UPnP), reflect.ValueOf(config.Default().UPnP)
	for i := range got.NumField() {
		switch name := got.Type().Field(i).Name; name {
		case "Enabled", "HTTPPort", "Events", "IGDv1", "NotifyInterval":
		default:
			if reflect.DeepEqual(got.Field(i).Interface(), usual.Field(i).Interface()) {
				t.Errorf("it does not show %s", name)
			}
		}
	}
}
