//go:build !386 && !amd64 && !arm && !arm64 && !loong64 && !mips && !mipsle && !riscv64

package sandbox

// native is nothing where no filter can be made.
var native processor
