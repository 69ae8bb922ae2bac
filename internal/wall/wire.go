package wall

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"
)

// wire writes a message or reads one: what a field may be is said once, for both ways.
// The first fault stands in err, and whatever comes behind it is not looked at.
type wire struct {
	b       []byte // written so far, or left to read
	reading bool
	err     error
}

var (
	errShort    = errors.New("message is too short")
	errTrailing = errors.New("message is too long for what it says")
	errLong     = errors.New("message is longer than any may be")
	errVersion  = errors.New("message is of another version")
	errType     = errors.New("message is of no known type")
	errField    = errors.New("field of a message is out of its bounds")
)

func (w *wire) fail(err error) {
	if w.err == nil {
		w.err = err
	}
}

// check notes a fault where a field is not ok.
func (w *wire) check(ok bool) {
	if !ok {
		w.fail(errField)
	}
}

// take returns the next n octets to read or to write.
func (w *wire) take(n int) []byte {
	switch {
	case w.err != nil:
		return make([]byte, n)
	case !w.reading:
		w.b = append(w.b, make([]byte, n)...)
		return w.b[len(w.b)-n:]
	case len(w.b) < n:
		w.fail(errShort)
		return make([]byte, n)
	}
	b := w.b[:n]
	w.b = w.b[n:]
	return b
}

func (w *wire) u8(v *uint8) {
	b := w.take(1)
	if w.reading {
		*v = b[0]
	} else {
		b[0] = *v
	}
}

func (w *wire) i8(v *int8) {
	n := uint8(*v) // #nosec G115 -- and back
	w.u8(&n)
	if w.reading {
		*v = int8(n) // #nosec G115 -- and back
	}
}

func (w *wire) u16(v *uint16) {
	b := w.take(2)
	if w.reading {
		*v = binary.BigEndian.Uint16(b)
	} else {
		binary.BigEndian.PutUint16(b, *v)
	}
}

func (w *wire) u32(v *uint32) {
	b := w.take(4)
	if w.reading {
		*v = binary.BigEndian.Uint32(b)
	} else {
		binary.BigEndian.PutUint32(b, *v)
	}
}

func (w *wire) u64(v *uint64) {
	b := w.take(8)
	if w.reading {
		*v = binary.BigEndian.Uint64(b)
	} else {
		binary.BigEndian.PutUint64(b, *v)
	}
}

// count is an int of 0 to most, in two octets.
func (w *wire) count(v *int, most int) {
	if n := w.counted(*v, most); w.reading {
		*v = n
	}
}

// counted is count by value; 0 with an error.
func (w *wire) counted(v int, most int) int {
	n := uint16(v) // #nosec G115 -- checked below
	w.check(w.reading || v == int(n))
	w.u16(&n)
	w.check(int(n) <= most)
	if w.err != nil {
		return 0
	}
	return int(n)
}

// span is a duration of least and more.
func (w *wire) span(v *time.Duration, least time.Duration) {
	n := uint64(*v) // #nosec G115 -- and back
	w.u64(&n)
	d := time.Duration(n) // #nosec G115 -- and back
	if w.check(d >= least); w.reading {
		*v = d
	}
}

// moment is a time by the wall clock; zero is none.
func (w *wire) moment(v *time.Time) {
	var n uint64
	if !v.IsZero() {
		n = uint64(v.UnixNano()) // #nosec G115 -- and back
	}
	w.u64(&n)
	if w.reading {
		*v = time.Time{}
		if n != 0 {
			*v = time.Unix(0, int64(n)) // #nosec G115 -- and back
		}
	}
}

func (w *wire) flag(v *bool) {
	var n uint8
	if *v {
		n = 1
	}
	w.u8(&n)
	w.check(n <= 1)
	if w.reading {
		*v = n == 1
	}
}

// text is UTF-8 of at most so many octets.
func (w *wire) text(v *string, most int) {
	n := w.counted(len(*v), most)
	b := w.take(n)
	if w.reading {
		*v = string(b)
	} else {
		copy(b, *v)
	}
	w.check(utf8.ValidString(*v))
}

// maxName is how many octets the kernel allows the name of an interface.
const maxName = 15

// name is that of an interface.
func (w *wire) name(v *string) {
	w.text(v, maxName)
	w.check(*v == "" || !strings.ContainsAny(*v, "/ \t\r\n\x00") && *v != "." && *v != "..")
}

func (w *wire) mac(v *[6]byte) {
	b := w.take(len(v))
	if w.reading {
		copy(v[:], b)
	} else {
		copy(b, v[:])
	}
}

// addr is an address in its own form, without a zone; or none.
func (w *wire) addr(v *netip.Addr) {
	n := uint8(v.BitLen() / 8) // #nosec G115 -- 16 at most
	w.u8(&n)
	w.check(n == 0 || n == 4 || n == 16)
	w.check(v.Zone() == "" && !v.Is4In6())
	if w.err != nil {
		return
	}
	b := w.take(int(n))
	if w.reading {
		*v, _ = netip.AddrFromSlice(b) // of no octets: none
		w.check(!v.Is4In6())
	} else {
		copy(b, v.AsSlice())
	}
}

// host is an address that is there.
func (w *wire) host(v *netip.Addr) {
	w.addr(v)
	w.check(v.IsValid())
}

func (w *wire) addrPort(v *netip.AddrPort) {
	addr, port := v.Addr(), v.Port()
	w.host(&addr)
	w.u16(&port)
	if w.reading {
		*v = netip.AddrPortFrom(addr, port)
	}
}

// prefix is a network, masked.
func (w *wire) prefix(v *netip.Prefix) {
	addr, bits := v.Addr(), uint8(max(0, v.Bits())) // #nosec G115 -- 128 at most
	w.host(&addr)
	w.u8(&bits)
	p := netip.PrefixFrom(addr, int(bits))
	if w.check(p.IsValid() && p == p.Masked()); w.reading {
		*v = p
	}
}

// list is at most so many values.
func list[T any](w *wire, v *[]T, most int, one func(*T)) {
	n := w.counted(len(*v), most)
	if w.reading {
		*v = nil
		if n > 0 {
			*v = make([]T, 0, min(n, 8)) // no more room than octets will fill
		}
	}
	for i := range n {
		if w.err != nil {
			return
		}
		if w.reading {
			var x T
			one(&x)
			*v = append(*v, x)
			continue
		}
		x := (*v)[i] // a copy: others read the list meanwhile
		one(&x)
	}
}
