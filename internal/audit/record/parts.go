package record

import (
	"bytes"
	"net/netip"
)

// Keys returns the keys of the rules that asked for the event (-k; more than one rule may have matched).
func (e *Event) Keys() [][]byte {
	for _, r := range e.Records {
		if r.Type != TypeSyscall && r.Type != TypeUringop { // in CONFIG_CHANGE it is the key of the rule that was changed
			continue
		}
		if key, ok := r.Text("key"); ok && len(key) > 0 {
			return bytes.Split(key, []byte{1})
		}
	}
	return nil
}

// CWD returns the working directory.
func (e *Event) CWD() ([]byte, bool) {
	if r := e.Find(TypeCWD); r != nil {
		return r.Text("cwd")
	}
	return nil, false
}

// Proctitle returns the command line as it stood in the process's memory at the time, which the process may have changed; the kernel
// keeps 128 bytes of it. What was executed is Argv.
func (e *Event) Proctitle() [][]byte {
	r := e.Find(TypeProctitle)
	if r == nil {
		return nil
	}
	title, ok := r.Text("proctitle")
	if !ok {
		return nil
	}
	return bytes.Split(bytes.TrimRight(title, "\x00"), []byte{0})
}

// Path is one PATH record. Numbers that are not there are 0, ids Unset.
type Path struct {
	Item     int
	Name     []byte // nil: (null)
	Kind     []byte // nametype: NORMAL, PARENT, CREATE, DELETE, UNKNOWN
	Inode    uint64
	Dev      []byte // major:minor of the file system, hexadecimal
	Mode     uint32 // with the bits of the kind of file
	UID, GID uint32
}

// Paths returns the files that the event touched, in the order of the records.
func (e *Event) Paths() []Path {
	var paths []Path
	for _, r := range e.Records {
		if r.Type != TypePath {
			continue
		}
		p := Path{UID: Unset, GID: Unset}
		for name, raw := range r.Fields() {
			v, isNumber := digits(raw)
			switch string(name) {
			case "item":
				p.Item = int(min(v, MaxRecords))
			case "name":
				p.Name, _ = r.text("name", raw)
			case "nametype":
				p.Kind = raw
			case "inode":
				p.Inode = v
			case "dev":
				p.Dev = raw
			case "mode":
				mode, _ := number(raw, 8)
				p.Mode = uint32(mode)
			case "ouid":
				if isNumber {
					p.UID = uint32(v)
				}
			case "ogid":
				if isNumber {
					p.GID = uint32(v)
				}
			}
		}
		paths = append(paths, p)
	}
	return paths
}

// Sockaddr is the address of a socket, decoded. Which fields are set depends on Family.
type Sockaddr struct {
	Family uint16
	Addr   netip.AddrPort // AF_INET, AF_INET6
	Path   []byte         // AF_UNIX; an abstract name begins with '@'
	PID    uint32         // AF_NETLINK: the port
	Groups uint32         // AF_NETLINK
}

// Families of sockets that Sockaddr decodes.
const (
	FamilyUnix    = 1
	FamilyINET    = 2
	FamilyINET6   = 10
	FamilyNetlink = 16
)

// Sockaddr returns the address of the event's SOCKADDR record; false when there is none, or it is broken.
func (e *Event) Sockaddr() (Sockaddr, bool) {
	r := e.Find(TypeSockaddr)
	if r == nil {
		return Sockaddr{}, false
	}
	raw, ok := r.Field("saddr")
	if !ok || string(raw) == "(null)" {
		return Sockaddr{}, false
	}
	return parseSockaddr(unhex(raw))
}

func parseSockaddr(b []byte) (s Sockaddr, ok bool) {
	if len(b) < 2 {
		return s, false
	}
	s.Family = uint16(b[0]) | uint16(b[1])<<8
	switch s.Family {
	case FamilyUnix:
		s.Path = unixPath(b[2:])
	case FamilyINET:
		if len(b) < 8 {
			return s, false
		}
		s.Addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), port(b))
	case FamilyINET6:
		if len(b) < 24 {
			return s, false
		}
		s.Addr = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:24])), port(b))
	case FamilyNetlink:
		if len(b) < 12 {
			return s, false
		}
		s.PID, s.Groups = little32(b[4:]), little32(b[8:])
	}
	return s, true
}

// port is in network order for both families.
func port(b []byte) uint16 { return uint16(b[2])<<8 | uint16(b[3]) }

func little32(b []byte) uint32 {
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}

func unixPath(b []byte) []byte {
	if len(b) > 0 && b[0] == 0 { // abstract: all of it counts; what is behind the name is zeros of the caller's buffer
		return append([]byte{'@'}, bytes.TrimRight(b[1:], "\x00")...)
	}
	if n := bytes.IndexByte(b, 0); n >= 0 {
		b = b[:n]
	}
	return b
}
