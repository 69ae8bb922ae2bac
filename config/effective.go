package config

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"

	"github.com/BurntSushi/toml"

	"portcullis/portmap"
)

// Effective gives c as a TOML file with every key; Parse makes an equal Config
// of it. A rule lacks the conditions that it does not have.
func Effective(c Config) []byte {
	var b bytes.Buffer
	enc := toml.NewEncoder(&b)
	enc.Indent = ""
	// The types are plain and the buffer takes everything: there is no error,
	// as the round trip of FuzzParse shows.
	_ = enc.Encode(toRaw(c))
	return b.Bytes()
}

// toRaw is the way back from values to the texts of the file.
func toRaw(c Config) rawFile {
	raw := rawFile{
		LAN: rawLAN{
			Interfaces:    append([]string{}, c.LAN.Interfaces...), // never nil: the encoder leaves that out
			ExtraPrefixes: append([]string{}, texts(c.LAN.ExtraPrefixes, netip.Prefix.String)...),
			Leases:        append([]string{}, c.LAN.Leases...),
		},
		WAN: rawWAN{
			Interface:      c.WAN.Interface,
			Interface6:     c.WAN.Interface6,
			PrivateAddress: either(c.WAN.AllowPrivateAddress, "allow", "refuse"),
		},
		UPnP: rawUPnP{
			Enabled:      c.UPnP.Enabled,
			HTTPPort:     int64(c.UPnP.HTTPPort),
			Events:       c.UPnP.Events,
			FriendlyName: c.UPnP.FriendlyName,
		},
		PCP: rawPCP{
			NATPMP: c.PCP.NATPMP,
			PCP:    c.PCP.PCP,
			Nonce:  either(c.PCP.StrictNonce, "strict", "same-client"),
		},
		Lease: rawLease{Max: formatDuration(c.Lease.Max), Min: formatDuration(c.Lease.Min)},
		Limits: rawLimits{
			MappingsPerClient: int64(c.Limits.MappingsPerClient),
			Mappings:          int64(c.Limits.Mappings),
			GrantsPerSecond:   int64(c.Limits.GrantsPerSecond),
			RequestsPerSecond: int64(c.Limits.RequestsPerSecond),
		},
		Policy: rawPolicy{
			Default: c.Policy.Default.String(), SameDevice: c.Policy.SameDevice, UniqueLocal: c.Policy.UniqueLocal,
		},
		Firewall: rawFirewall{
			Backend:      string(c.Firewall.Backend),
			AcceptChain:  c.Firewall.AcceptChain.String(),
			AcceptChain6: c.Firewall.AcceptChain6.String(),
			Mark:         fmt.Sprintf("%#x", c.Firewall.Mark),
			KeepOnStop:   c.Firewall.KeepOnStop,
		},
		State:   rawState{Dir: c.State.Dir},
		Control: rawControl{Socket: c.Control.Socket, Group: c.Control.Group},
		Log:     rawLog{Level: levelText(c.Log.Level), Format: either(c.Log.JSON, "json", "text")},
	}
	if c.WAN.ExternalIP.IsValid() {
		raw.WAN.ExternalIP = c.WAN.ExternalIP.String()
	}
	if c.Metrics.Listen.IsValid() {
		raw.Metrics.Listen = c.Metrics.Listen.String()
	}
	for _, rule := range c.Rules {
		raw.Rules = append(raw.Rules, ruleToRaw(rule))
	}
	return raw
}

func ruleToRaw(rule Rule) rawRule {
	action := rule.Action.String()
	raw := rawRule{
		Name:          &rule.Name,
		Action:        &action,
		Clients:       texts(rule.Clients, ClientMatch.String),
		ExternalPorts: texts(rule.ExternalPorts, formatPorts),
		InternalPorts: texts(rule.InternalPorts, formatPorts),
		Protocols:     texts(rule.Protocols, portmap.Transport.String),
		Via:           texts(rule.Via, portmap.Via.String),
	}
	if rule.Description != nil {
		pattern := rule.Description.String()
		raw.Description = &pattern
	}
	if rule.MaxLifetime != 0 {
		lifetime := formatDuration(rule.MaxLifetime)
		raw.MaxLifetime = &lifetime
	}
	if rule.MaxMappings != 0 {
		n := int64(rule.MaxMappings)
		raw.MaxMappings = &n
	}
	return raw
}

// texts gives each value's form of the file; nil stays nil.
func texts[T any](values []T, text func(T) string) []string {
	var all []string
	for _, v := range values {
		all = append(all, text(v))
	}
	return all
}

func either(yes bool, a, b string) string {
	if yes {
		return a
	}
	return b
}

func levelText(l slog.Level) string {
	for word, level := range levels {
		if level == l {
			return word
		}
	}
	return l.String()
}
