package main

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"portcullis/internal/lab"
)

// natpmpClient asks by NAT-PMP over one connected socket with blocking system
// calls. It must be used on the thread on which it was made.
type natpmpClient struct {
	fd int
	in [64]byte
}

func newNATPMPClient() (*natpmpClient, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	patience := unix.NsecToTimeval(int64(callPatience))
	err = errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience),
		unix.Connect(fd, &unix.SockaddrInet4{Addr: lab.GatewayLAN.As4(), Port: 5351}),
	)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("socket: %w", err)
	}
	return &natpmpClient{fd: fd}, nil
}

func (c *natpmpClient) add(port uint16) error    { return c.request(port, 3600) }
func (c *natpmpClient) remove(port uint16) error { return c.request(port, 0) }

// request maps a TCP port onto itself (RFC 6886 section 3.3); a lifetime of 0
// unmaps it.
func (c *natpmpClient) request(port uint16, lifetime uint32) error {
	out := binary.BigEndian.AppendUint16([]byte{0, 2, 0, 0}, port)
	out = binary.BigEndian.AppendUint16(out, port)
	out = binary.BigEndian.AppendUint32(out, lifetime)
	if _, err := unix.Write(c.fd, out); err != nil {
		return fmt.Errorf("NAT-PMP: %w", err)
	}
	n, err := unix.Read(c.fd, c.in[:])
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Read(c.fd, c.in[:])
	}
	answer := c.in[:max(n, 0)]
	switch {
	case err != nil:
		return fmt.Errorf("NAT-PMP: %w", err)
	case len(answer) != 16 || answer[1] != 0x82 || binary.BigEndian.Uint16(answer[8:]) != port:
		return fmt.Errorf("NAT-PMP: answered % x", answer)
	case binary.BigEndian.Uint16(answer[2:]) != 0:
		return refusedError(binary.BigEndian.Uint16(answer[2:]))
	case lifetime > 0 && binary.BigEndian.Uint16(answer[10:]) != port:
		return fmt.Errorf("NAT-PMP: another port: % x", answer)
	}
	return nil
}

func (c *natpmpClient) close() error { return unix.Close(c.fd) }
