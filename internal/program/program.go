package program

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	// maxOutput bounds what is kept of each of the two things that a program says.
	maxOutput = 64 << 20
	// patience is how long a program's output is waited for when it has ended: a busy machine
	// reads it late, and what it has started may hold it open for ever.
	patience = 10 * time.Second
)

// ErrNotFound means that there is no such program.
var ErrNotFound = errors.New("executable file not found in $PATH")

// ErrTooMuch means that a program has said more than is read.
var ErrTooMuch = fmt.Errorf("more than %d bytes of output", maxOutput)

// Find returns the path of a program. A name with a slash is a path.
func Find(name string) (string, error) {
	if strings.Contains(name, "/") {
		if err := executable(name); err != nil {
			return "", fmt.Errorf("%q: %w", name, err)
		}
		return name, nil
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if path := filepath.Join(dir, name); filepath.IsAbs(path) && executable(path) == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%q: %w", name, ErrNotFound)
}

func executable(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ErrNotFound
	case err != nil:
		return err
	case !info.Mode().IsRegular() || info.Mode()&0o111 == 0:
		return fs.ErrPermission
	}
	return nil
}

// Output is what a program has said.
type Output struct{ Out, Complaint []byte }

// Run runs a program with a text to read, and waits for its end. It is started by the thread of the
// caller, in whose namespaces it is. The end of ctx kills it. The error is ctx's, or how the
// program ended where that is no success; what it said until then is returned with it.
func Run(ctx context.Context, stdin string, argv ...string) (said Output, err error) {
	path, err := Find(argv[0])
	if err != nil {
		return said, err
	}
	if err := ctx.Err(); err != nil {
		return said, err
	}
	ends, err := newEnds()
	if err != nil {
		return said, err
	}
	defer ends.close()
	p, err := os.StartProcess(path, argv, &os.ProcAttr{Files: ends.theirs[:]})
	ends.started()
	if err != nil {
		return said, err
	}
	talk := ends.talk(stdin, &said)
	stop := context.AfterFunc(ctx, func() { _ = p.Kill() }) // which fails where it has ended
	state, err := p.Wait()
	stop()
	ends.hurry()
	talked := <-talk
	switch {
	case err != nil:
		return said, err
	case !state.Success() && ctx.Err() != nil:
		return said, ctx.Err()
	case !state.Success():
		return said, errors.New(state.String())
	}
	return said, talked
}
