package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// The program works from the top of the repository, as main does.
func TestMain(m *testing.M) {
	if err := os.Chdir(".."); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// TestTargets: no two programs go under one name, and each name is one that the table's
// comment allows for.
func TestTargets(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for _, x := range targets {
		names := append([]string{x.name}, x.openwrt...)
		if x.debian != "" {
			names = append(names, "debian "+x.debian)
		}
		for _, name := range names {
			if other, twice := seen[name]; twice {
				t.Errorf("%s and %s are both %s", other, x.name, name)
			}
			seen[name] = x.name
		}
		// What has no floating-point unit in its name must not need one, as in OpenWrt's
		// packages of Go.
		for _, name := range x.openwrt {
			cpu := strings.TrimPrefix(name, "arm_")
			if cpu != name && strings.Contains(cpu, "_") != (x.name != "armv5") {
				t.Errorf("%s gets the program of %s", name, x.name)
			}
		}
	}
}

// knobs are what decides, for each processor, which instructions its program has.
var knobs = map[string]string{
	"386": "GO386", "amd64": "GOAMD64", "arm": "GOARM", "arm64": "GOARM64", "mips": "GOMIPS", "mipsle": "GOMIPS",
	"riscv64": "GORISCV64", "loong64": "",
}

// TestPinned: what a builder has in his environment does not reach the compiler.
func TestPinned(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	compiler := filepath.Join(dir, "go")
	if err := os.WriteFile(compiler, []byte("#!/bin/sh\nenv\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, x := range targets {
		arch := strings.TrimPrefix(x.env[0], "GOARCH=")
		knob, known := knobs[arch]
		if !known || knob != "" && !strings.HasPrefix(strings.Join(x.env[1:], " "), knob+"=") {
			t.Errorf("%s: %v leaves %s to the builder", x.name, x.env, knob)
		}
		cmd := exec.Command("make", append(x.build(filepath.Join(dir, "bin"), "1.0.0"), "GO="+compiler)...)
		cmd.Env = append(os.Environ(), "GOOS=plan9", "GOARCH=wasm", "GO386=sse2", "GOAMD64=v3", "GOARM=7,hardfloat", "GOARM64=v9.0", "GOMIPS=hardfloat",
			"GOMIPS64=hardfloat", "GOPPC64=power10", "GORISCV64=rva23u64", "GOFIPS140=latest", "GOEXPERIMENT=rangefunc", "CGO_ENABLED=1")
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		has := strings.Split(string(out), "\n")
		for _, want := range append(x.env[:len(x.env):len(x.env)], "GOOS=linux", "GOFIPS140=off", "GOEXPERIMENT=", "CGO_ENABLED=0") {
			if !slices.Contains(has, want) {
				t.Errorf("%s: the compiler does not have %s, but\n%s", x.name, want, out)
			}
		}
	}
}

func TestVersions(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][3]string{
		"1.2.3":        {"1.2.3", "", ""},
		"0.1.0-dev":    {"0.1.0", "dev", "alpha"},
		"0.1.0-rc2":    {"0.1.0", "rc2", "rc2"},
		"0.1":          {},
		"v1.2.3":       {},
		"1.2.3-dirty":  {},
		"1.2.3-rc1\nx": {},
	} {
		v, apk, err := parseVersion(text)
		if got := [3]string{v.number, v.before, apk}; got != want || (err == nil) != (want[0] != "") {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}

// sample is a build that has something to pack.
func sample(t *testing.T) (*build, string) {
	t.Helper()
	b := &build{version: version{number: "1.2.3"}, when: time.Unix(1e9, 0).UTC(), out: t.TempDir(), work: t.TempDir()}
	bin := filepath.Join(b.work, "program")
	config := filepath.Join(b.work, "config")
	for _, name := range []string{bin, config} {
		if err := os.WriteFile(name, []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b.openwrt = &stage{prefix: "/usr", files: []file{
		{path: "/etc/config/upnpd", source: config, mode: 0o600, config: true},
		{path: "/etc/portcullis/portcullis.toml", link: "/var/etc/portcullis/portcullis.toml"},
	}}
	return b, bin
}

// TestSigned: with a key, apk's package begins with a signature of its control part under the
// name of that key; and it has what OpenWrt's scripts want to read of it.
func TestSigned(t *testing.T) {
	t.Parallel()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	b, bin := sample(t)
	b.key = key{filepath.Join(b.work, "us.pem"), "us.rsa.pub"}
	text := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(private)})
	if err := os.WriteFile(b.key.file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.router(target{openwrt: []string{"x86_64"}}, bin); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(b.out, "portcullis_1.2.3-r1_x86_64.apk"))
	if err != nil {
		t.Fatal(err)
	}
	parts, names := streams(t, data)
	if len(parts) != 3 || names[0] != ".SIGN.RSA.us.rsa.pub" {
		t.Fatalf("%d parts, with %q", len(parts), names)
	}
	signature := member(t, parts[0])
	sum := sha1.Sum(parts[1])
	if err := rsa.VerifyPKCS1v15(&private.PublicKey, crypto.SHA1, sum[:], signature); err != nil {
		t.Error(err)
	}
	list := strings.Join(names, " ")
	for _, want := range []string{"usr/sbin/portcullis", "etc/config/upnpd", "etc/portcullis/portcullis.toml", ".post-upgrade", "lib/apk/packages/portcullis.conffiles"} {
		if !strings.Contains(list, want) {
			t.Errorf("the package has no %s: %s", want, list)
		}
	}
}

// streams takes the parts of a package apart, each packed by itself, and returns the names
// of what is in them.
func streams(t *testing.T, data []byte) (parts [][]byte, names []string) {
	t.Helper()
	for len(data) > 0 {
		at := bytes.NewReader(data) // which is read an octet at a time, and never ahead
		z, err := gzip.NewReader(at)
		if err != nil {
			t.Fatal(err)
		}
		z.Multistream(false)
		archive, err := io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
		r := tar.NewReader(bytes.NewReader(archive))
		for h, err := r.Next(); err == nil; h, err = r.Next() {
			names = append(names, h.Name)
		}
		parts = append(parts, data[:len(data)-at.Len()])
		data = data[len(data)-at.Len():]
	}
	return parts, names
}

// member returns the first file of an archive.
func member(t *testing.T, packed []byte) []byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	r := tar.NewReader(z)
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestLicences: each module of the program has its licence in the package.
func TestLicences(t *testing.T) {
	t.Parallel()
	text, err := licences()
	if err != nil {
		t.Fatal(err)
	}
	for _, of := range []string{"The Portcullis authors", "the Go standard library", "github.com/google/nftables", "github.com/vishvananda/netlink"} {
		if !bytes.Contains(text, []byte(of)) {
			t.Errorf("the licence of %s is missing", of)
		}
	}
}
