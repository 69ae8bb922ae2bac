package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/goreleaser/nfpm/v2"
	"github.com/goreleaser/nfpm/v2/apk"
	"github.com/goreleaser/nfpm/v2/ipk"
)

// user is the user, and the group, that procd's jail runs the daemon as: OpenWrt makes them,
// with a number that is free.
const user = "portcullis:portcullis"

// modules of the kernel that OpenWrt has in packages of their own, and its firewall does not
// bring along: with the first, flows end together with their mapping.
var modules = []string{"kmod-nf-conntrack-netlink", "kmod-nft-nat"}

// router makes the packages of OpenWrt, each under all names of the processor. Both stand in
// for miniupnpd, which LuCI's page asks for, and are not beside it.
func (b *build) router(t target, bin string) error {
	if len(t.openwrt) == 0 {
		return nil
	}
	list := b.openwrt.with(bin)
	records, err := b.records(list)
	if err != nil {
		return err
	}
	scripts := map[string]string{"postinst": "", "prerm": "", "postrm": "", "postupgrade": ""}
	for name := range scripts {
		if scripts[name], err = b.script(name); err != nil {
			return err
		}
	}
	for _, arch := range t.openwrt {
		both := b.base("portcullis")
		both.Release = "r1"
		both.Conflicts = []string{"miniupnpd-nftables", "miniupnpd-iptables"}
		both.Depends = modules
		both.Scripts = nfpm.Scripts{PostInstall: scripts["postinst"], PreRemove: scripts["prerm"], PostRemove: scripts["postrm"]}
		asIPK, asAPK := *both, *both
		asIPK.Provides = []string{"miniupnpd"}
		asIPK.Contents = b.contents(list)
		asIPK.Arch, asIPK.IPK.Arch = arch, arch
		asIPK.IPK.Fields = map[string]string{"Require-User": user}

		asAPK.Contents = b.contents(append(list[:len(list):len(list)], records...))
		asAPK.Arch, asAPK.APK.Arch = arch, arch
		asAPK.Prerelease = b.apkBefore
		// With a version, a provided name is a package's own: apk has only one of it.
		version := asAPK.Version + "-" + asAPK.Release
		if b.apkBefore != "" {
			version = asAPK.Version + "_" + b.apkBefore + "-" + asAPK.Release
		}
		asAPK.Provides = []string{"miniupnpd=" + version}
		asAPK.Depends = modules[:len(modules):len(modules)] // which is where apk has what it must not be beside
		for _, name := range both.Conflicts {
			asAPK.Depends = append(asAPK.Depends, "!"+name)
		}
		asAPK.APK.Scripts.PostUpgrade = scripts["postupgrade"]
		asAPK.APK.Signature.KeyFile, asAPK.APK.Signature.KeyName = b.key.file, b.key.name
		if err := errors.Join(b.write(ipk.Default, &asIPK), b.write(apk.Default, &asAPK)); err != nil {
			return err
		}
	}
	return nil
}

// script returns one of the packages' scripts, with the time that everything has, which apk
// packs as well. After an upgrade apk runs postinst by another name, where opkg sets a
// variable.
func (b *build) script(name string) (string, error) {
	source := strings.Replace(name, "postupgrade", "postinst", 1)
	text, err := os.ReadFile(filepath.Join("etc", "openwrt", source))
	if err != nil {
		return "", err
	}
	if source != name {
		first, rest, _ := strings.Cut(string(text), "\n")
		text = []byte(first + "\nexport PKG_UPGRADE=1\n" + rest)
	}
	at := filepath.Join(b.work, name)
	return at, errors.Join(os.WriteFile(at, text, 0o755), os.Chtimes(at, b.when, b.when))
}

// records are what OpenWrt's scripts read of a package of apk: its files, those that are the
// owner's, with their sums, and its user. opkg has the same of its own.
func (b *build) records(list []file) (records []file, err error) {
	var all, own, sums strings.Builder
	for _, f := range list {
		fmt.Fprintln(&all, f.path)
		if !f.config {
			continue
		}
		text, err := os.ReadFile(f.source)
		if err != nil {
			return nil, err
		}
		fmt.Fprintln(&own, f.path)
		fmt.Fprintf(&sums, "%s %x\n", f.path, sha256.Sum256(text))
	}
	for name, text := range map[string]string{"list": all.String(), "conffiles": own.String(), "conffiles_static": sums.String(), "rusers": user + "\n"} {
		at := filepath.Join(b.work, "portcullis."+name)
		if err := os.WriteFile(at, []byte(text), 0o644); err != nil {
			return nil, err
		}
		records = append(records, file{path: "/lib/apk/packages/portcullis." + name, source: at, mode: 0o644})
	}
	sortFiles(records)
	return records, nil
}
