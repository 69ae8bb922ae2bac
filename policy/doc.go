// Package policy decides about one request for a mapping, and gives the reason.
//
// Owns: the walls (walls.go: what no rule can allow), the port tiers
// (ports.go), the owner's ordered rules (rule.go), the order in which all of it is
// asked (policy.go), and which rules are certain to be in vain (doubt.go).
//
// May import: portmap, special, and of the standard library what does no I/O.
//
// Never: reads a clock, opens anything, logs, keeps state between two calls,
// or changes what it was given. The same request over the same facts gives the
// same decision, so two processes can ask and must agree.
//
// # The order of the checks
//
// The walls come first: nobody can argue with them, so no other reason may hide
// them. Then the owner's rules, Tier 1, policy.default and the rule's own quota;
// then the state of the WAN; then the other quotas. A request that the owner
// does not want is told so even while the WAN is down: "try later" would be a
// wrong hint. What passes by itself comes last, the client's own part of it
// before that of its LAN, and that before the total.
//
// # What it takes to open a Tier 1 port
//
// The first rule that matches decides. A Tier 1 port opens only if that rule
// names the port on the side where it is Tier 1: its internal_ports (or
// external_ports) list holds the port alone, or in a range of at most
// NamingWidth ports. A wider range still matches, but names nothing. Somebody
// who writes 5900-5909 or 8000-8099 has services in mind; somebody who writes
// 1024-65535, as the widely copied access list of another daemon does, means
// "everything usual" and did not think of his database. If such a line opened
// Tier 1, one line would turn the tier off for every infected machine on the
// LAN; without it, the price is that one port has to be written out, and the
// refusal says which. An "ask" rule is bound in the same way, and
// policy.default never opens a Tier 1 port, nor asks about one.
//
// An IPv6 pinhole has one port; naming it in internal_ports is enough.
//
// # Any external port
//
// A request whose external port is 0 leaves the choice to the engine, which never
// chooses below 1024. Decide then answers for the most welcome port: it refuses
// only what it would refuse whatever the external port. An allowance of this
// kind binds nobody; the engine asks again with each port it means to give.
//
// In a refusal of a certain port, OverExternalPort is exact as far as the owner
// is concerned: with another port from 1024 up the walls, rules and tiers would
// allow the request, or at least ask about it, and Elsewhere says with which.
// The WAN and the general quotas do not depend on the port, so they never speak
// of another one; a port that is tried instead meets them.
//
// What is decided here:
//   - same_device is off: the standard wants the address that asks. Clients that
//     discover by FF02::C and let the kernel choose their source address need it.
//   - A unique local address has no pinhole unless policy.unique_local allows it: PCP
//     would promise it as the address that peers use. It is NOT_AUTHORIZED and 606,
//     not NETWORK_FAILURE: only the configuration can change it, and a client that is
//     told to wait would ask every half minute.
//   - The last quarter of limits.mappings is shared: the less is left, the fewer
//     mappings a device may have to get more, and a device that has never answered the
//     gateway (Client.Unheard) gets none.
//   - One LAN among several has three quarters of limits.mappings, unless the owner says:
//     many devices with few mappings each could take the reserve as well.
package policy
