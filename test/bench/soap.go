package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/internal/lab"
)

// soapClient is a control point that is as cheap as one can be, so that it does
// not hide what the gateway costs: blocking system calls, one write and one
// connection for each request (both servers close after each reply anyway), no
// parsing beyond the status and the error code. It must be used on a thread that
// is inside its host.
type soapClient struct {
	server unix.SockaddrInet4
	head   string // request line and headers up to the action's name
	client netip.Addr
	out    []byte
	in     []byte
}

const (
	service = lab.WANIP2
	// answerLimit is the largest reply that is read; those of the actions that
	// are measured are below 2 kB.
	answerLimit = 16 << 10
	// callPatience bounds each system call that waits.
	callPatience = 10 * time.Second
)

// newSOAPClient returns a client for a host; control is the URL that the host
// found in the gateway's description.
func newSOAPClient(host netip.Addr, control string) (*soapClient, error) {
	u, err := url.Parse(control)
	if err != nil {
		return nil, err
	}
	at, err := netip.ParseAddrPort(u.Host)
	if err != nil {
		return nil, fmt.Errorf("control URL: %w", err)
	}
	return &soapClient{
		server: unix.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())},
		head: "POST " + u.RequestURI() + " HTTP/1.1\r\nHost: " + u.Host + "\r\n" +
			"Content-Type: text/xml; charset=\"utf-8\"\r\nConnection: close\r\nSOAPAction: \"" + service + "#",
		client: host,
		in:     make([]byte, answerLimit),
	}, nil
}

// refusedError is a UPnP error code, or an HTTP status without one.
type refusedError int

func (e refusedError) Error() string { return "refused with " + strconv.Itoa(int(e)) }

// The actions that are measured.

func (c *soapClient) add(port uint16) error { return c.request("AddPortMapping", port, port) }

// addAny asks for any external port for an internal one.
func (c *soapClient) addAny(internal uint16) error {
	return c.request("AddAnyPortMapping", 0, internal)
}

func (c *soapClient) request(action string, external, internal uint16) error {
	return c.call(action, "<NewRemoteHost></NewRemoteHost><NewExternalPort>%d</NewExternalPort>"+
		"<NewProtocol>TCP</NewProtocol><NewInternalPort>%d</NewInternalPort><NewInternalClient>%s</NewInternalClient>"+
		"<NewEnabled>1</NewEnabled><NewPortMappingDescription>bench</NewPortMappingDescription>"+
		"<NewLeaseDuration>3600</NewLeaseDuration>", external, internal, c.client)
}

func (c *soapClient) remove(port uint16) error { return c.call("DeletePortMapping", key, port) }

func (c *soapClient) specific(port uint16) error {
	return c.call("GetSpecificPortMappingEntry", key, port)
}

func (c *soapClient) generic(index int) error {
	return c.call("GetGenericPortMappingEntry", "<NewPortMappingIndex>%d</NewPortMappingIndex>", index)
}

const key = "<NewRemoteHost></NewRemoteHost><NewExternalPort>%d</NewExternalPort><NewProtocol>TCP</NewProtocol>"

func (c *soapClient) call(action, args string, values ...any) error {
	body := fmt.Sprintf("<?xml version=\"1.0\"?>\r\n<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" "+
		"s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body><u:%s xmlns:u=\"%s\">"+args+
		"</u:%s></s:Body></s:Envelope>\r\n", append(append([]any{action, service}, values...), action)...)
	c.out = fmt.Appendf(c.out[:0], "%s%s\"\r\nContent-Length: %d\r\n\r\n%s", c.head, action, len(body), body)
	n, err := c.exchange()
	if err != nil {
		return fmt.Errorf("%s: %w", action, err)
	}
	return verdict(c.in[:n])
}

// exchange sends c.out over a new connection and reads into c.in until the
// server closes.
func (c *soapClient) exchange() (n int, err error) {
	fd, err := socket()
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	if err := connect(fd, &c.server); err != nil {
		return 0, err
	}
	if sent, err := unix.Write(fd, c.out); err != nil || sent != len(c.out) {
		return 0, fmt.Errorf("write %d bytes: %w", sent, err)
	}
	for {
		got, err := unix.Read(fd, c.in[n:])
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, fmt.Errorf("read: %w", err)
		case got == 0:
			return n, nil
		default:
			n += got
		}
		if n == len(c.in) {
			return 0, errors.New("the answer is too long")
		}
	}
}

// socket opens a blocking TCP socket in the thread's namespace.
func socket() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("socket: %w", err)
	}
	patience := unix.NsecToTimeval(int64(callPatience))
	err = errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &patience),
	)
	if err != nil {
		unix.Close(fd)
		return 0, fmt.Errorf("socket: %w", err)
	}
	return fd, nil
}

// connect is connect(2), begun once and waited for, whatever signal comes between.
func connect(fd int, to unix.Sockaddr) error {
	err := unix.Connect(fd, to)
	for errors.Is(err, unix.EINTR) || errors.Is(err, unix.EALREADY) {
		wait := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		if _, err := unix.Poll(wait, int(callPatience.Milliseconds())); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("connect: %w", err)
		}
		if err = unix.Connect(fd, to); errors.Is(err, unix.EISCONN) {
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	return nil
}

func verdict(answer []byte) error {
	line, _, _ := bytes.Cut(answer, []byte("\r\n"))
	fields := bytes.Fields(line)
	if len(fields) < 2 {
		return fmt.Errorf("no HTTP answer: %.40q", line)
	}
	if string(fields[1]) == "200" {
		return nil
	}
	if _, after, found := bytes.Cut(answer, []byte("<errorCode>")); found {
		digits, _, _ := bytes.Cut(after, []byte("<"))
		if code, err := strconv.Atoi(string(digits)); err == nil {
			return refusedError(code)
		}
	}
	return fmt.Errorf("HTTP status %.10q", fields[1])
}
