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
		Name: "list", Does: "list the open mappings",
		Options: []cmdline.Option{configOption, jsonOption},
		Run:     runList,
	}, {
		Name: "reload", Does: "have the daemon read its configuration again",
		Options: []cmdline.Option{configOption, jsonOption},
		Run:     runReload,
	}, {
		Name: "delete", Does: "delete mappings",
		Options: []cmdline.Option{configOption, jsonOption, {Name: "all", Does: "all mappings"}},
		Forms:   []string{"ID...", "tcp|udp PORT", "--all"},
		Example: "portcullis delete udp 3074",
		Run:     runDelete,
	}, {
		Name: "ports", Does: "list the ports that are closed, and why",
		Options: []cmdline.Option{jsonOption},
		Forms:   []string{"[PORT]"},
		Run:     runPorts,
	}, {
		Name: "version", Does: "print the version",
		Options: []cmdline.Option{jsonOption},
		Run:     runVersion,
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
