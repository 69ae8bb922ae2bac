package approvals

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/internal/slog"
	"portcullis/portmap"
)

// disk is a Store.
type disk struct {
	data  []byte
	err   error // of each write
	bad   error // of reading
	aside int
}

func (d *disk) Answers() ([]byte, error) {
	if d.data == nil {
		return nil, fs.ErrNotExist
	}
	return d.data, d.bad
}

func (d *disk) SaveAnswers(b []byte) error {
	if d.err == nil {
		d.data = bytes.Clone(b)
	}
	return d.err
}

func (d *disk) SetAnswersAside() (string, error) {
	d.aside++
	d.data = nil
	return "aside", nil
}

// engine notes what it is told.
type engine struct {
	table    *portmap.Table
	answered int
	err      error // of Answer
	told     []portmap.Event
}

func (e *engine) Answer(context.Context, portmap.Answers) ([]portmap.Dropped, error) {
	e.answered++
	return nil, e.err
}
func (e *engine) Answered(ev portmap.Event) { e.told = append(e.told, ev) }
func (e *engine) Snapshot() *portmap.Table  { return e.table }
func client(n int) portmap.Client {
	return portmap.Client{
		Addr: netip.AddrFrom4([4]byte{192, 168, byte(n >> 8), byte(n)}), MAC: portmap.MAC{2, 0, 0, 0, byte(n >> 8), byte(n)},
		Interface: "br-lan", Name: "host", Via: portmap.ViaPCP,
	}
}

func pending(c portmap.Client, port uint16, at time.Time) *portmap.Event {
	return &portmap.Event{Time: at, Type: portmap.Pending, Reason: portmap.NeedsApproval, Rule: "ask me", Client: c, Mapping: portmap.Mapping{
		Client: c, Transport: portmap.UDP, Internal: netip.AddrPortFrom(c.Addr, port), ExternalPort: port, Description: "a game",
	}}
}

func open(t *testing.T, d *disk, restored ...portmap.Mapping) (*Keeper, *engine, *bytes.Buffer) {
	t.Helper()
	log := new(bytes.Buffer)
	k := Open(slog.New(slog.NewTextHandler(log, nil)), d, restored)
	e := &engine{table: portmap.NewTable()}
	k.Start(e)
	return k, e, log
}

func answer(t *testing.T, k *Keeper, r Reply) Answer {
	t.Helper()
	a, _, err := k.Answer(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestWaiting: one port of a device is one thing that waits, however often and however it is
// asked for, until it is answered, opened, refused for another reason or forgotten.
func TestWaiting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k, _, _ := open(t, new(disk))
		begin := time.Now()
		for i := range 3 {
			k.note(pending(client(1), 3074, begin.Add(time.Duration(i)*time.Second)))
		}
		k.note(pending(client(1), 3075, begin.Add(time.Minute)))
		k.note(pending(client(2), 3074, begin.Add(time.Hour)))
		all := k.Waiting()
		if len(all) != 3 || all[2].Count != 3 || !all[2].First.Equal(begin) || !all[2].Last.Equal(begin.Add(2*time.Second)) || all[2].Rule != "ask me" {
			t.Fatalf("%+v", all)
		}
		if id := k.About(&all[2].Request.Client, portmap.UDP, 3074); id != all[2].ID || k.Count() != 3 {
			t.Errorf("it waits as %d, of %d", id, k.Count())
		}
		for i, end := range []portmap.EventType{portmap.Granted, portmap.Denied} {
			ev := pending(client(1), 3074+uint16(i), time.Now())
			ev.Type = end
			k.note(ev)
		}
		if all := k.Waiting(); len(all) != 1 || all[0].Request.Client.Addr != client(2).Addr {
			t.Errorf("%+v", all)
		}
		time.Sleep(forgetting + 2*time.Hour)
		k.sweep(t.Context())
		if k.Count() != 0 {
			t.Error("it is never forgotten")
		}
	})
}

// TestWaitingFlood: a device that asks for everything forgets its own requests and nobody
// else's; one that makes up devices takes the places of those that have not answered the
// gateway; and the memory of it all is bounded.
func TestWaitingFlood(t *testing.T) {
	k, _, _ := open(t, new(disk))
	now := time.Now()
	k.note(pending(client(1), 3074, now))
	long := strings.Repeat("x", portmap.MaxDescription)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range 10_000 {
		ev := pending(client(2), uint16(1024+i), now)
		ev.Mapping.Description = strings.Clone(long)
		k.note(ev)
	}
	for i := range 10_000 {
		c := client(10 + i)
		c.Unheard = true
		k.note(pending(c, 3074, now.Add(time.Second)))
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if used := int64(after.HeapAlloc) - int64(before.HeapAlloc); used > 1<<20 { // #nosec G115 -- of a test
		t.Errorf("it takes %d octets", used)
	}
	c := client(1)
	if k.About(&c, portmap.UDP, 3074) == 0 {
		t.Error("the first device's request is forgotten")
	}
	if n := k.Count(); n > maxDevices*maxPerOne || n < maxDevices {
		t.Errorf("%d wait", n)
	}
	// One of another LAN, with as many devices as it likes that all answer, takes no place here.
	for i := range 200 {
		guest := client(20_000 + i)
		guest.Interface = "br-guest"
		k.note(pending(guest, 3074, now.Add(time.Minute)))
	}
	if k.About(&c, portmap.UDP, 3074) == 0 {
		t.Error("guests have the first device's request forgotten")
	}
}

// TestAnnounce: what waits is told of once, and where there is no room for it, when it is asked
// for again.
func TestAnnounce(t *testing.T) {
	t.Parallel()
	k, _, _ := open(t, new(disk))
	now, room := time.Now(), false
	for i, c := range []struct {
		room, told, missed bool
	}{{false, false, true}, {false, false, false}, {true, true, false}, {true, false, false}} {
		room = c.room
		id, missed := k.Announce(pending(client(1), 3074, now.Add(time.Duration(i)*time.Second)), func() bool { return room })
		if (id != 0) != c.told || missed != c.missed {
			t.Errorf("%d: told of %d, missed %v", i, id, missed)
		}
	}
	if w := k.Waiting(); len(w) != 1 || w[0].Count != 4 {
		t.Errorf("%+v", w)
	}
}

// TestAnswers: an answer holds when it is stored, comes back in the next run as it was, and
// ends when it says.
func TestAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := new(disk)
		k, e, _ := open(t, d)
		v6 := client(3)
		v6.Addr, v6.MAC = netip.MustParseAddr("2001:db8::3"), portmap.MAC{}
		for i, c := range []portmap.Client{client(1), client(1), client(2), v6} {
			k.note(pending(c, 3074+uint16(i), time.Now()))
		}
		ids := map[uint16]uint64{}
		for _, w := range k.Waiting() {
			ids[w.Request.Internal.Port()] = w.ID
		}
		answer(t, k, Reply{ID: ids[3074], Allow: true, For: time.Hour})
		answer(t, k, Reply{ID: ids[3075], Allow: true, Once: true})
		answer(t, k, Reply{ID: ids[3076]})
		answer(t, k, Reply{ID: ids[3077], Allow: true, Device: true})
		if k.Count() != 0 || e.answered != 4 || len(e.told) != 4 || e.told[2].Type != portmap.Refused || e.told[0].Answer.ID != ids[3074] {
			t.Errorf("%d wait, the engine heard %d, others %+v", k.Count(), e.answered, e.told)
		}
		time.Sleep(time.Minute)
		next, _, _ := open(t, d)
		list := next.List()
		if len(list) != 4 {
			t.Fatalf("%+v", list)
		}
		for i, want := range []string{
			"true br-lan 2001:db8::3  0 0 false 0s", "false br-lan 192.168.0.2 02:00:00:00:00:02 17 3076 false 0s",
			"true br-lan 192.168.0.1 02:00:00:00:00:01 17 3075 true 0s", "true br-lan 192.168.0.1 02:00:00:00:00:01 17 3074 false 59m0s",
		} {
			a := &list[i]
			left := time.Duration(0)
			if !a.Until.IsZero() {
				left = time.Until(a.Until)
			}
			got := fmt.Sprint(a.Allow, " ", a.Device.Interface, " ", a.Client.Addr, " ", a.Client.MAC, " ", uint8(a.Transport), " ", a.Port, " ", a.Once, " ", left)
			if got != want || a.Client.Name != "host" || a.Client.Via != portmap.ViaPCP || a.Description != "a game" || a.Rule != "ask me" {
				t.Errorf("%d: %s, want %s; %+v", i, got, want, a)
			}
		}
		time.Sleep(time.Hour)
		next.sweep(t.Context())
		if last, _, _ := open(t, d); len(last.List()) != 3 || len(next.List()) != 3 {
			t.Errorf("after an hour %+v", last.List())
		}
	})
}

// TestReplaced: the last answer about the same thing holds; who is denied as a whole has nothing
// left, who is approved as a whole keeps what was denied by itself; and a number that nothing
// has is no answer.
func TestReplaced(t *testing.T) {
	t.Parallel()
	k, _, _ := open(t, new(disk))
	for port := uint16(1); port < 4; port++ {
		k.note(pending(client(1), port, time.Now()))
	}
	w := k.Waiting()
	answer(t, k, Reply{ID: w[0].ID})
	answer(t, k, Reply{ID: w[0].ID, Allow: true})
	if list := k.List(); len(list) != 1 || !list[0].Allow {
		t.Errorf("%+v", list)
	}
	answer(t, k, Reply{ID: w[0].ID})
	answer(t, k, Reply{ID: w[1].ID, Allow: true, Device: true})
	if list := k.List(); len(list) != 2 || list[1].Allow {
		t.Errorf("%+v", list)
	}
	if k.Count() != 0 {
		t.Error("what the device asks for still waits")
	}
	answer(t, k, Reply{ID: w[1].ID, Device: true})
	if list := k.List(); len(list) != 1 || list[0].Allow || list[0].Port != 0 {
		t.Errorf("%+v", list)
	}
	for _, c := range []struct {
		r    Reply
		want error
	}{{Reply{ID: 1}, ErrNothing}, {Reply{ID: w[2].ID}, ErrNothing}, {Reply{ID: w[1].ID, Allow: true, Once: true, Device: true}, ErrOnce}, {Reply{ID: w[1].ID, Allow: true, Once: true}, ErrOnce}} {
		if _, _, err := k.Answer(t.Context(), c.r); !errors.Is(err, c.want) {
			t.Errorf("%+v: %v", c.r, err)
		}
	}
	if _, err := k.Revoke(t.Context(), 1); !errors.Is(err, ErrNothing) {
		t.Error(err)
	}
}

// TestNotStored: what cannot be stored does not hold, but for what takes an answer back, which
// is stored as soon as that can be.
func TestNotStored(t *testing.T) {
	t.Parallel()
	d := new(disk)
	k, e, log := open(t, d)
	k.note(pending(client(1), 3074, time.Now()))
	k.note(pending(client(1), 3075, time.Now()))
	w := k.Waiting()
	kept := answer(t, k, Reply{ID: w[0].ID, Allow: true})
	d.err = errors.New("no space left on device")
	var failed *StoreError
	if _, _, err := k.Answer(t.Context(), Reply{ID: w[1].ID, Allow: true}); !errors.As(err, &failed) || failed.Holds || !strings.Contains(err.Error(), "nothing has changed: no space left") {
		t.Errorf("approved: %v", err)
	}
	if len(k.List()) != 1 || k.Count() != 1 || e.answered != 1 || len(e.told) != 1 {
		t.Errorf("it holds: %+v", k.List())
	}
	if _, err := k.Revoke(t.Context(), kept.ID); !errors.As(err, &failed) || !failed.Holds {
		t.Errorf("revoked: %v", err)
	}
	if len(k.List()) != 0 || e.answered != 2 {
		t.Error("revoking changed nothing")
	}
	d.err = nil
	k.sweep(t.Context())
	if next, _, _ := open(t, d); len(next.List()) != 0 {
		t.Error("it is not stored later")
	}
	if n := strings.Count(log.String(), "cannot save the approvals"); n != 1 {
		t.Errorf("it is said %d times", n)
	}
}

// TestFull: there is a most, and it is said.
func TestFull(t *testing.T) {
	t.Parallel()
	k, _, _ := open(t, new(disk))
	for i := range maxAnswers + 1 {
		k.note(pending(client(i), 3074, time.Now()))
		w := k.Waiting()
		if _, _, err := k.Answer(t.Context(), Reply{ID: w[0].ID, Allow: true}); (i == maxAnswers) != errors.Is(err, ErrTooMany) || i < maxAnswers && err != nil {
			t.Fatalf("%d: %v", i, err)
		}
	}
}

// TestDamaged: a file that is not what was written is set aside, and nothing is approved, wherever
// a bit has turned, or the end is missing.
func TestDamaged(t *testing.T) {
	t.Parallel()
	d := new(disk)
	k, _, _ := open(t, d)
	k.note(pending(client(1), 3074, time.Now()))
	answer(t, k, Reply{ID: k.Waiting()[0].ID, Allow: true})
	whole := d.data
	for i := range whole {
		for _, spoilt := range [][]byte{whole[:i], append(append(bytes.Clone(whole[:i]), whole[i]^1), whole[i+1:]...)} {
			d := &disk{data: spoilt}
			k, _, log := open(t, d)
			if len(k.List()) != 0 || d.aside != 1 || !strings.Contains(log.String(), "damaged") {
				t.Fatalf("%q gives %+v", spoilt, k.List())
			}
		}
	}
	// One that cannot be read now is not written over either.
	unread := &disk{data: whole, bad: errors.New("input/output error")}
	if k, _, log := open(t, unread); len(k.List()) != 0 || unread.aside != 1 || !strings.Contains(log.String(), "kept_as=aside") {
		t.Errorf("it is set aside %d times; log %s", unread.aside, log)
	}
}

// TestOnceIsOver: what was for one mapping is forgotten with it, in this run or before the next.
func TestOnceIsOver(t *testing.T) {
	t.Parallel()
	d := new(disk)
	k, _, _ := open(t, d)
	k.note(pending(client(1), 3074, time.Now()))
	a := answer(t, k, Reply{ID: k.Waiting()[0].ID, Allow: true, Once: true})
	a.Mapping = 7
	k.keep([]Answer{a})
	if next, _, _ := open(t, d); len(next.List()) != 0 {
		t.Error("its mapping has ended, and it is there")
	}
	next, _, _ := open(t, d, portmap.Mapping{ID: 7})
	if len(next.List()) != 1 {
		t.Fatal("its mapping is there, and it is not")
	}
	ended := pending(client(1), 3074, time.Now())
	ended.Type, ended.Mapping.ID = portmap.Expired, 7
	next.note(ended)
	if last, _, _ := open(t, d, portmap.Mapping{ID: 7}); len(next.List()) != 0 || len(last.List()) != 0 {
		t.Error("its mapping has ended, and it is there")
	}
}

// TestClockIsBehind: a router that boots in 1970 has nothing open by an answer that ends, however
// often it boots, and the owner is asked; when its clock is right the answer holds, for what is
// left of it.
func TestClockIsBehind(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := new(disk)
		said := time.Now() // in 2000
		k, _, _ := open(t, d)
		k.note(pending(client(1), 3074, said))
		answer(t, k, Reply{ID: k.Waiting()[0].ID, Allow: true, For: time.Hour})
		k.note(pending(client(1), 3075, said))
		answer(t, k, Reply{ID: k.Waiting()[0].ID, Allow: true})

		boot := func(clock time.Time) (list []Answer) {
			t.Helper()
			list, err := decode(d.data, clock)
			if err != nil || len(list) != 2 {
				t.Fatalf("%+v, %v", list, err)
			}
			return list
		}
		for name, clock := range map[string]time.Time{"1970": time.Unix(60, 0), "an hour ago": said.Add(-time.Hour), "two minutes ago": said.Add(-2 * time.Minute)} {
			list := boot(clock)
			if !list[0].asleep() || list[1].asleep() || list[0].Until.IsZero() {
				t.Errorf("%s: %+v", name, list)
			}
			data, err := encode(list, clock) // by what is said meanwhile
			if again, failed := decode(data, clock); err != nil || failed != nil || !again[0].asleep() || !again[0].end(clock).Equal(said.Add(time.Hour)) {
				t.Errorf("%s: again %+v, %v, %v", name, again, err, failed)
			}
		}
		for back, left := range map[time.Duration]time.Duration{-40 * time.Minute: 20 * time.Minute, -time.Second: time.Hour - time.Second, time.Second: time.Hour} {
			clock := said.Add(-back)
			if a := boot(clock)[0]; a.asleep() || a.Until.Sub(clock) != left {
				t.Errorf("the clock is %v behind: %v are left", back, a.Until.Sub(clock))
			}
		}

		// A run whose clock is put right: it is as if the file were of the future.
		k, e, _ := open(t, d)
		k.answers[0].ends, k.answers[0].written = said.Add(3*time.Hour), said.Add(2*time.Hour)
		k.answers[0].Until = k.answers[0].ends
		if a := k.Answers(); !reflect.DeepEqual(a, portmap.NewAnswers([]portmap.Answer{k.answers[1].Answer})) {
			t.Errorf("the engine begins with %+v", a)
		}
		k.note(pending(client(1), 3074, time.Now()))
		if list := k.List(); k.Count() != 1 || len(list) != 2 || !list[1].Until.Equal(said.Add(3*time.Hour)) {
			t.Errorf("%d wait, %+v", k.Count(), list)
		}
		k.sweep(t.Context())
		if e.answered != 0 {
			t.Error("it holds before its time")
		}
		time.Sleep(2*time.Hour + time.Minute)
		k.sweep(t.Context())
		if list := k.List(); e.answered != 1 || list[1].asleep() || time.Until(list[1].Until) != 59*time.Minute {
			t.Errorf("the clock is right, and the engine was told %d times; %+v", e.answered, list)
		}
		time.Sleep(time.Hour)
		k.sweep(t.Context())
		if len(k.List()) != 1 || e.answered != 2 {
			t.Errorf("it goes on: %+v", k.List())
		}
	})
}

// TestFileTellsTime: while an answer holds that ends, the file is written anew, so that the next
// run knows how late it is; otherwise it is not.
func TestFileTellsTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := new(disk)
		k, _, _ := open(t, d)
		k.note(pending(client(1), 3074, time.Now()))
		answer(t, k, Reply{ID: k.Waiting()[0].ID, Allow: true})
		k.note(pending(client(1), 3075, time.Now()))
		first := bytes.Clone(d.data)
		time.Sleep(writeEvery)
		k.sweep(t.Context())
		if !bytes.Equal(d.data, first) {
			t.Error("it is written though nothing ends")
		}
		answer(t, k, Reply{ID: k.Waiting()[0].ID, Allow: true, For: time.Hour})
		said := time.Now()
		time.Sleep(writeEvery)
		k.sweep(t.Context())
		if list, err := decode(d.data, said); err != nil || !list[1].asleep() {
			t.Errorf("a boot %v back is not noticed: %+v, %v", writeEvery, list, err)
		}
		if list, err := decode(d.data, time.Now()); err != nil || time.Until(list[1].Until) != time.Hour-writeEvery {
			t.Errorf("%+v, %v", list, err)
		}
	})
}

// TestCloseAgain: what could not be closed when an approval was denied or taken back is tried
// again, until it is; the owner must not have to say so twice.
func TestCloseAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k, e, log := open(t, new(disk))
		busy := errors.New("the firewall is busy")
		for name, takeBack := range map[string]func(id uint64) error{
			"revoke": func(id uint64) error { _, err := k.Revoke(t.Context(), id); return err },
			"deny":   func(id uint64) error { _, _, err := k.Answer(t.Context(), Reply{ID: id}); return err },
		} {
			k.note(pending(client(1), 3074, time.Now()))
			a := answer(t, k, Reply{ID: k.Waiting()[0].ID, Allow: true})
			e.answered, e.err = 0, busy
			if err := takeBack(a.ID); !errors.Is(err, busy) {
				t.Errorf("%s: %v", name, err)
			}
			log.Reset()
			k.sweep(t.Context())
			if e.answered != 2 || !strings.Contains(log.String(), "trying again") {
				t.Errorf("%s: the engine was told %d times; log %s", name, e.answered, log)
			}
			e.err = nil
			k.sweep(t.Context())
			k.sweep(t.Context())
			if e.answered != 3 {
				t.Errorf("%s: the engine was told %d times in the end, want 3", name, e.answered)
			}
			for _, a := range k.List() {
				if _, err := k.Revoke(t.Context(), a.ID); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

// TestNothingToSweep: nobody wakes for what the owner has not said or has said for good, and
// hardly for what waits for days. What ends does so in its time all the same, and what could
// not be closed is tried again.
func TestNothingToSweep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k, e, _ := open(t, new(disk))
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- k.follow(ctx, nil) }()
		every := func(when string, want time.Duration) {
			t.Helper()
			synctest.Wait()
			if got := k.sweeps(); got != want {
				t.Errorf("%s: a sweep each %v, want %v", when, got, want)
			}
		}
		every("nothing was said", 0)
		time.Sleep(time.Hour)
		k.note(pending(client(1), 3074, time.Now()))
		every("something waits", time.Minute)
		answer(t, k, Reply{ID: k.Waiting()[0].ID, Allow: true})
		every("something holds for good", 0)
		k.note(pending(client(1), 3075, time.Now()))
		answer(t, k, Reply{ID: k.Waiting()[0].ID, Allow: true, For: 90 * time.Second})
		every("something ends", sweepEvery)
		e.answered = 0
		time.Sleep(90*time.Second + sweepEvery)
		every("it has ended", 0)
		e.err = errors.New("busy")
		if _, err := k.Revoke(t.Context(), k.List()[0].ID); !errors.Is(err, e.err) {
			t.Error(err)
		}
		every("it could not be closed", sweepEvery)
		e.err = nil
		time.Sleep(sweepEvery)
		if every("it is closed", 0); e.answered != 3 {
			t.Errorf("the engine was told %d times, want 3", e.answered)
		}
		stop()
		<-ended
	})
}
