package program

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"
)

// ends are those of three pipes: what the program reads, says, and complains of.
type ends struct{ ours, theirs [3]*os.File }

func newEnds() (*ends, error) {
	e := new(ends)
	for i := range e.ours {
		r, w, err := os.Pipe()
		if err != nil {
			e.close()
			return nil, err
		}
		if e.ours[i], e.theirs[i] = r, w; i == 0 {
			e.ours[i], e.theirs[i] = w, r
		}
	}
	return e, nil
}

// started closes the program's ends, which it has.
func (e *ends) started() {
	for i, f := range e.theirs {
		_ = f.Close()
		e.theirs[i] = nil
	}
}

// close closes all that is open; a nil file is closed.
func (e *ends) close() {
	for i := range e.ours {
		_ = e.ours[i].Close()
		_ = e.theirs[i].Close()
	}
}

// hurry bounds how long talk goes on once the program has ended.
func (e *ends) hurry() {
	for _, f := range e.ours {
		_ = f.SetDeadline(time.Now().Add(patience)) // it is a pipe, and open or done with
	}
}

// talk writes and reads until all is said. What it sends is why not all was.
func (e *ends) talk(stdin string, said *Output) <-chan error {
	var all sync.WaitGroup
	var errs [3]error
	all.Go(func() {
		_, err := e.ours[0].WriteString(stdin)
		if errs[0] = errors.Join(err, e.ours[0].Close()); errors.Is(err, syscall.EPIPE) { // it may not want to read
			errs[0] = nil
		}
	})
	all.Go(func() { said.Out, errs[1] = read(e.ours[1], maxOutput) })
	all.Go(func() {
		// What a program complains of is for people, and no reason to fail.
		said.Complaint, errs[2] = read(e.ours[2], maxOutput)
		if errors.Is(errs[2], ErrTooMuch) || errors.Is(errs[2], os.ErrDeadlineExceeded) {
			errs[2] = nil
		}
	})
	done := make(chan error, 1)
	go func() {
		all.Wait()
		done <- errors.Join(errs[:]...)
	}()
	return done
}

// read reads to the end, and keeps what there may be.
func read(f io.Reader, most int) ([]byte, error) {
	var kept bytes.Buffer
	chunk, full := make([]byte, 4<<10), false
	for {
		n, err := f.Read(chunk)
		if !full && kept.Len()+n <= most {
			kept.Write(chunk[:n])
		} else {
			full = true
		}
		switch {
		case err == nil:
		case !errors.Is(err, io.EOF):
			return kept.Bytes(), err
		case full:
			return kept.Bytes(), ErrTooMuch
		default:
			return kept.Bytes(), nil
		}
	}
}
