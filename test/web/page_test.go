package web

import (
	"os"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

func TestTry(t *testing.T) {
	r := testrig.Start(t, testrig.Network(t, "console", "nas"), "")
	c := r.Point(t, "console", lab.IGD1, lab.WANIP1)
	for _, m := range []lab.Mapping{{Protocol: "UDP", External: 3074, Internal: 3074, Lease: time.Hour, Description: "a <b>game</b>"},
		{Protocol: "TCP", External: 8080, Internal: 8080, Lease: time.Hour, Description: "web"}} {
		_ = c.Add(t.Context(), m)
	}
	p := serve(t, r.Daemon.Config)
	ctx := tab(t)
	var png []byte
	run(t, ctx, chromedp.Navigate(p.link), shows("tbody td", "3074/udp"), chromedp.FullScreenshot(&png, 100))
	os.WriteFile("/tmp/page.png", png, 0o600)
	run(t, ctx, chromedp.EmulateViewport(390, 844), chromedp.FullScreenshot(&png, 100))
	os.WriteFile("/tmp/page-phone.png", png, 0o600)
	t.Log(p.said(), value[string](t, ctx, "document.body.innerText"))
}
