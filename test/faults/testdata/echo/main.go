// Echo is what runs in a container: it answers every datagram to UDP port 7000.
package main

import "net"

func main() {
	conn, err := net.ListenPacket("udp", ":7000")
	if err != nil {
		panic(err)
	}
	for buf := make([]byte, 64); ; {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			panic(err)
		}
		_, _ = conn.WriteTo(buf[:n], from) // who asks may have gone
	}
}
