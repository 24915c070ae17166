package detect

import (
	_ "embed"
	"strconv"
	"strings"

	"touchstone.dev/touchstone/internal/audit/record"
)

//go:embed syscalls.txt
var syscallText string

// The architectures of AUDIT_ARCH_* (linux/audit.h) that have names of system calls.
const (
	archX8664 = 0xc000003e
	archI386  = 0x40000003
	archARM64 = 0xc00000b7
)

// syscalls are the names by architecture and number.
var syscalls = readSyscalls(syscallText)

func readSyscalls(text string) map[uint32][][]byte {
	arches := map[string]uint32{"x86_64:": archX8664, "i386:": archI386, "aarch64:": archARM64}
	out := map[uint32][][]byte{}
	arch := uint32(0)
	for line := range strings.Lines(text) {
		for word := range strings.FieldsSeq(line) {
			if strings.HasPrefix(line, "#") {
				break
			}
			if a, ok := arches[word]; ok {
				arch = a
				continue
			}
			name := []byte(word)
			if word == "-" {
				name = nil
			}
			out[arch] = append(out[arch], name)
		}
	}
	return out
}

// knownSyscalls are all names, for the check of rules.
var knownSyscalls = func() map[string]bool {
	out := map[string]bool{}
	for _, names := range syscalls {
		for _, n := range names {
			out[string(n)] = true
		}
	}
	return out
}()

// x32 marks numbers of the x32 interface, which the kernel logs as x86_64.
const x32 = 1 << 30

// syscallName returns the name of an event's system call; its number where it has none.
func syscallName(arch uint32, number int) []byte {
	if number < 0 {
		return nil
	}
	if arch == archX8664 {
		number &^= x32
	}
	if names := syscalls[arch]; number < len(names) && names[number] != nil {
		return names[number]
	}
	return strconv.AppendInt(nil, int64(number), 10)
}

// Bits of flags and modes that are the same on all three architectures (uapi asm-generic/fcntl.h, linux/sched.h).
const (
	oAccess = 3
	oCreat  = 0o100
	oTrunc  = 0o1000
	suid    = 0o4000
	sgid    = 0o2000
)

var (
	read, write, create, attr, execute = []byte("read"), []byte("write"), []byte("create"), []byte("attr"), []byte("exec")
	bits                               = map[uint64][]byte{suid: []byte("suid"), sgid: []byte("sgid")}
	namespaces                         = []struct {
		bit  uint64
		name []byte
	}{
		{0x00000080, []byte("time")}, {0x00020000, []byte("mnt")}, {0x02000000, []byte("cgroup")}, {0x04000000, []byte("uts")}, {0x08000000, []byte("ipc")},
		{0x10000000, []byte("user")}, {0x20000000, []byte("pid")}, {0x40000000, []byte("net")},
	}
	// bpfCommands and ptraceRequests are those that rules ask for (linux/bpf.h, linux/ptrace.h).
	bpfCommands    = map[uint64][]byte{0: []byte("map_create"), 5: []byte("prog_load"), 8: []byte("prog_attach"), 17: []byte("raw_tracepoint_open"), 28: []byte("link_create")}
	ptraceRequests = map[uint64][]byte{4: []byte("poketext"), 5: []byte("pokedata"), 13: []byte("setregs"), 16: []byte("attach"), 0x4206: []byte("seize")}
)

// call is the SYSCALL record of an event, with its arguments.
type call struct {
	name    []byte
	success bool
	rec     *record.Record
}

func (c *call) arg(i int) uint64 {
	v, _ := c.rec.Number("a"+strconv.Itoa(i), 16)
	return v
}

// flagArgument is which argument of open and its like has the flags.
var flagArgument = map[string]int{"open": 1, "openat": 2, "open_by_handle_at": 2}

// modeArgument is which argument has the mode that a file gets.
var modeArgument = map[string]int{"chmod": 1, "fchmod": 1, "fchmodat": 2, "fchmodat2": 2, "creat": 1, "mknod": 1, "mknodat": 2, "mkdir": 1, "mkdirat": 2}

// writes are the system calls that change what is found under a path, attributes are those that change what is known of it.
var writes, attributes = words(`rename renameat renameat2 unlink unlinkat rmdir link linkat symlink symlinkat mkdir mkdirat mknod mknodat truncate
	ftruncate truncate64 ftruncate64`),
	words(`chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat chown32 fchown32 lchown32 setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr`)

func words(s string) map[string]bool {
	out := map[string]bool{}
	for w := range strings.FieldsSeq(s) {
		out[w] = true
	}
	return out
}

// access says what a system call wants of the files that it names.
func (c *call) access(dst [][]byte, e *record.Event) [][]byte {
	name := string(c.name)
	flags := uint64(0)
	switch i, ok := flagArgument[name]; {
	case ok:
		flags = c.arg(i)
	case name == "openat2":
		r := e.Find(typeOpenat2)
		if r == nil {
			return append(dst, read, write) // what it wants is not known
		}
		flags, _ = r.Number("oflag", 8)
	case name == "creat":
		return append(dst, write, create)
	case writes[name]:
		return append(dst, write)
	case attributes[name]:
		return append(dst, attr)
	case name == "execve" || name == "execveat":
		return append(dst, execute)
	default:
		return dst
	}
	if flags&oAccess != 1 {
		dst = append(dst, read)
	}
	if flags&oAccess != 0 || flags&oTrunc != 0 {
		dst = append(dst, write)
	}
	if flags&oCreat != 0 {
		dst = append(dst, create)
	}
	return dst
}

// typeOpenat2 is the record with the arguments of openat2 (AUDIT_OPENAT2).
const typeOpenat2 record.Type = 1337

// modes are the bits that a system call sets on a file.
func (c *call) modes(dst [][]byte) [][]byte {
	i, ok := modeArgument[string(c.name)]
	if !ok {
		return dst
	}
	mode := c.arg(i)
	for _, b := range [...]uint64{suid, sgid} {
		if mode&b != 0 {
			dst = append(dst, bits[b])
		}
	}
	return dst
}

// namespaces are the kinds that setns, unshare or clone asks for; setns with 0 takes any.
func (c *call) namespaces(dst [][]byte) [][]byte {
	flags := uint64(0)
	switch string(c.name) {
	case "setns":
		if flags = c.arg(1); flags == 0 {
			return append(dst, []byte("any"))
		}
	case "unshare", "clone":
		flags = c.arg(0)
	default:
		return dst
	}
	for _, n := range namespaces {
		if flags&n.bit != 0 {
			dst = append(dst, n.name)
		}
	}
	return dst
}

// request is the command of a system call that has many: bpf, ptrace, kill.
func (c *call) request(dst [][]byte) [][]byte {
	var v []byte
	switch string(c.name) {
	case "bpf":
		v = bpfCommands[c.arg(0)]
	case "ptrace":
		v = ptraceRequests[c.arg(0)]
	case "kill", "tkill":
		v = strconv.AppendUint(nil, c.arg(1), 10)
	case "tgkill":
		v = strconv.AppendUint(nil, c.arg(2), 10)
	case "socketcall":
		v = strconv.AppendUint(nil, c.arg(0), 10)
	}
	if v == nil {
		return dst
	}
	return append(dst, v)
}
