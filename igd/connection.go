package igd

import (
	"math"
	"strconv"
	"time"
)

// getStatusInfo: clients give up unless it says Connected. Uptime is that of the
// connection, never of the machine (abuse case K6).
func getStatusInfo(c *call) ([]string, error) {
	s := c.device.wan.Status()
	switch {
	case !s.LinkUp && !s.Up:
		return []string{disconnected, "ERROR_NO_CARRIER", "0"}, nil
	case !s.Up:
		return []string{disconnected, "ERROR_IP_CONFIGURATION", "0"}, nil
	}
	return []string{connected, "ERROR_NONE", uptime(s.Since, c.now)}, nil
}

// uptime is in whole seconds, as ui4.
func uptime(since, now time.Time) string {
	if since.IsZero() {
		return "0"
	}
	return strconv.FormatInt(min(max(0, int64(now.Sub(since)/time.Second)), math.MaxUint32), 10)
}

// requestConnection succeeds where there is nothing to do (test vector SOAP-46).
// The connection is not the LAN's to make.
func requestConnection(c *call) ([]string, error) {
	if c.connectionStatus() != connected {
		return nil, fail(codeSetupFailed)
	}
	return nil, nil
}

// forceTermination is required to exist; nobody on the LAN may cut the line
// (abuse case G12).
func forceTermination(*call) ([]string, error) { return nil, fail(codeNotAuthorized) }

// setConnectionType: version 2 has a code for what is configured elsewhere.
func setConnectionType(c *call) ([]string, error) {
	if c.version >= 2 {
		return nil, fail(codeReadOnly)
	}
	return nil, fail(codeNotAuthorized)
}
