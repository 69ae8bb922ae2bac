package sandbox

import (
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// An action is what becomes of a call.
type action uint32

const (
	allow   = action(unix.SECCOMP_RET_ALLOW)
	refuse  = action(unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM))
	unknown = action(unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS))
	kill    = action(unix.SECCOMP_RET_KILL_PROCESS)
)

// processor is what a filter must know of one: its number for the audit, whether the low
// half of an argument comes second, and its calls.
type processor struct {
	audit     uint32
	bigEndian bool
	calls     []call
}

// call is the name of a system call and its number.
type call struct {
	name   string
	number uint32
}

// number returns that of a call; false where there is no such call.
func (p processor) number(name string) (uint32, bool) {
	for _, c := range p.calls {
		if c.name == name {
			return c.number, true
		}
	}
	return 0, false
}

// Where struct seccomp_data has its members (linux/seccomp.h).
const (
	offsetNumber   = 0
	offsetAudit    = 4
	offsetArgument = 16 // of 64 bits each
)

// x32 is where the numbers of that kind of call begin on amd64, which has the same audit
// number.
const x32 = 0x40000000

// filter returns the program for a role on a processor.
func filter(p processor, r role) []bpf.Instruction {
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offsetAudit, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: p.audit, SkipTrue: 1},
		bpf.RetConstant{Val: uint32(kill)},
		bpf.LoadAbsolute{Off: offsetNumber, Size: 4},
	}
	if p.audit == unix.AUDIT_ARCH_X86_64 {
		program = append(program,
			bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: x32, SkipFalse: 1},
			bpf.RetConstant{Val: uint32(kill)})
	}
	for _, rule := range r.rules {
		verdict := rule.verdict(p)
		for _, name := range rule.calls {
			if number, there := p.number(name); there {
				program = append(program, bpf.JumpIf{Cond: bpf.JumpEqual, Val: number, SkipFalse: uint8(len(verdict))})
				program = append(program, verdict...)
			}
		}
	}
	return append(program, bpf.RetConstant{Val: uint32(r.otherwise)})
}

// verdict returns what is done about a call of a rule; it always returns, so that what
// follows is about other calls.
func (r rule) verdict(p processor) []bpf.Instruction {
	done := bpf.RetConstant{Val: uint32(r.does)}
	var program []bpf.Instruction
	for _, a := range []*argument{r.when, r.also} {
		if a != nil {
			program = append(program, a.check(p)...)
		}
	}
	return append(program, done)
}

// check refuses the call where the argument is another.
func (a argument) check(p processor) []bpf.Instruction {
	low := uint32(offsetArgument + 8*a.index)
	if p.bigEndian {
		low += 4
	}
	program := []bpf.Instruction{bpf.LoadAbsolute{Off: low, Size: 4}}
	if a.mask != all {
		program = append(program, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: a.mask})
	}
	for i, value := range a.values {
		program = append(program, bpf.JumpIf{Cond: bpf.JumpEqual, Val: value, SkipTrue: uint8(len(a.values) - i)})
	}
	return append(program, bpf.RetConstant{Val: uint32(refuse)})
}
