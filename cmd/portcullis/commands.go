package main

import (
	"context"
	"io"

	"portcullis/internal/cmdline"
)

// Options that many commands have, with the same meaning.
var (
	configOption = cmdline.Option{Name: "config", Arg: "FILE", Does: "the configuration; it names the socket of the daemon"}
	jsonOption   = cmdline.Option{Name: "json", Does: "print JSON"}
)

// commands is the table of all commands: the parser, the help, the completion of shells and
// the test of the manual go by it (internal/cmdline).
func commands() []cmdline.Command {
	return []cmdline.Command{{
		Name: "run", Does: "run the daemon in the foreground",
		Options: []cmdline.Option{configOption},
		Run:     runDaemon,
	}, {
		Name: "check", Does: "validate the configuration, and warn of what cannot work",
		Options: []cmdline.Option{configOption, jsonOption, {Name: "live", Does: "print what would be served on this machine, and why"}},
		Run:     runCheck,
	}, {
		Name: "doctor", Does: "find out why mappings fail, and how to fix it",
		Options: []cmdline.Option{configOption, jsonOption},
		Run:     runDoctor,
	}, {
		Name: "status", Does: "show the state of the daemon",
		Options: []cmdline.Option{configOption, jsonOption},
		Run:     runStatus,
	}, {
		Name: "list", Does: "list the open ports: whose, where to, until when, and their traffic",
		Options: []cmdline.Option{configOption, jsonOption,
			{Name: "client", Arg: "ADDRESS|MAC|HOST", Does: "only those of one device"},
			{Name: "lan", Arg: "INTERFACE", Does: "only those into one LAN"},
			{Name: "mac", Arg: "MAC", Does: "only those of one MAC address"},
			{Name: "sort", Arg: "id|port|target|expires|packets|bytes", Does: "the order, otherwise by port"}},
		Example: "portcullis list --client 192.168.1.20 --sort bytes",
		Run:     runList,
	}, {
		Name: "add", Does: "open a port of a host yourself",
		Options: []cmdline.Option{configOption, jsonOption,
			{Name: "for", Arg: "TIME", Does: "how long: 90m, 24h, 7d, or forever, as without it"},
			{Name: "from", Arg: "REMOTE", Does: "only from this address or network, or several with commas"},
			{Name: "description", Arg: "TEXT", Does: "what it is, for the list"}},
		Forms:   []string{"tcp|udp PORT ADDRESS:PORT", "tcp|udp ADDRESS6:PORT"},
		Example: "portcullis add tcp 8443 192.168.1.20:443 --for 24h",
		Run:     runAdd,
	}, {
		Name: "refused", Does: "list what was refused lately, and the rule that would allow it",
		Options: []cmdline.Option{configOption, jsonOption, {Name: "client", Arg: "ADDRESS|MAC|HOST", Does: "only those of one device"}},
		Example: "portcullis refused --client 192.168.1.9",
		Run:     runRefused,
	}, {
		Name: "pending", Does: "list what devices have asked for and what waits for you",
		Options: []cmdline.Option{configOption, jsonOption},
		Run:     runPending,
	}, {
		Name: "approve", Does: "open what waits, from when the device asks again",
		Options: []cmdline.Option{configOption, jsonOption,
			{Name: "for", Arg: "TIME", Does: "how long: 90m, 24h, 7d; without it for good"},
			{Name: "once", Does: "until that one port is closed"},
			{Name: "device", Does: "all that this device asks for"}},
		Forms:   []string{"ID"},
		Example: "portcullis approve 482913 --for 2h",
		Run:     runApprove,
	}, {
		Name: "deny", Does: "refuse what waits, from now on",
		Options: []cmdline.Option{configOption, jsonOption, {Name: "device", Does: "all that this device asks for"}},
		Forms:   []string{"ID"},
		Run:     runDeny,
	}, {
		Name: "approvals", Does: "list what you have approved and denied",
		Options: []cmdline.Option{configOption, jsonOption},
		Run:     runApprovals,
	}, {
		Name: "revoke", Does: "take back what you have approved or denied",
		Options: []cmdline.Option{configOption, jsonOption},
		Forms:   []string{"ID"},
		Run:     runRevoke,
	}, {
		Name: "explain", Does: "say whether a port would be opened, and why",
		Options: []cmdline.Option{configOption, jsonOption,
			{Name: "client", Arg: "ADDRESS|MAC", Does: "the device that would ask", Needed: true},
			{Name: "port", Arg: "PORT", Does: "the port of the device", Needed: true},
			{Name: "protocol", Arg: "tcp|udp", Does: "the protocol of the port", Needed: true},
			{Name: "external", Arg: "PORT", Does: "the external port; without it the same, 0 for any"},
			{Name: "via", Arg: "upnp|natpmp|pcp", Does: "how the device asks; without it by UPnP"},
			{Name: "description", Arg: "TEXT", Does: "what the device calls it"},
		},
		Example: "portcullis explain --client 192.168.1.9 --port 445 --protocol tcp",
		Run:     runExplain,
	}, {
		Name: "events", Does: "print what is opened, closed and refused, as it happens",
		Options: []cmdline.Option{configOption, jsonOption},
		Run:     runEvents,
	}, {
		Name: "reload", Does: "have the daemon read its configuration again",
		Options: []cmdline.Option{configOption, jsonOption},
		Run:     runReload,
	}, {
		Name: "delete", Does: "close ports",
		Options: []cmdline.Option{configOption, jsonOption, {Name: "all", Does: "close all that is open"}},
		Forms:   []string{"ID...", "tcp|udp PORT", "--all"},
		Example: "portcullis delete udp 3074",
		Run:     runDelete,
	}, {
		Name: "web", Does: "serve the page on which a browser shows and decides all this",
		Options: []cmdline.Option{configOption,
			{Name: "listen", Arg: "ADDRESS:PORT", Does: "where; 127.0.0.1:8480 without it"},
			{Name: "host", Arg: "NAME", Does: "what a browser may call it too; several with commas"},
			{Name: "insecure", Does: "let --listen be an address that a LAN reaches, unencrypted"}},
		Example: "portcullis web --listen 127.0.0.1:8480",
		Run:     runWeb,
	}, {
		Name: "ports", Does: "list the ports that are closed, and why",
		Options: []cmdline.Option{jsonOption},
		Forms:   []string{"[PORT]"},
		Run:     runPorts,
	}, {
		Name: "import", Does: "print what the configuration of miniupnpd becomes here",
		Options: []cmdline.Option{
			{Name: "networks", Arg: "FILE", Does: "what netifd says of the networks of this router"},
			{Name: "aliases", Arg: "FILE", Does: "its /etc/config/network, which says what is an alias"},
			{Name: "zone", Arg: "DEVICE", Does: "the device of the zone that external_zone names"},
			{Name: "fw3", Does: "the router's firewall is fw3, of iptables"}},
		Forms:   []string{"[FILE...]"},
		Example: "portcullis import /etc/config/upnpd /var/run/miniupnpd.leases",
		Run:     runImport,
	}, {
		Name: "rpcd", Does: "answer ubus on OpenWrt, as rpcd calls it",
		Options: []cmdline.Option{configOption},
		Forms:   []string{"list", "call METHOD"},
		Example: "portcullis rpcd call status",
		Run:     runRPCD,
	}, {
		Name: incumbentName, Does: "run the daemon by the options and the file of miniupnpd",
		Forms: []string{"[ARGUMENT...]"},
		Run:   runMiniupnpd,
	}, {
		Name: "cleanup", Does: "remove what a daemon that died has left in the kernel",
		Options: []cmdline.Option{configOption, jsonOption,
			{Name: "unless-kept", Does: "nothing, where firewall.keep_on_stop is set"}},
		Run: runCleanup,
	}, {
		Name: "version", Does: "print the version",
		Options: []cmdline.Option{jsonOption},
		Run:     runVersion,
	}, {
		Name: "completion", Does: "print what makes a shell complete the command line",
		Forms:   []string{"bash|zsh|fish"},
		Example: "portcullis completion bash",
		Run:     runCompletion,
	}, {
		Name: "help", Does: "print all commands, or how one is called",
		Forms: []string{"[COMMAND]"},
		Run:   runHelp,
	}}
}

func runHelp(_ context.Context, c *cmdline.Call) error {
	text := cmdline.Help(commands())
	if len(c.Args) > 0 {
		for _, one := range commands() {
			if one.Name == c.Args[0] {
				text = one.Help()
			}
		}
	}
	_, err := io.WriteString(c.Out, text)
	return err
}
