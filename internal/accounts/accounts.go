package accounts

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// The fields of a line that have numbers (passwd(5), group(5)).
const (
	ownField   = 2
	groupField = 3 // of a user
)

// passwd and groups are where they are.
var passwd, groups = "/etc/passwd", "/etc/group"

// ErrUnknown means that nobody has the name.
var ErrUnknown = errors.New("unknown")

// User returns the numbers of a user and his group.
func User(name string) (uid, gid uint32, err error) {
	line, err := find(passwd, name)
	if err == nil {
		uid, err = line.number(ownField)
	}
	if err == nil {
		gid, err = line.number(groupField)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("user %s: %w", name, err)
	}
	return uid, gid, nil
}

// Group returns the number of a group.
func Group(name string) (gid uint32, err error) {
	line, err := find(groups, name)
	if err == nil {
		gid, err = line.number(ownField)
	}
	if err != nil {
		return 0, fmt.Errorf("group %s: %w", name, err)
	}
	return gid, nil
}

// fields are those of a line.
type fields []string

func (f fields) number(i int) (uint32, error) {
	if i >= len(f) {
		return 0, errors.New("its line has too few fields")
	}
	n, err := strconv.ParseUint(f[i], 10, 32)
	if err != nil {
		return 0, fmt.Errorf("its number is %.20q", f[i])
	}
	return uint32(n), nil
}

// find returns the first line of a file that is a name's. A name that begins with a plus or a minus
// is none, but means another source (nsswitch.conf(5)).
func find(path, name string) (fields, error) {
	if name == "" || strings.ContainsAny(name, ":\n") || name[0] == '+' || name[0] == '-' {
		return nil, ErrUnknown
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrUnknown
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	in := bufio.NewReader(f)
	for {
		line, err := in.ReadString('\n')
		if rest, ours := strings.CutPrefix(line, name+":"); ours {
			return append(fields{name}, strings.Split(strings.TrimSuffix(rest, "\n"), ":")...), nil
		}
		if errors.Is(err, io.EOF) {
			return nil, ErrUnknown
		}
		if err != nil {
			return nil, err
		}
	}
}
