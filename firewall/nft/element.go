package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
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

// kept returns the element in memory of its own.
func (e element) kept() element {
	e.key, e.val, e.keyEnd = slices.Clone(e.key), slices.Clone(e.val), slices.Clone(e.keyEnd)
	return e
}

// getElements builds the request for some elements of a set, or for all.
func getElements(family nftables.TableFamily, table, set string, keys [][]byte, flags netlink.HeaderFlags) netlink.Message {
	const each = 48 // octets of a key with its headers, or about as many
	b := make([]byte, 0, 128+each*len(keys))
	b = append(b, byte(family), unix.NFNETLINK_V0, 0, 0)
	b = appendText(b, unix.NFTA_SET_ELEM_LIST_TABLE, table)
	b = appendText(b, unix.NFTA_SET_ELEM_LIST_SET, set)
	if len(keys) > 0 {
		list := len(b)
		b = beginAttribute(b)
		for _, key := range keys {
			b = appendElement(b, &nftables.SetElement{Key: key})
		}
		b = endAttribute(b, list, unix.NLA_F_NESTED|unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	}
	const kind = netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETSETELEM)
	return netlink.Message{Header: netlink.Header{Type: kind, Flags: netlink.Request | flags}, Data: b}
}

// eachElement hands on the elements of one message, in the memory that has it.
func eachElement(a netlink.Message, use func(element)) error {
	if len(a.Data) < 4 {
		return errors.New("an answer without a header")
	}
	err := eachAttribute(a.Data[4:], func(kind int, list []byte) error {
		if kind != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			return nil
		}
		return eachAttribute(list, func(_ int, attrs []byte) error {
			var el element
			err := el.decode(attrs)
			if err == nil {
				use(el)
			}
			return err
		})
	})
	if err != nil {
		return fmt.Errorf("decoding elements: %w", err)
	}
	return nil
}

// eachAttribute walks attributes (netlink(7)). It is what the library's decoder is, without
// memory for each of them: a list of a set has hundreds of thousands.
func eachAttribute(b []byte, use func(kind int, data []byte) error) error {
	for len(b) > 0 {
		if len(b) < unix.NLA_HDRLEN {
			return fmt.Errorf("%d octets behind an attribute", len(b))
		}
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.NLA_HDRLEN || size > len(b) {
			return fmt.Errorf("an attribute of %d octets in %d", size, len(b))
		}
		kind := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
		if err := use(int(kind), b[unix.NLA_HDRLEN:size:size]); err != nil {
			return err
		}
		b = b[min((size+3)&^3, len(b)):]
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

func (e *element) decode(b []byte) error {
	return eachAttribute(b, func(kind int, data []byte) (err error) {
		switch kind {
		case unix.NFTA_SET_ELEM_KEY:
			e.key, err = dataValue(data)
		case nftables.NFTA_SET_ELEM_KEY_END:
			e.keyEnd, err = dataValue(data)
		case unix.NFTA_SET_ELEM_DATA:
			e.val, err = dataValue(data)
		case unix.NFTA_SET_ELEM_FLAGS:
			if len(data) != 4 {
				return errNumber
			}
			e.intervalEnd = binary.BigEndian.Uint32(data)&unix.NFT_SET_ELEM_INTERVAL_END != 0
		case unix.NFTA_SET_ELEM_TIMEOUT:
			e.timeout, err = milliseconds(data)
		case unix.NFTA_SET_ELEM_EXPIRATION:
			e.left, err = milliseconds(data)
		case unix.NFTA_SET_ELEM_EXPR:
			err = e.decodeCounter(data)
		}
		return err
	})
}

var errNumber = errors.New("a number of another length")

func milliseconds(b []byte) (time.Duration, error) {
	n, err := number(b)
	return time.Duration(n) * time.Millisecond, err // #nosec G115 -- the kernel's own
}

func number(b []byte) (uint64, error) {
	if len(b) != 8 {
		return 0, errNumber
	}
	return binary.BigEndian.Uint64(b), nil
}

// dataValue returns a value, or the raw attributes of a verdict.
func dataValue(b []byte) (value []byte, err error) {
	err = eachAttribute(b, func(kind int, data []byte) error {
		if kind == unix.NFTA_DATA_VALUE || kind == unix.NFTA_DATA_VERDICT {
			value = data
		}
		return nil
	})
	return value, err
}

func (e *element) decodeCounter(b []byte) error {
	counter := false
	return eachAttribute(b, func(kind int, data []byte) error {
		switch {
		case kind == unix.NFTA_EXPR_NAME:
			counter = string(data) == "counter\x00"
		case kind == unix.NFTA_EXPR_DATA && counter:
			return eachAttribute(data, func(kind int, data []byte) (err error) {
				switch kind {
				case unix.NFTA_COUNTER_BYTES:
					e.counter.Bytes, err = number(data)
				case unix.NFTA_COUNTER_PACKETS:
					e.counter.Packets, err = number(data)
				}
				return err
			})
		}
		return nil
	})
}
