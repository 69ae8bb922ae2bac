package process

import (
	"bufio"
	"os"
)

// What a front says by its standard error is how the runtime says why it dies. One that
// says more than this is not listened to, and all together are heard a line a second.
const (
	maxLine  = 1 << 10 // octets of a line; what is behind them is left out
	maxLines = 100
)

// listen writes what a front says into the owner's log, until it ends.
func (k *Keeper) listen(from *os.File) {
	defer from.Close()
	in := bufio.NewReaderSize(from, maxLine)
	for range maxLines {
		line, more, err := in.ReadLine()
		if err != nil {
			return
		}
		if k.lines.Allow() {
			k.cfg.Log.Error("front says", "line", string(line))
		}
		for more && err == nil {
			_, more, err = in.ReadLine()
		}
	}
	for err := error(nil); err == nil; { // it may not wait for us
		_, err = in.Discard(maxLine)
	}
}
