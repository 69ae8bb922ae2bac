package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"portcullis/firewall"
)

// Watch reports each transaction of another program, until ctx ends. It sees only
// that something was done, not whether it was done to what we hold: Audit says
// that. One Intrusion is told at the start, because what was done before is not
// known, and one stands for all that was lost when the socket was full. tell must
// not block for long.
//
// What the writer does is left out by its socket, where the kernel lets a filter be set,
// and else, as what our other sockets do, by the thread. The kernel numbers threads as
// its first process namespace does: in another one, a container's, these are told too.
func (k *kernel) Watch(ctx context.Context, tell func(firewall.Intrusion)) error {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{
		NetNS: k.cfg.NetNS, Groups: 1 << (unix.NFNLGRP_NFTABLES - 1),
	})
	if err != nil {
		return fmt.Errorf("nft watch: %w", explain(err))
	}
	defer c.Close()
	k.unheard.watches(c)
	defer k.unheard.watches(nil)
	_ = c.SetReadBuffer(bufferSize) // a wish: a small one only loses more
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	tell(firewall.Intrusion{Ours: true})
	w := watch{own: k.thread, owners: func(t nftables.Table) bool {
		chains := k.watched.Load()
		return chains != nil && slices.ContainsFunc(chains[:], func(c wantedChain) bool {
			return !c.none() && *tableOf(c.Chain) == t
		})
	}}
	for {
		messages, err := c.Receive()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, unix.ENOBUFS):
			w.ours = false
			tell(firewall.Intrusion{Ours: true})
			continue
		case err != nil:
			return fmt.Errorf("nft watch: %w", err)
		}
		for _, m := range messages {
			if i, ended := w.take(m); ended {
				tell(i)
			}
		}
	}
}

// watch puts the messages of a transaction together. The one that tells the
// ruleset's new number comes last, and returns who did it.
type watch struct {
	own    func(thread uint32) bool    // says whether a thread is of this process
	owners func(t nftables.Table) bool // and whether a table is an accept chain's
	ours   bool                        // our table was named since the last such message
}

// take returns what another program did, when the message ends its transaction.
func (w *watch) take(m netlink.Message) (firewall.Intrusion, bool) {
	const header = 4 // struct nfgenmsg: family, version, resource id
	if uint16(m.Header.Type)>>8 != unix.NFNL_SUBSYS_NFTABLES || len(m.Data) < header {
		return firewall.Intrusion{}, false
	}
	family, attrs := nftables.TableFamily(m.Data[0]), m.Data[header:]
	if uint16(m.Header.Type)&0xff != unix.NFT_MSG_NEWGEN {
		w.ours = w.ours || w.touches(uint16(m.Header.Type)&0xff, nftables.Table{Name: tableNamed(attrs), Family: family})
		return firewall.Intrusion{}, false
	}
	i := firewall.Intrusion{Ours: w.ours}
	w.ours = false
	thread := uint32(0)
	a, err := netlink.NewAttributeDecoder(attrs)
	if err != nil {
		return i, true
	}
	a.ByteOrder = binary.BigEndian
	for a.Next() {
		switch a.Type() {
		case unix.NFTA_GEN_PROC_PID:
			thread = a.Uint32() // a thread's, whatever the attribute's name says
		case unix.NFTA_GEN_PROC_NAME:
			i.Program = strings.ToValidUTF8(a.String(), "?")
		}
	}
	return i, a.Err() != nil || !w.own(thread)
}

// touches reports whether a message is about our mappings: anything in our table, and
// in an accept chain's what removes sets or elements. Rules come and go there at
// every reload.
func (w *watch) touches(kind uint16, t nftables.Table) bool {
	switch kind {
	case unix.NFT_MSG_DELTABLE, unix.NFT_MSG_DELSET, unix.NFT_MSG_DELSETELEM:
		if w.owners(t) {
			return true
		}
	}
	return t == nftables.Table{Name: Table, Family: nftables.TableFamilyINet}
}

// ownThread asks the kernel. A thread that has ended meanwhile passes for another
// program's, which costs an audit.
func ownThread(thread uint32) bool {
	_, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", thread))
	return err == nil
}

// tableNamed returns the table that a message is about: its first attribute, in every
// message of nf_tables but that of the ruleset's number.
func tableNamed(attrs []byte) string {
	a, err := netlink.NewAttributeDecoder(attrs)
	if err != nil {
		return ""
	}
	for a.Next() {
		if a.Type() == unix.NFTA_TABLE_NAME {
			return a.String()
		}
	}
	return ""
}
