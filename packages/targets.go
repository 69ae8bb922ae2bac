package main

import (
	"fmt"
	"slices"
	"strings"
)

// target is a processor that the program is built for, and what distributions call it.
type target struct {
	name    string   // ours, of the tarball
	env     []string // for the Go compiler, each one that there is for the processor
	debian  string   // "": there is no package for it
	openwrt []string // one program serves several
	plain   int64    // octets that the program may have
	squash  int64    // and in OpenWrt's file system
}

// targets are all of them. OpenWrt's names are those of its releases 24.10 and 25.12, and
// which of the ARM ones has a floating-point unit is what stands in the name behind the
// processor, as its packages of Go have it; arm_fa526 is older than what Go supports.
// Debian's armhf is also what Raspberry Pi OS calls its first boards, so it gets ARMv6.
var targets = []target{
	{"amd64", []string{"GOARCH=amd64", "GOAMD64=v1"}, "amd64", []string{"x86_64"}, 8_440_000, 2_750_000},
	// For those who build it themselves; it is built here so that it can be.
	{"386", []string{"GOARCH=386", "GO386=softfloat"}, "", nil, 7_750_000, 2_580_000},
	{"arm64", []string{"GOARCH=arm64", "GOARM64=v8.0"}, "arm64", []string{
		"aarch64_generic", "aarch64_cortex-a53", "aarch64_cortex-a72", "aarch64_cortex-a76",
	}, 7_880_000, 2_360_000},
	{"armv5", []string{"GOARCH=arm", "GOARM=5"}, "armel", []string{
		"arm_arm926ej-s", "arm_xscale", "arm_cortex-a7", "arm_cortex-a9",
	}, 7_820_000, 2_370_000},
	{"armv6", []string{"GOARCH=arm", "GOARM=6"}, "armhf", []string{"arm_arm1176jzf-s_vfp"}, 7_820_000, 2_370_000},
	{"armv7", []string{"GOARCH=arm", "GOARM=7"}, "", []string{
		"arm_cortex-a5_vfpv4", "arm_cortex-a7_vfpv4", "arm_cortex-a7_neon-vfpv4", "arm_cortex-a8_vfpv3",
		"arm_cortex-a9_vfpv3-d16", "arm_cortex-a9_neon", "arm_cortex-a15_neon-vfpv4",
	}, 7_820_000, 2_370_000},
	{"mipsle", []string{"GOARCH=mipsle", "GOMIPS=softfloat"}, "mipsel", []string{
		"mipsel_24kc", "mipsel_24kc_24kf", "mipsel_74kc", "mipsel_mips32",
	}, 9_070_000, 2_260_000},
	{"mips", []string{"GOARCH=mips", "GOMIPS=softfloat"}, "", []string{"mips_24kc", "mips_4kec", "mips_mips32"}, 9_070_000, 2_220_000},
	{"riscv64", []string{"GOARCH=riscv64", "GORISCV64=rva20u64"}, "riscv64", []string{"riscv64_generic", "riscv64_riscv64"}, 7_620_000, 2_530_000},
	{"loong64", []string{"GOARCH=loong64"}, "loong64", []string{"loongarch64_generic"}, 8_540_000, 2_480_000},
}

// build returns the arguments of make by which a program is built. What is for the compiler is
// among them, because an argument counts before the environment of who builds.
func (t target) build(bin, version string) []string {
	return append([]string{"--silent", "build", "BIN=" + bin, "VERSION=" + version, "GOOS=linux"}, t.env...)
}

// named returns those targets, all without names.
func named(names []string) ([]target, error) {
	if len(names) == 0 {
		return targets, nil
	}
	var some []target
	for _, name := range names {
		i := slices.IndexFunc(targets, func(t target) bool { return t.name == name })
		if i < 0 {
			var all []string
			for _, t := range targets {
				all = append(all, t.name)
			}
			return nil, fmt.Errorf("there is no target %q; allowed: %s", name, strings.Join(all, " "))
		}
		some = append(some, targets[i])
	}
	return some, nil
}
