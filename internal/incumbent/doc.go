// Package incumbent reads what miniupnpd is configured by, and says what becomes of it here.
//
// Owns: the forms of its files (miniupnpd.conf, OpenWrt's /etc/config/upnpd with the names of
// its first and second version, lease files of 6 and 7 fields and of IPv6); the table of all
// its options with what each becomes, or why it becomes nothing (options.go), which
// docs/migrating.md has too; its permission rules as ours (rules.go).
//
// May import: json, config, firewall (the model), policy, portmap.
//
// Never: looks at the machine, but for what the caller's Machine tells; reads a clock; opens
// more than the input opened. What it cannot say in our words is left closed, and noted: a
// rule that allows is left out, a rule that denies is made wider, and where no LAN is known,
// nothing is allowed at all.
package incumbent
