package logging

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/internal/slog"
	"portcullis/portmap"
)

// refusal is an event of a request that was refused.
func refusal(device byte, address string, reason portmap.Reason) portmap.Event {
	client := portmap.Client{Addr: netip.MustParseAddr(address), MAC: portmap.MAC{2, 0, 0, 0, 0, device}, Via: portmap.ViaUPnP}
	return portmap.Event{Time: time.Now(), Type: portmap.Denied, Reason: reason, Client: client, Detail: "no",
		Mapping: portmap.Mapping{Client: client, Description: "a\nlevel=ERROR msg=forged"}}
}

// logged runs the log for a while, in a bubble, and gives its lines.
func logged(t *testing.T, play func(refuse func(portmap.Event))) string {
	t.Helper()
	var out bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		l := NewEvents(slog.New(slog.NewTextHandler(&out, nil)))
		events, ended := make(chan portmap.Event), make(chan struct{})
		go func() {
			defer close(ended)
			_ = l.follow(context.Background(), events) // it ends with its events
		}()
		play(func(ev portmap.Event) { events <- ev })
		time.Sleep(10 * refusalEvery)
		close(events)
		<-ended
		if len(l.refused) != 0 {
			t.Errorf("%d are remembered for ever", len(l.refused))
		}
	})
	return out.String()
}

var notLogged = regexp.MustCompile(`(?:more_like_this|refused)=(\d+)`)

// told counts the refusals that the lines stand for.
func told(t *testing.T, log string) (n int) {
	t.Helper()
	for _, m := range notLogged.FindAllStringSubmatch(log, -1) {
		more, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		n += more
	}
	return n + strings.Count(log, "\n")
}

// TestProgramWithoutEnd: go-libp2p asks for twelve ports every 20 s, whatever it is
// answered. That is a line a minute, none of the refusals is left out of the count, and
// another device's are seen at once.
func TestProgramWithoutEnd(t *testing.T) {
	t.Parallel()
	const minutes = 10
	log := logged(t, func(refuse func(portmap.Event)) {
		for round := range minutes * 3 {
			for range 12 {
				refuse(refusal(1, "192.168.1.9", portmap.DefaultDenied))
			}
			if round == 7 {
				refuse(refusal(2, "192.168.1.7", portmap.DefaultDenied))
				refuse(refusal(1, "192.168.1.9", portmap.ForbiddenPort))
			}
			time.Sleep(20 * time.Second)
		}
	})
	lines := strings.Count(log, "client=192.168.1.9")
	if lines > minutes+2 || lines < minutes {
		t.Errorf("%d lines in %d minutes:\n%s", lines, minutes, log)
	}
	if n := told(t, log); n != 12*3*minutes+2 {
		t.Errorf("%d refusals are told of, want %d", n, 12*3*minutes+2)
	}
	if strings.Count(log, "client=192.168.1.7") != 1 || strings.Count(log, "reason=forbidden-port") != 1 {
		t.Errorf("the other device's refusal, or the other reason, is not seen once:\n%s", log)
	}
}

// TestRefusalsAreLimited: K4. A flood is a line a minute, however many addresses the
// device has, and quotes what a client wrote.
func TestRefusalsAreLimited(t *testing.T) {
	t.Parallel()
	log := logged(t, func(refuse func(portmap.Event)) {
		for i := range 10_000 {
			refuse(refusal(1, fmt.Sprintf("192.168.1.%d", 10+i%100), portmap.DefaultDenied))
			time.Sleep(time.Millisecond)
		}
	})
	if lines := strings.Count(log, "\n"); lines > 2 {
		t.Errorf("%d lines:\n%s", lines, log)
	}
	if n := told(t, log); n != 10_000 {
		t.Errorf("%d refusals are told of, want 10000", n)
	}
	if strings.Contains(log, "\nlevel=ERROR") {
		t.Error("a client forged a line")
	}
}

// TestRefusalsOfMany: K1, K4. A machine with more MAC addresses than are remembered
// costs two lines a second; nothing is lost from the count, and a device that comes
// meanwhile is told of when there is room.
func TestRefusalsOfMany(t *testing.T) {
	t.Parallel()
	const seconds = 300
	n := 0
	log := logged(t, func(refuse func(portmap.Event)) {
		refuse(refusal(1, "192.168.1.7", portmap.DefaultDenied))
		n++
		for i := range 100 * seconds {
			ev := refusal(0, "192.168.1.9", portmap.DefaultDenied)
			ev.Client.MAC = portmap.MAC{6, 0, byte(i >> 8), byte(i), 0, 0}
			refuse(ev)
			n++
			time.Sleep(10 * time.Millisecond)
		}
		refuse(refusal(1, "192.168.1.7", portmap.ForbiddenPort))
		n++
	})
	if lines := strings.Count(log, "\n"); lines > refusalsPerSecond*(seconds+600)+refusalBurst {
		t.Errorf("%d lines in %d s", lines, seconds)
	}
	if got := told(t, log); got != n {
		t.Errorf("%d refusals are told of, want %d", got, n)
	}
	if strings.Count(log, "client=192.168.1.7") == 0 {
		t.Error("the other device is not seen")
	}
}

// TestTwoHundred: S8. Two hundred refusals are in the log two minutes later, in few lines or
// in many, and none is lost when the daemon stops before that.
func TestTwoHundred(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		event func(i int) portmap.Event
		lines int
	}{
		"of one device": {func(i int) portmap.Event {
			return refusal(1, "192.168.1.9", []portmap.Reason{portmap.PrivilegedPort, portmap.ForbiddenPort}[i%2])
		}, 4},
		"of two hundred": {func(i int) portmap.Event { return refusal(byte(i), "192.168.1.9", portmap.PrivilegedPort) }, 200},
	} {
		log := logged(t, func(refuse func(portmap.Event)) {
			for i := range 200 {
				refuse(c.event(i))
			}
			time.Sleep(2 * time.Minute)
		})
		if n, lines := told(t, log), strings.Count(log, "\n"); n != 200 || lines > c.lines {
			t.Errorf("%s: %d are told of in %d lines:\n%s", name, n, lines, log)
		}
		var out bytes.Buffer
		synctest.Test(t, func(t *testing.T) {
			l := NewEvents(slog.New(slog.NewTextHandler(&out, nil)))
			events := make(chan portmap.Event, 200)
			for i := range 200 {
				events <- c.event(i)
			}
			close(events)
			_ = l.follow(context.Background(), events)
		})
		if n := told(t, out.String()) - 1; n != 200 || !strings.Contains(out.String(), "more requests refused before the stop") {
			t.Errorf("%s: at a stop %d are told of:\n%s", name, n, &out)
		}
	}
}

// TestEventLog: the lines of the engine's events, as owners' tools know them.
func TestEventLog(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	l := NewEvents(slog.New(slog.NewTextHandler(&out, nil)))
	now := time.Now()
	client := portmap.Client{Addr: netip.MustParseAddr("192.168.1.9"), MAC: portmap.MAC{2, 0, 0, 0, 0, 1}, Via: portmap.ViaUPnP}
	m := portmap.Mapping{Client: client, Transport: portmap.UDP, Description: "game", Rule: "consoles",
		ExternalPort: 3074, Internal: netip.MustParseAddrPort("192.168.1.9:3074"), Expires: now.Add(time.Hour)}
	for _, ev := range []portmap.Event{
		{Type: portmap.Granted}, {Type: portmap.Renewed}, {Type: portmap.Expired, Reason: portmap.Ended},
		{Type: portmap.Drift, Reason: portmap.FirewallFailed, Detail: "gone"}, {Type: portmap.Resync},
	} {
		ev.Time, ev.Client, ev.Mapping, ev.Rule = now, client, m, "consoles"
		l.write(t.Context(), ev)
	}
	for _, want := range []string{
		`level=INFO msg="mapping added" client=192.168.1.9 mac=02:00:00:00:00:01 via=upnp protocol=udp external_port=3074 internal=192.168.1.9:3074 description=game lease=1h0m0s rule=consoles`,
		`level=INFO msg="mapping ended"`, "reason=ended", `msg="kernel refused a change" err=gone`, "events were lost",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the log lacks %s:\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), "renewed") {
		t.Error("renewals fill the log at the usual level")
	}
}
