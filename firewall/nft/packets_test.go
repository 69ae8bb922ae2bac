package nft_test

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"portcullis/firewall/homenet"
	"portcullis/firewall/nft"
	"portcullis/internal/netns/netnstest"
)

// What is promised of packets whichever backend it is (homenet). IPv4 is promised
// to an owner who forwards everything, and by way of an accept chain.
func each(t *testing.T, group func(*testing.T, homenet.Firewall)) {
	t.Parallel()
	t.Run("plain", func(t *testing.T) { group(t, plain()) })
	t.Run("accept chain", func(t *testing.T) { group(t, strict()) })
}

func TestPackets(t *testing.T) { each(t, homenet.Packets) }

func TestKeptPorts(t *testing.T) { each(t, homenet.KeptPorts) }

func TestPortShadow(t *testing.T) {
	each(t, homenet.PortShadow)
	homenet.Masquerade(t, owned(""), `table ip owner {
		chain postrouting {
			type nat hook postrouting priority srcnat; policy accept;
			oifname "wan0" meta l4proto udp masquerade to :5000-5003
		}
	}`)
	homenet.Untranslated(t, owned(""), `table ip owner {
		chain postrouting {
			type nat hook postrouting priority srcnat; policy accept;
			ip saddr 192.168.0.0/16 oifname "wan0" masquerade
		}
	}`)
}

func TestDeleteEndsFlows(t *testing.T) { each(t, homenet.DeleteEndsFlows) }

func TestCounters(t *testing.T) {
	each(t, homenet.Counters)
	t.Run("before Linux 6.12", func(t *testing.T) {
		fw := plain()
		open := fw.Open
		fw.Open = func(t testing.TB, n *netnstest.Space) homenet.Backend {
			b := open(t, n)
			b.(*nft.Backend).OldKernel()
			return b
		}
		homenet.Counters(t, fw)
	})
}

// TestRetimes: the kernel is known for what it is.
func TestRetimes(t *testing.T) {
	t.Parallel()
	n := netnstest.New(t, "gateway")
	var kernel unix.Utsname
	if err := unix.Uname(&kernel); err != nil {
		t.Fatal(err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(kernel.Release[:]), "%d.%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	if does, want := unconfigured(t, n).Retimes(), major > 6 || major == 6 && minor >= 12; does != want {
		t.Errorf("Linux %d.%d gives elements another end: %v", major, minor, does)
	}
	if got := list(t, n, "ruleset"); got != "" {
		t.Errorf("the trial leaves\n%s", got)
	}
}

func TestLeash(t *testing.T) { each(t, homenet.Leash) }

func TestGatewayServices(t *testing.T) { each(t, homenet.GatewayServices) }

func TestPinholes(t *testing.T) {
	t.Parallel()
	homenet.Pinholes(t, strict())
}

func TestKernelEndsLease(t *testing.T) {
	t.Parallel()
	homenet.KernelEndsLease(t, strict())
}

func TestOutboundTimeout(t *testing.T) {
	t.Parallel()
	homenet.OutboundTimeout(t, plain())
}

func TestDrift(t *testing.T) {
	t.Parallel()
	homenet.Drift(t, strict(), []homenet.Damage{
		{Name: "all is loaded anew", Script: strict().Scripts.Reload, Want: "our table was gone"},
		{Name: "our table is gone", Script: "delete table inet portcullis", Want: "our table was gone"},
		{Name: "our rules are flushed", Script: "flush table inet portcullis", Want: "our rules were changed"},
		{Name: "our mappings are flushed", Script: "flush map inet portcullis mapped", Want: "our mappings were changed"},
		{Name: "the front's leash is flushed", Script: "flush chain inet portcullis front_leash", Want: "our rules were changed"},
		{Name: "the leash is for somebody else", Script: "flush set inet portcullis front_user\nadd element inet portcullis front_user { 1 }",
			Want: "our sets of interfaces and addresses were changed"},
		{Name: "a drop comes before ours", Script: "insert rule inet portcullis allow_mapped drop", Want: "our rules were changed"},
		{Name: "the owner's table is", Script: "delete table inet fw4" + strictOwner, Want: "accept chain was missing"},
	})
}
