package main

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"portcullis/internal/control"
	"portcullis/portmap"
)

// device is whom --client names: one of addr and mac, or else by the word a host.
type device struct {
	word string
	addr netip.Addr
	mac  string
}

// deviceOf reads the value of --client.
func deviceOf(word string) device {
	d := device{word: word}
	if addr, err := netip.ParseAddr(word); err == nil {
		d.addr = addr.Unmap()
	} else if mac, ok := macOf(word); ok {
		d.mac = mac
	}
	return d
}

// macOf reads a MAC address with colons or hyphens, in either case.
func macOf(word string) (string, bool) {
	mac, err := portmap.ParseMAC(word)
	return mac.String(), err == nil && mac != portmap.MAC{}
}

// named reports whether the word can only be the name of a host.
func (d device) named() bool { return !d.addr.IsValid() && d.mac == "" }

// is reports whether this is the device with an address, a MAC address and a name, as the
// daemon writes them.
func (d device) is(addr, mac, host string) bool {
	switch {
	case d.addr.IsValid():
		return d.addr.String() == addr
	case d.mac != "":
		return d.mac == mac
	}
	return strings.EqualFold(d.word, host)
}

// unknown returns an error where the word is a name that nothing has of which the daemon tells:
// a mistyped address looks like one, too.
func (d device) unknown(ctx context.Context, daemon *control.Client) error {
	if !d.named() {
		return nil
	}
	known := false
	err := daemon.EachMapping(ctx, func(m *control.Mapping) { known = known || d.is("", "", m.ClientHost) })
	if err != nil || known {
		return err
	}
	refused, err := daemon.Refused(ctx)
	if err != nil {
		return err
	}
	for i := range refused {
		known = known || d.is("", "", refused[i].Client.Host)
	}
	if known {
		return nil
	}
	return fmt.Errorf("--client: %.40q is neither an address nor a MAC address, and no device of that name has a mapping or was refused one lately", d.word)
}
