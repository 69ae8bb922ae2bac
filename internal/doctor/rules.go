package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"portcullis/firewall"
	"portcullis/firewall/iptables"
	"portcullis/firewall/nft"
	"portcullis/internal/program"
)

// listRules returns all rules of the machine, our own table left out: nftables' by the
// program nft, and those that belong to iptables, of either flavour, by its own
// programs, for nft lists these in words that it does not take back.
func listRules(ctx context.Context, backend string) ([]Rules, error) {
	var all []Rules
	tables, ofIPTables, err := listTables(ctx)
	switch {
	case errors.Is(err, program.ErrNotFound) && backend == firewall.IPTables: // a host without it has no such rules
	case err != nil:
		return nil, err
	default:
		all = append(all, Rules{Text: tables, Load: []string{"nft", "-f", "-"}})
	}
	var programs []string
	if ofIPTables {
		programs = append(programs, "iptables-nft", "ip6tables-nft")
	}
	if legacy, there, _ := iptables.LegacyRules(ctx); there {
		programs = append(programs, legacy, "ip6"+strings.TrimPrefix(legacy, "ip"))
	}
	for _, p := range programs {
		text, _, err := output(ctx, p+"-save")
		if err != nil {
			return nil, err
		}
		all = append(all, Rules{Text: text, Load: []string{p + "-restore"}})
	}
	return all, nil
}

// listTables returns the tables of nf_tables but for those of iptables, and says
// whether there are such.
func listTables(ctx context.Context) (text string, ofIPTables bool, err error) {
	names, _, err := output(ctx, "nft", "list", "tables")
	if err != nil {
		return "", false, err
	}
	var all strings.Builder
	for name := range strings.Lines(names) {
		words := strings.Fields(name) // table inet filter
		if len(words) != 3 || words[1] == "inet" && nft.Ours(words[2]) {
			continue
		}
		table, warning, err := output(ctx, append([]string{"nft", "list"}, words...)...)
		if err != nil {
			return "", false, err
		}
		if strings.Contains(warning+table, "iptables-nft") { // some versions write it into the listing
			ofIPTables = true
			continue
		}
		all.WriteString(table)
	}
	return all.String(), ofIPTables, nil
}

// output runs a program that lists, and returns what it warns of as well.
func output(ctx context.Context, argv ...string) (list, warning string, err error) {
	said, err := program.Run(ctx, "", argv...)
	if err != nil {
		return "", "", fmt.Errorf("the program %s does not list the rules: %w", argv[0], err)
	}
	return string(said.Out), string(said.Complaint), nil
}
