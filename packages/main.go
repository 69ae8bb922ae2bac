package main

import (
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// build is one run: what is packed, and where to.
type build struct {
	text      string // the version as the program says it
	version   version
	apkBefore string // version.before as apk has it
	when      time.Time
	key       key
	out, work string
	usr       *stage // for packages
	local     *stage // for who installs by hand
	openwrt   *stage // for routers
	docs      map[string]string
	compiled  []string // programs, below out
	made      []string // names of the packages, in out
}

func main() {
	if err := packageAll(); err != nil {
		fmt.Fprintf(os.Stderr, "packages: %v\n", err)
		os.Exit(1)
	}
}

func packageAll() error {
	text := flag.String("version", "", "the version, X.Y.Z or X.Y.Z-rc1")
	out := flag.String("out", "dist", "the directory for the packages, from the top of the repository")
	archs := flag.String("archs", "", "the processors, with spaces; all without it")
	signing := flag.String("key", "", "a file with an RSA key in PEM, which .apk is signed with")
	check := flag.Bool("sizes", false, "only build, and check the sizes")
	flag.Parse()
	some, err := named(strings.Fields(*archs))
	if err != nil {
		return err
	}
	b := &build{text: *text}
	if b.version, b.apkBefore, err = parseVersion(*text); err != nil {
		return err
	}
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return errors.New("SOURCE_DATE_EPOCH must be set, in seconds; the Makefile does that")
	}
	b.when = time.Unix(seconds, 0).UTC()
	if *signing != "" {
		if b.key.file, err = filepath.Abs(*signing); err != nil {
			return err
		}
		b.key.name = strings.TrimSuffix(filepath.Base(*signing), filepath.Ext(*signing)) + ".rsa.pub"
	}
	if err := os.Chdir(".."); err != nil { // `go run -C packages` has begun below it
		return err
	}
	if b.out, err = filepath.Abs(*out); err != nil {
		return err
	}
	if b.work, err = os.MkdirTemp("", "portcullis-packages-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.work)
	return b.all(some, *check)
}

// all builds and packs for each processor.
func (b *build) all(some []target, check bool) error {
	if err := os.MkdirAll(b.out, 0o755); err != nil {
		return err
	}
	if !check {
		if err := b.prepare(); err != nil {
			return err
		}
	}
	var wrong error
	fmt.Printf("%-8s %10s %10s\n", "", "octets", "squashfs")
	for _, t := range some {
		bin, err := b.compile(t)
		if err != nil {
			return err
		}
		if err := b.sizes(t, bin); err != nil {
			wrong = errors.Join(wrong, err)
		}
		if check {
			continue
		}
		if err := errors.Join(b.debian(t, bin), b.router(t, bin), b.tarball(t, bin)); err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
	}
	if check {
		return wrong
	}
	return errors.Join(wrong, b.sums())
}

// prepare installs what does not depend on the processor. The program of this machine may say
// some of it, completions for example.
func (b *build) prepare() error {
	host := target{name: runtime.GOARCH, env: []string{"GOARCH=" + runtime.GOARCH}}
	bin, err := b.compile(host)
	if err != nil {
		return err
	}
	if b.usr, err = newStage(b.work, "install", bin, "/usr", "/etc/"); err != nil {
		return err
	}
	if b.local, err = newStage(b.work, "install", bin, "/usr/local", "/etc/"); err != nil {
		return err
	}
	if b.openwrt, err = newStage(b.work, "install-openwrt", bin, "/usr", "/etc/config/"); err != nil {
		return err
	}
	b.docs, err = documents(b.work)
	return err
}

// compile builds the program for a processor, once.
func (b *build) compile(t target) (string, error) {
	bin := filepath.Join(b.out, "programs", t.name, "portcullis")
	if slices.Contains(b.compiled, bin) {
		return bin, nil
	}
	b.compiled = append(b.compiled, bin)
	return bin, run(nil, "make", t.build(bin, b.text)...)
}

// sizes prints how large a program is, as it is and in the file system of a router, and
// returns an error for one that has grown too large.
func (b *build) sizes(t target, bin string) error {
	image := filepath.Join(b.work, "squashfs")
	err := run(nil, "mksquashfs", bin, image, "-noappend", "-comp", "xz", "-b", "256K", "-no-xattrs", "-all-root", "-no-progress")
	if err != nil {
		return err
	}
	plain, err := os.Stat(bin)
	if err != nil {
		return err
	}
	packed, err := os.Stat(image)
	if err != nil {
		return err
	}
	fmt.Printf("%-8s %10d %10d\n", t.name, plain.Size(), packed.Size())
	if plain.Size() > t.plain || packed.Size() > t.squash {
		return fmt.Errorf("%s is above %d octets, or %d in squashfs", t.name, t.plain, t.squash)
	}
	return nil
}

// create writes a file of the output, or none.
func (b *build) create(name string, write func(io.Writer) error) error {
	f, err := os.Create(filepath.Join(b.out, name))
	if err != nil {
		return err
	}
	if err := errors.Join(write(f), f.Close()); err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("%s: %w", name, err)
	}
	b.made = append(b.made, name)
	return nil
}

// sums writes the sums of all that was made, with the SBOM where there is one.
func (b *build) sums() error {
	const sbom = "portcullis.cdx.json"
	if _, err := os.Stat(filepath.Join(b.out, sbom)); err == nil {
		b.made = append(b.made, sbom)
	}
	slices.Sort(b.made)
	var text strings.Builder
	for _, name := range b.made {
		data, err := os.ReadFile(filepath.Join(b.out, name))
		if err != nil {
			return err
		}
		fmt.Fprintf(&text, "%x  %s\n", sha256.Sum256(data), name)
	}
	return os.WriteFile(filepath.Join(b.out, "SHA256SUMS"), []byte(text.String()), 0o644)
}

// sortFiles puts files into the order of their paths.
func sortFiles(list []file) {
	slices.SortFunc(list, func(a, b file) int { return strings.Compare(a.path, b.path) })
}
