package nft

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"portcullis/firewall"
)

// element is one set element as the kernel tells it.
type element struct {
	key, val, keyEnd []byte
	intervalEnd      bool
	timeout, left    time.Duration // 0: none
	counter          firewall.Counter
}

// getElements builds the request for some elements of a set, or for all.
func getElements(family nftables.TableFamily, table, set string, keys [][]byte, flags netlink.HeaderFlags) netlink.Message {
	ae := netlink.NewAttributeEncoder()
	ae.String(unix.NFTA_SET_ELEM_LIST_TABLE, table)
	ae.String(unix.NFTA_SET_ELEM_LIST_SET, set)
	if len(keys) > 0 {
		ae.Nested(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func(list *netlink.AttributeEncoder) error {
			for _, key := range keys {
				list.Nested(unix.NFTA_LIST_ELEM, func(el *netlink.AttributeEncoder) error {
					el.Nested(unix.NFTA_SET_ELEM_KEY, func(k *netlink.AttributeEncoder) error {
						k.Bytes(unix.NFTA_DATA_VALUE, key)
						return nil
					})
					return nil
				})
			}
			return nil
		})
	}
	attrs, _ := ae.Encode() // fails on over-long attributes only
	return message(unix.NFT_MSG_GETSETELEM, flags, family, attrs)
}

// eachElement hands on the elements of one message.
func eachElement(a netlink.Message, use func(element)) error {
	ad, err := answer(a)
	if err != nil {
		return err
	}
	for ad.Next() {
		if ad.Type() != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			continue
		}
		ad.Nested(func(list *netlink.AttributeDecoder) error {
			for list.Next() {
				var el element
				list.Nested(el.decode)
				use(el)
			}
			return nil
		})
	}
	if err := ad.Err(); err != nil {
		return fmt.Errorf("decoding elements: %w", err)
	}
	return nil
}

func decoder(b []byte) (*netlink.AttributeDecoder, error) {
	ad, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return nil, err
	}
	ad.ByteOrder = binary.BigEndian
	return ad, nil
}

func (e *element) decode(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_SET_ELEM_KEY:
			ad.Nested(dataValue(&e.key))
		case nftables.NFTA_SET_ELEM_KEY_END:
			ad.Nested(dataValue(&e.keyEnd))
		case unix.NFTA_SET_ELEM_DATA:
			ad.Nested(dataValue(&e.val))
		case unix.NFTA_SET_ELEM_FLAGS:
			e.intervalEnd = ad.Uint32()&unix.NFT_SET_ELEM_INTERVAL_END != 0
		case unix.NFTA_SET_ELEM_TIMEOUT:
			e.timeout = time.Duration(ad.Uint64()) * time.Millisecond
		case unix.NFTA_SET_ELEM_EXPIRATION:
			e.left = time.Duration(ad.Uint64()) * time.Millisecond
		case unix.NFTA_SET_ELEM_EXPR:
			ad.Nested(e.decodeCounter)
		}
	}
	return nil
}

// dataValue reads a value, or the raw attributes of a verdict.
func dataValue(to *[]byte) func(*netlink.AttributeDecoder) error {
	return func(ad *netlink.AttributeDecoder) error {
		for ad.Next() {
			if t := ad.Type(); t == unix.NFTA_DATA_VALUE || t == unix.NFTA_DATA_VERDICT {
				*to = ad.Bytes()
			}
		}
		return nil
	}
}

func (e *element) decodeCounter(ad *netlink.AttributeDecoder) error {
	name := ""
	for ad.Next() {
		switch {
		case ad.Type() == unix.NFTA_EXPR_NAME:
			name = ad.String()
		case ad.Type() == unix.NFTA_EXPR_DATA && name == "counter":
			ad.Nested(func(c *netlink.AttributeDecoder) error {
				for c.Next() {
					switch c.Type() {
					case unix.NFTA_COUNTER_BYTES:
						e.counter.Bytes = c.Uint64()
					case unix.NFTA_COUNTER_PACKETS:
						e.counter.Packets = c.Uint64()
					}
				}
				return nil
			})
		}
	}
	return nil
}
