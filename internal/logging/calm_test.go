package logging

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/config"
)

// TestCalm: what a flapping network says is bounded, to a line a minute in the long
// run; other lines are never left out; the end of it is told, and after a quiet minute
// everything is said again.
func TestCalm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := New(&out, config.Log{})
		server := log.With("subsystem", "ssdp")
		flaps := func(rounds int) (lines int) {
			out.Reset()
			for range rounds {
				log.Error("network no longer fits the configuration", "err", errors.New("no LAN"))
				server.Info("discovery announced", "address", "192.168.77.1")
				log.Info("serving a LAN", "interface", "br-lan")
				time.Sleep(time.Second)
				log.Info("mapping added", "client", "192.168.77.10") // of no concern
			}
			added := strings.Count(out.String(), "mapping added")
			if added != rounds {
				t.Errorf("%d of %d other lines", added, rounds)
			}
			return strings.Count(out.String(), "\n") - added
		}
		if n := flaps(10); n != 30 {
			t.Errorf("%d lines of 30 at first", n)
		}
		if n := flaps(3600); n < 60 || n > 60+calmLines {
			t.Errorf("%d lines in an hour", n)
		}
		out.Reset()
		server.Info("discovery announced", "address", "192.168.77.9")
		time.Sleep(calmEvery)
		synctest.Wait()
		if text := out.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, `last="discovery announced" address=192.168.77.9`) {
			t.Errorf("the end is told as %s", text)
		}
		time.Sleep(calmEvery)
		if n := flaps(1); n != 3 {
			t.Errorf("%d lines of 3 after a quiet minute", n)
		}
		log = New(&out, config.Log{Level: config.LevelDebug}) // debug: all of it
		server = log.With("subsystem", "ssdp")
		if n := flaps(100); n != 300 {
			t.Errorf("%d lines of 300 where the owner debugs", n)
		}
	})
}

// TestCalmKnowsItsLines: a message that is said nowhere is a mistake.
func TestCalmKnowsItsLines(t *testing.T) {
	t.Parallel()
	sources := ""
	for _, name := range []string{"../../ssdp/announce.go", "../../pcp/server.go", "../datagram/log.go", "../daemon/run.go", "../daemon/follow.go", "../listeners/set.go", "../listeners/listener.go", "../front/portcontrol.go", "../warden/run.go", "../wall/log.go"} {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		sources += string(data)
	}
	for message := range repeated {
		if !strings.Contains(sources, fmt.Sprintf("(%q", message)) {
			t.Errorf("nobody says %q", message)
		}
	}
}
