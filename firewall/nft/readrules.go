package nft

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// The library's own reader of rules fails on a whole chain when one expression
// in it is not as it expects, "ct original proto-dst" among them, which our own
// rules have. This one reads each expression alone, and leaves unread what it
// does not know.

// ruleRead is a rule as the kernel tells it.
type ruleRead struct {
	handle  uint64
	comment string
	exprs   []rawExpr
}

// rawExpr is one expression: its name and its undecoded attributes.
type rawExpr struct {
	name string
	data []byte
}

// text is the same for the same rule, and differs for another.
func (r *ruleRead) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q", r.comment)
	for _, e := range r.exprs {
		if !e.idle() {
			fmt.Fprintf(&b, " %s %x", e.name, e.data)
		}
	}
	return b.String()
}

// idle reports whether an expression does nothing: the nft program turns the octets of
// a single one round.
func (e rawExpr) idle() bool {
	if e.name != "byteorder" {
		return false
	}
	ad, err := netlink.NewAttributeDecoder(e.data)
	if err != nil {
		return false
	}
	ad.ByteOrder = binary.BigEndian
	for ad.Next() {
		if ad.Type() == unix.NFTA_BYTEORDER_LEN {
			return ad.Uint32() == 1
		}
	}
	return false
}

// rules lists a chain. A chain or table that is not there has no rules, or is
// an error, as the kernel likes.
func (r *reader) rules(ctx context.Context, table *nftables.Table, chain string) ([]ruleRead, error) {
	ae := netlink.NewAttributeEncoder()
	ae.String(unix.NFTA_RULE_TABLE, table.Name)
	ae.String(unix.NFTA_RULE_CHAIN, chain)
	attrs, err := ae.Encode()
	if err != nil {
		return nil, err
	}
	var all []ruleRead
	request := message(unix.NFT_MSG_GETRULE, netlink.Dump, table.Family, attrs)
	err = r.listing(ctx, request, func() { all = nil }, func(a netlink.Message) error {
		rule, err := decodeRule(a)
		all = append(all, rule)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listing chain %s: %w", chain, err)
	}
	return all, nil
}

func decodeRule(a netlink.Message) (ruleRead, error) {
	var rule ruleRead
	ad, err := answer(a)
	if err != nil {
		return rule, err
	}
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_RULE_HANDLE:
			rule.handle = ad.Uint64()
		case unix.NFTA_RULE_USERDATA:
			rule.comment = commentIn(ad.Bytes())
		case unix.NFTA_RULE_EXPRESSIONS:
			ad.Nested(func(list *netlink.AttributeDecoder) error {
				for list.Next() {
					var e rawExpr
					list.Nested(e.decode)
					rule.exprs = append(rule.exprs, e)
				}
				return nil
			})
		}
	}
	return rule, ad.Err()
}

func (e *rawExpr) decode(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_EXPR_NAME:
			e.name = ad.String()
		case unix.NFTA_EXPR_DATA:
			e.data = ad.Bytes()
		}
	}
	return nil
}

// known are the expressions that are read.
func known(name string) expr.Any {
	switch name {
	case "bitwise":
		return &expr.Bitwise{}
	case "cmp":
		return &expr.Cmp{}
	case "counter":
		return &expr.Counter{}
	case "immediate":
		return &expr.Immediate{}
	case "lookup":
		return &expr.Lookup{}
	case "match":
		return &expr.Match{}
	case "meta":
		return &expr.Meta{}
	case "nat":
		return &expr.NAT{}
	case "payload":
		return &expr.Payload{}
	case "range":
		return &expr.Range{}
	case "redir":
		return &expr.Redir{}
	case "target":
		return &expr.Target{}
	}
	return nil
}

// read decodes an expression, or returns nil where it is not known. A verdict is
// told by the kernel as an immediate load of the verdict register.
func (e rawExpr) read(family nftables.TableFamily) expr.Any {
	if e.name == "immediate" {
		if v := verdictIn(e.data); v != nil {
			return v
		}
	}
	x := known(e.name)
	if x == nil || expr.Unmarshal(byte(family), e.data, x) != nil {
		return nil
	}
	return x
}

func verdictIn(immediate []byte) *expr.Verdict {
	ad, err := decoder(immediate)
	if err != nil {
		return nil
	}
	var v *expr.Verdict
	for ad.Next() {
		if ad.Type() != unix.NFTA_IMMEDIATE_DATA {
			continue
		}
		ad.Nested(func(data *netlink.AttributeDecoder) error {
			for data.Next() {
				if data.Type() == unix.NFTA_DATA_VERDICT {
					v = verdictOf(data.Bytes())
				}
			}
			return nil
		})
	}
	return v
}

// verdictOf reads the attributes of a verdict, or returns nil.
func verdictOf(raw []byte) *expr.Verdict {
	ad, err := decoder(raw)
	if err != nil {
		return nil
	}
	v := &expr.Verdict{Kind: expr.VerdictContinue}
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_VERDICT_CODE:
			v.Kind = expr.VerdictKind(int32(ad.Uint32()))
		case unix.NFTA_VERDICT_CHAIN:
			v.Chain = ad.String()
		}
	}
	if ad.Err() != nil {
		return nil
	}
	return v
}

// target returns the chain a verdict leads to, or "".
func targetOf(v *expr.Verdict) string {
	if v != nil && (v.Kind == expr.VerdictJump || v.Kind == expr.VerdictGoto) {
		return v.Chain
	}
	return ""
}
