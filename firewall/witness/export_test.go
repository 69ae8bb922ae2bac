package witness

// Packets returns a Witness that sees frames by packet sockets.
func Packets() *Witness { return &Witness{way: PacketSocket} }

// Remembered returns how many frames a Conn of Packets remembers.
func Remembered(c interface{ Close() error }) int {
	return c.(interface{ Remembered() int }).Remembered()
}
