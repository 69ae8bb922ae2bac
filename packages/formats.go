package main

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/goreleaser/nfpm/v2"
	"github.com/goreleaser/nfpm/v2/deb"
	"github.com/goreleaser/nfpm/v2/files"
)

// key is what .apk is signed with, and the name that routers have its public half by.
type key struct{ file, name string }

// What the packages are said to be, in a line, and in a few more.
const (
	summary = "port mappings for the LAN (UPnP IGD, NAT-PMP, PCP)"
	more    = "Programs on a LAN ask the gateway to open ports. Portcullis decides by one policy for\n" +
		"IPv4 and IPv6: a host can open ports to itself only, and never one of file sharing.\n" +
		"Nothing is opened until the service is enabled."
)

// base returns what all packages say of themselves.
func (b *build) base(name string) *nfpm.Info {
	return &nfpm.Info{
		Name:            name,
		Platform:        "linux",
		Version:         b.version.number,
		Prerelease:      b.version.before,
		VersionSchema:   "none",
		Section:         "net",
		Priority:        "optional",
		Maintainer:      "The Portcullis authors",
		License:         "ISC",
		MTime:           b.when,
		DisableGlobbing: true,
		Description:     summary,
	}
}

// contents returns files as nfpm has them.
func (b *build) contents(list []file) (all files.Contents) {
	for _, f := range list {
		c := &files.Content{Source: f.source, Destination: f.path, FileInfo: &files.ContentFileInfo{
			Owner: "root", Group: "root", Mode: f.mode, MTime: b.when,
		}}
		switch {
		case f.link != "":
			c.Type, c.Source = files.TypeSymlink, f.link
		case f.config:
			c.Type = files.TypeConfigNoReplace
		}
		all = append(all, c)
	}
	return all
}

// debian makes the package of Debian, where it has the processor.
func (b *build) debian(t target, bin string) error {
	if t.debian == "" {
		return nil
	}
	info := b.base("portcullis")
	info.Arch, info.Release = t.debian, "1"
	info.Description = summary + "\n" + more
	info.Deb.Compression = "xz"
	// Who has no systemd installs one of the small programs that make users as it does.
	info.Depends = []string{"init-system-helpers", "systemd | systemd-standalone-sysusers"}
	info.Suggests = []string{"nftables", "iptables"}
	// Both answer on UDP 1900 and 5351. Nothing in Debian depends on miniupnpd, so it is not
	// provided: who asks for that one gets that one.
	info.Conflicts = []string{"miniupnpd", "miniupnpd-nftables", "miniupnpd-iptables"}
	script := func(name string) string { return filepath.Join("etc", "debian", name) }
	info.Scripts = nfpm.Scripts{PostInstall: script("postinst"), PreRemove: script("prerm"), PostRemove: script("postrm")}
	list := b.usr.with(bin)
	for i, f := range list {
		// Debian's zsh has what packages bring in another place than others.
		list[i].path = strings.Replace(f.path, "/zsh/site-functions/", "/zsh/vendor-completions/", 1)
		if !strings.Contains(f.path, "/share/man/") {
			continue
		}
		packed := filepath.Join(b.work, filepath.Base(f.path)+".gz")
		if err := compress(f.source, packed); err != nil {
			return err
		}
		list[i].path, list[i].source = f.path+".gz", packed
	}
	changes := filepath.Join(b.work, "changelog.gz")
	if err := compress(b.docs["changelog"], changes); err != nil {
		return err
	}
	list = append(list,
		file{path: "/usr/share/doc/portcullis/copyright", source: b.docs["copyright"], mode: 0o644},
		file{path: "/usr/share/doc/portcullis/changelog.gz", source: changes, mode: 0o644})
	info.Contents = b.contents(list)
	return b.write(deb.Default, info)
}

// write writes a package.
func (b *build) write(p nfpm.Packager, info *nfpm.Info) error {
	return b.create(p.ConventionalFileName(info), func(w io.Writer) error { return p.Package(nfpm.WithDefaults(info), w) })
}

// tarball makes an archive to be unpacked at /: what is installed by hand stands below
// /usr/local. There are no directories in it, so that unpacking changes none.
func (b *build) tarball(t target, bin string) error {
	list := b.local.with(bin)
	for name, at := range map[string]string{"copyright": "LICENSE", "changelog": "CHANGELOG.md"} {
		list = append(list, file{path: "/usr/local/share/doc/portcullis/" + at, source: b.docs[name], mode: 0o644})
	}
	sortFiles(list)
	name := fmt.Sprintf("portcullis-%s-linux-%s.tar.gz", b.text, t.name)
	return b.create(name, func(w io.Writer) error {
		packed, err := gzip.NewWriterLevel(w, gzip.BestCompression)
		if err != nil {
			return err
		}
		archive := tar.NewWriter(packed)
		for _, f := range list {
			if err := addFile(archive, f, b.when); err != nil {
				return err
			}
		}
		return errors.Join(archive.Close(), packed.Close())
	})
}

// addFile adds one to an archive, as root's.
func addFile(archive *tar.Writer, f file, when time.Time) error {
	text, err := os.ReadFile(f.source)
	if err != nil {
		return err
	}
	h := &tar.Header{
		Typeflag: tar.TypeReg, Name: strings.TrimPrefix(f.path, "/"), Mode: int64(f.mode), Size: int64(len(text)),
		ModTime: when, Uname: "root", Gname: "root", Format: tar.FormatUSTAR,
	}
	if err := archive.WriteHeader(h); err != nil {
		return err
	}
	_, err = archive.Write(text)
	return err
}
