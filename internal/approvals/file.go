package approvals

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"time"

	"portcullis/internal/json"
	"portcullis/portmap"
)

// header begins the file; behind it stands the checksum of the rest, so that a bit that has
// turned opens nothing.
const header = "portcullis approvals 1 "

// entry is an answer on disk.
type entry struct {
	ID          uint64     `json:"id"`
	Allow       bool       `json:"allow"`
	Interface   string     `json:"interface"`
	MAC         string     `json:"mac,omitempty"`
	Address     netip.Addr `json:"address"` // as it asked; without a MAC address, whom it is about
	Transport   uint8      `json:"transport,omitempty"`
	Port        uint16     `json:"port,omitempty"`
	Until       *time.Time `json:"until,omitempty"`
	Written     *time.Time `json:"written,omitempty"` // with until: a clock that is before it is wrong
	Once        bool       `json:"once,omitempty"`
	Mapping     uint64     `json:"mapping,omitempty"`
	Made        time.Time  `json:"made"`
	Via         uint8      `json:"via"`
	Host        string     `json:"host,omitempty"`
	Description string     `json:"description,omitempty"`
	Rule        string     `json:"rule,omitempty"`
}

// errDamaged means that the file is not what was written.
var errDamaged = errors.New("damaged")

// encode returns the file of a list.
func encode(list []Answer, now time.Time) ([]byte, error) {
	entries := make([]entry, len(list))
	for i := range list {
		a := &list[i]
		e := &entries[i]
		*e = entry{
			ID: a.ID, Allow: a.Allow, Interface: a.Device.Interface, MAC: a.Device.MAC.String(), Address: a.Client.Addr,
			Transport: uint8(a.Transport), Port: a.Port, Once: a.Once, Mapping: a.Mapping, Made: a.Made.UTC().Truncate(time.Second),
			Via: uint8(a.Client.Via), Host: a.Client.Name, Description: a.Description, Rule: a.Rule,
		}
		if until, written := a.end(now).UTC(), now.UTC(); !until.IsZero() {
			if a.asleep() {
				written = a.written.UTC()
			}
			e.Until, e.Written = &until, &written
		}
	}
	body, err := json.Marshal(entries)
	if err != nil {
		return nil, err
	}
	return append(fmt.Appendf(nil, "%s%08x\n", header, crc32.ChecksumIEEE(body)), body...), nil
}

// decode reads a file.
func decode(data []byte, now time.Time) ([]Answer, error) {
	line, body, _ := bytes.Cut(data, []byte("\n"))
	if string(line) != fmt.Sprintf("%s%08x", header, crc32.ChecksumIEEE(body)) {
		return nil, errDamaged
	}
	var entries []entry
	if err := json.UnmarshalStrict(body, &entries); err != nil || len(entries) > maxAnswers {
		return nil, errDamaged
	}
	list := make([]Answer, 0, len(entries))
	for i := range entries {
		a, err := entries[i].answer(now)
		if err != nil {
			return nil, err
		}
		list = append(list, a)
	}
	return list, nil
}

func (e *entry) answer(now time.Time) (a Answer, err error) {
	a = Answer{
		Answer: portmap.Answer{ID: e.ID, Allow: e.Allow, Transport: portmap.Transport(e.Transport), Port: e.Port, Once: e.Once, Mapping: e.Mapping},
		Client: portmap.Client{Addr: e.Address, Interface: e.Interface, Name: e.Host, Via: portmap.Via(e.Via)},
		Made:   e.Made, Description: e.Description, Rule: e.Rule,
	}
	if e.MAC != "" {
		if a.Client.MAC, err = portmap.ParseMAC(e.MAC); err != nil {
			return a, errDamaged
		}
	}
	a.Device = a.Client.ID().Device()
	if e.ID == 0 || !e.Address.IsValid() || e.Interface == "" || (e.Transport == 0) != (e.Port == 0) ||
		e.Transport != 0 && !a.Transport.Valid() || e.Once && (e.Transport == 0 || !e.Allow) || (e.Until == nil) != (e.Written == nil) {
		return a, errDamaged
	}
	if e.Until != nil {
		a.Until, a.ends, a.written = *e.Until, *e.Until, *e.Written
		a.wake(now)
	}
	return a, nil
}
