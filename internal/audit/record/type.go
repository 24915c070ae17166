package record

import (
	"slices"
	"strconv"
)

// Type is the number of a record's type, as in a netlink message.
type Type uint16

// The types that code of this product treats apart. All others have a name, too; see Type.String.
const (
	TypeUser          Type = 1005
	TypeLogin         Type = 1006
	TypeUserTTY       Type = 1124
	TypeDaemonStart   Type = 1200
	TypeDaemonEnd     Type = 1201
	TypeDaemonAbort   Type = 1202
	TypeSyscall       Type = 1300
	TypePath          Type = 1302
	TypeConfigChange  Type = 1305
	TypeSockaddr      Type = 1306
	TypeCWD           Type = 1307
	TypeExecve        Type = 1309
	TypeObjPID        Type = 1318
	TypeTTY           Type = 1319
	TypeEOE           Type = 1320
	TypeSeccomp       Type = 1326
	TypeProctitle     Type = 1327
	TypeReplace       Type = 1329
	TypeKernModule    Type = 1330
	TypeBPF           Type = 1334
	TypeEventListener Type = 1335
	TypeUringop       Type = 1336
	TypeAVC           Type = 1400
	TypeAnomAbend     Type = 1701
	TypeKernel        Type = 2000
)

// byName are the indexes of names, ordered by name.
var byName = func() []uint16 {
	index := make([]uint16, len(names))
	for i := range index {
		index[i] = uint16(i)
	}
	slices.SortFunc(index, func(a, b uint16) int {
		if names[a].name < names[b].name {
			return -1
		}
		return 1
	})
	return index
}()

// known returns the name of t, if it has one.
func known(t Type) (string, bool) {
	i, found := slices.BinarySearchFunc(names, t, func(n struct {
		number Type
		name   string
	}, t Type) int {
		return int(n.number) - int(t)
	})
	if !found {
		return "", false
	}
	return names[i].name, true
}

// String returns the name that stands in logs, "UNKNOWN[n]" for a type without one.
func (t Type) String() string {
	if name, ok := known(t); ok {
		return name
	}
	return string(t.append(nil))
}

func (t Type) append(dst []byte) []byte {
	if name, ok := known(t); ok {
		return append(dst, name...)
	}
	dst = append(dst, "UNKNOWN["...)
	dst = strconv.AppendUint(dst, uint64(t), 10)
	return append(dst, ']')
}

// ParseType returns the type that a name, or UNKNOWN[n], stands for. A log of auditd 3.0.9 has UNKNOWN[1423] where later ones have
// LANDLOCK_ACCESS: both are 1423.
func ParseType(name []byte) (Type, bool) {
	switch string(name) { // nearly all of a log
	case "SYSCALL":
		return TypeSyscall, true
	case "PATH":
		return TypePath, true
	case "CWD":
		return TypeCWD, true
	case "PROCTITLE":
		return TypeProctitle, true
	}
	i, found := slices.BinarySearchFunc(byName, name, func(i uint16, name []byte) int {
		switch n := names[i].name; {
		case n < string(name):
			return -1
		case n > string(name):
			return 1
		}
		return 0
	})
	if found {
		return names[byName[i]].number, true
	}
	const prefix = "UNKNOWN["
	if len(name) < len(prefix)+2 || string(name[:len(prefix)]) != prefix || name[len(name)-1] != ']' {
		return 0, false
	}
	n, ok := digits(name[len(prefix) : len(name)-1])
	if !ok || n == 0 || n > 0xffff {
		return 0, false
	}
	return Type(n), true
}

// Origin tells who answers for what a record says outside its claims.
type Origin uint8

// Origins of records.
const (
	OriginKernel Origin = iota // all of it is the kernel's
	OriginUser                 // the kernel stamped pid, uid, auid, ses and subj; the rest is in msg='...' and claimed
	OriginDaemon               // auditd wrote it about itself, straight into its log
)

// Origin returns who answers for records of this type. User space can send 1005, 1100 to 1199 and 2100 to 2999 only
// (kernel/audit.c, audit_netlink_ok).
func (t Type) Origin() Origin {
	switch {
	case t == TypeUser, 1100 <= t && t <= 1199, 2100 <= t && t <= 2999:
		return OriginUser
	case 1200 <= t && t <= 1299:
		return OriginDaemon
	}
	return OriginKernel
}

// Alone reports whether records of this type are an event by themselves: those of user space and of auditd, and the kernel's first word
// (KERNEL). All others of the kernel's may share an event with the system call that caused them, CONFIG_CHANGE and LOGIN too.
func (t Type) Alone() bool { return t.Origin() != OriginKernel || t == TypeKernel }
