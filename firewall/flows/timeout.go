package flows

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"portcullis/internal/enter"
	"portcullis/portmap"
)

// outboundTimeouts are the files that say how long conntrack remembers a flow
// after its last packet. Of the two for UDP it is the one for a flow that has had
// no answer yet, which is the shorter: what a host may rely on.
var outboundTimeouts = map[portmap.Transport]string{
	portmap.TCP: "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established",
	portmap.UDP: "/proc/sys/net/netfilter/nf_conntrack_udp_timeout",
}

// OutboundTimeout returns how long the kernel of a network namespace (0: the current
// one) lets answers in, at least, after the last packet of what a host began itself:
// of TCP once it is connected. It is the same for both families. An error is a
// transport that is none, or a kernel without conntrack.
func OutboundTimeout(namespace int, t portmap.Transport) (time.Duration, error) {
	path, known := outboundTimeouts[t]
	if !known {
		return 0, fmt.Errorf("no timeout is known for %s", t)
	}
	text, err := readIn(namespace, path)
	if err != nil {
		return 0, fmt.Errorf("the outbound timeout of %s: %w", t, err)
	}
	seconds, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32)
	if err != nil {
		return 0, fmt.Errorf("the outbound timeout of %s: %w", t, err)
	}
	return time.Duration(seconds) * time.Second, nil
}

// readIn reads a file as it is in a network namespace (0: the current one).
func readIn(namespace int, path string) (text []byte, err error) {
	err = enter.In(namespace, func() (err error) {
		text, err = os.ReadFile(path)
		return err
	})
	return text, err
}
