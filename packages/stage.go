package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// file is one of a package.
type file struct {
	path   string // in the package, with its first slash
	source string // here
	mode   fs.FileMode
	config bool   // the owner's, once it is installed
	link   string // what it leads to, of a symbolic link
}

// program is where the program is, below the prefix.
const program = "/sbin/portcullis"

// stage is what is installed with a prefix, but for the program, which each processor has
// its own of.
type stage struct {
	prefix string
	files  []file
}

// newStage has `make install`, or another target, install into a directory. What it installs
// below a place for configuration is the owner's.
func newStage(dir, target, bin, prefix, config string) (*stage, error) {
	dir = filepath.Join(dir, target, prefix)
	if err := run(nil, "make", "--silent", target, "BIN="+bin, "DESTDIR="+dir, "PREFIX="+prefix); err != nil {
		return nil, err
	}
	s := &stage{prefix: prefix}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		f := file{path: strings.TrimPrefix(name, dir), source: name, mode: info.Mode().Perm()}
		f.config = strings.HasPrefix(f.path, config)
		if info.Mode()&fs.ModeSymlink != 0 {
			f.config = false
			f.link, err = os.Readlink(name)
		}
		if f.path != prefix+program {
			s.files = append(s.files, f)
		}
		return err
	})
	return s, err
}

// with returns the files of a stage, and the program.
func (s *stage) with(bin string) []file {
	return append([]file{{path: s.prefix + program, source: bin, mode: 0o755}}, s.files...)
}

// documents are what a package has beside what is installed: the licences of all that is in
// the program, and what has changed. They stand in a directory of this name here.
func documents(dir string) (map[string]string, error) {
	licences, err := licences()
	if err != nil {
		return nil, err
	}
	changes, err := os.ReadFile("CHANGELOG.md")
	if err != nil {
		return nil, err
	}
	at := map[string]string{}
	for name, text := range map[string][]byte{"copyright": licences, "changelog": changes} {
		at[name] = filepath.Join(dir, name)
		if err := os.WriteFile(at[name], text, 0o644); err != nil {
			return nil, err
		}
	}
	return at, nil
}

// licences returns the text of our licence, and of that of each module in the program, and of
// Go's own library: their owners ask for it wherever the program goes.
func licences() ([]byte, error) {
	ours, err := os.ReadFile("LICENSE")
	if err != nil {
		return nil, err
	}
	all := bytes.NewBuffer(ours)
	out, err := output("go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}} {{.Dir}}{{end}}{{end}}", "./cmd/portcullis")
	if err != nil {
		return nil, err
	}
	root, err := output("go", "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	modules := strings.Split("the Go standard library "+root+"\n"+out, "\n")
	slices.Sort(modules[1:])
	for _, line := range slices.Compact(modules) {
		i := strings.LastIndexByte(line, ' ')
		if i < 0 {
			continue
		}
		name, dir := line[:i], line[i+1:]
		text, err := licenceIn(dir)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(all, "\n\n---- It contains %s, with this licence:\n\n%s", name, text)
	}
	return all.Bytes(), nil
}

// licenceIn returns what a directory has of licences.
func licenceIn(dir string) (all []byte, err error) {
	found, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, f := range found {
		switch name := strings.ToLower(f.Name()); {
		case !f.Type().IsRegular():
		case strings.HasPrefix(name, "licen"), strings.HasPrefix(name, "copying"), strings.HasPrefix(name, "notice"):
			text, err := os.ReadFile(filepath.Join(dir, f.Name()))
			if err != nil {
				return nil, err
			}
			all = append(all, text...)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("there is no licence in %s", dir)
	}
	return all, nil
}

// compress packs a file into another, into the same octets whenever it is done.
func compress(source, to string) error {
	text, err := os.ReadFile(source)
	if err != nil {
		return err
	}
	var packed bytes.Buffer
	w, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := w.Write(text); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return os.WriteFile(to, packed.Bytes(), 0o644)
}

// run runs a program, of which the output is seen when it fails.
func run(env []string, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return nil
}

// output returns what a program prints, without its last line's end.
func output(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w", strings.Join(cmd.Args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
