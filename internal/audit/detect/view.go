package detect

import (
	"bytes"
	"path"
	"strconv"

	"touchstone.dev/touchstone/internal/audit/chain"
	"touchstone.dev/touchstone/internal/audit/detect/sigma"
	"touchstone.dev/touchstone/internal/audit/record"
)

// view shows one event to the rules (sigma.Event). What several rules ask for is worked out once.
type view struct {
	schema  *schema
	ev      *record.Event
	context *chain.Context
	call    call
	hasCall bool
	argv    [][]byte
	argvSet bool
	paths   []record.Path
	pathSet bool
	bytes   [][]byte
}

// set begins another event.
func (v *view) set(s *schema, e *record.Event, c *chain.Context) {
	*v = view{schema: s, ev: e, context: c, argv: v.argv[:0], paths: v.paths[:0], bytes: v.bytes}
	r := e.Find(record.TypeSyscall)
	if r == nil {
		return
	}
	arch, _ := r.Number("arch", 16)
	n, ok := r.Number("syscall", 10)
	if !ok {
		return
	}
	success, _ := r.Field("success")
	v.call, v.hasCall = call{name: syscallName(uint32(arch), int(n&0x7fffffff)), rec: r, success: string(success) == "yes"}, true //nolint:gosec // arch has 32 bits
	// The only way of 32-bit programs to connect for long: one system call for all that sockets do.
	if string(v.call.name) == "socketcall" && v.call.arg(0) == 3 {
		v.call.name = []byte("connect")
	}
}

// Records implements sigma.Event.
func (v *view) Records() int { return len(v.ev.Records) }

// Tokens implements sigma.Event.
func (v *view) Tokens(dst []sigma.Token) []sigma.Token {
	for _, k := range v.ev.Keys() {
		dst = append(dst, sigma.TokenOf(fieldKey, k))
	}
	if r := v.ev.Find(record.TypeConfigChange); r != nil {
		if key, ok := r.Text("key"); ok {
			dst = append(dst, sigma.TokenOf(fieldKey, key))
		}
	}
	if v.hasCall {
		dst = append(dst, sigma.TokenOf(fieldSyscall, v.call.name))
		v.bytes = v.call.access(v.bytes[:0], v.ev)
		for _, a := range v.bytes {
			dst = append(dst, sigma.TokenOf(fieldAccess, a))
		}
		v.bytes = v.call.modes(v.bytes[:0])
		for _, m := range v.bytes {
			dst = append(dst, sigma.TokenOf(fieldMode, m))
		}
	}
	last := record.Type(0)
	for i := range v.ev.Records {
		if t := v.ev.Records[i].Type; t != last {
			dst, last = append(dst, typeToken(t)), t
		}
	}
	return dst
}

// typeTokens saves the hashing of the types that nearly all events have.
var typeTokens = func() (t [record.TypeEOE + 16]sigma.Token) {
	for i := range t {
		t[i] = sigma.TokenOf(fieldType, []byte(record.Type(i).String())) //nolint:gosec // small
	}
	return t
}()

func typeToken(t record.Type) sigma.Token {
	if int(t) < len(typeTokens) {
		return typeTokens[t]
	}
	return sigma.TokenOf(fieldType, []byte(t.String()))
}

// Append implements sigma.Event.
func (v *view) Append(dst [][]byte, field, rec int) [][]byte {
	if field >= firstNamed {
		return v.named(dst, v.schema.names[field-firstNamed], v.schema.claims[field], rec)
	}
	if rec >= 0 {
		r := &v.ev.Records[rec]
		switch field {
		case fieldType:
			return append(dst, []byte(r.Type.String()))
		case fieldKey: // in CONFIG_CHANGE: of the rule that was changed
			if key, ok := r.Text("key"); ok {
				dst = append(dst, bytes.Split(key, []byte{1})...)
			}
			return dst
		case fieldKeyword:
			return append(dst, r.Stamped())
		case fieldPath:
			if name, ok := r.Text("name"); ok && r.Type == record.TypePath {
				dst = append(dst, v.absolute(name))
			}
			return dst
		case fieldExe, fieldTitle:
			return appendText(dst, r, map[int]string{fieldExe: "exe", fieldTitle: "proctitle"}[field])
		}
	}
	return v.derived(dst, field)
}

// named appends a field of the records as it is: what the kernel stamped, or what a program claims.
func (v *view) named(dst [][]byte, name string, claim bool, rec int) [][]byte {
	for i := range v.ev.Records {
		if rec >= 0 && rec != i {
			continue
		}
		r := &v.ev.Records[i]
		if !claim {
			dst = appendText(dst, r, name)
		} else if b, ok := r.ClaimedText(name[len("msg."):]); ok {
			dst = append(dst, b)
		}
	}
	return dst
}

func appendText(dst [][]byte, r *record.Record, name string) [][]byte {
	if b, ok := r.Text(name); ok {
		return append(dst, b)
	}
	return dst
}

func (v *view) derived(dst [][]byte, field int) [][]byte {
	switch field {
	case fieldType, fieldKeyword:
		for i := range v.ev.Records {
			dst = v.Append(dst, field, i)
		}
	case fieldKey:
		dst = append(dst, v.ev.Keys()...)
	case fieldSyscall:
		if v.hasCall {
			dst = append(dst, v.call.name)
		}
	case fieldAccess:
		if v.hasCall {
			dst = v.call.access(dst, v.ev)
		}
	case fieldMode:
		if v.hasCall {
			dst = v.call.modes(dst)
		}
	case fieldNamespace:
		if v.hasCall {
			dst = v.call.namespaces(dst)
		}
	case fieldRequest:
		if v.hasCall {
			dst = v.call.request(dst)
		}
	case fieldPath, fieldCreated:
		dst = v.appendPaths(dst, field)
	case fieldArgument:
		dst = append(dst, v.arguments()...)
	case fieldCommandLine:
		if a := v.arguments(); len(a) > 0 {
			dst = append(dst, bytes.Join(a, []byte(" ")))
		}
	case fieldTitle:
		if t := v.ev.Proctitle(); len(t) > 0 {
			dst = append(dst, bytes.Join(t, []byte(" ")))
		}
	case fieldCWD:
		if b, ok := v.ev.CWD(); ok {
			dst = append(dst, b)
		}
	case fieldExe:
		dst = v.named(dst, "exe", false, -1)
	case fieldUser:
		dst = v.user(dst)
	case fieldAddress, fieldPort, fieldSocket:
		dst = v.socket(dst, field)
	default:
		dst = v.where(dst, field)
	}
	return dst
}

func (v *view) arguments() [][]byte {
	if !v.argvSet {
		a, _ := v.ev.Argv()
		v.argv, v.argvSet = a.Args, true
	}
	return v.argv
}

func (v *view) appendPaths(dst [][]byte, field int) [][]byte {
	if !v.pathSet {
		v.paths, v.pathSet = v.ev.Paths(), true
	}
	for _, p := range v.paths {
		switch {
		case p.Name == nil || string(p.Kind) == "PARENT" || field == fieldCreated && string(p.Kind) != "CREATE":
		default:
			dst = append(dst, v.absolute(p.Name))
		}
	}
	return dst
}

// absolute returns the whole path of a name. Names that openat takes relative to an open folder cannot be told from those relative to the
// working directory: audit rules on a folder name it by a record of their own.
func (v *view) absolute(name []byte) []byte {
	if clean(name) {
		return name
	}
	cwd := []byte("/")
	if name[0] != '/' {
		if b, ok := v.ev.CWD(); ok {
			cwd = b
		}
	} else {
		cwd = nil
	}
	return []byte(path.Clean(string(cwd) + "/" + string(name)))
}

// clean reports whether a path is absolute and has nothing to take out. An empty name stays as it is.
func clean(name []byte) bool {
	return len(name) == 0 || name[0] == '/' && !bytes.Contains(name, []byte("//")) && !bytes.Contains(name, []byte("/.")) && (len(name) == 1 || name[len(name)-1] != '/')
}

func (v *view) user(dst [][]byte) [][]byte {
	n := len(dst)
	dst = v.named(dst, "uid", false, -1)
	for _, u := range dst[n:] {
		if string(u) == "0" {
			return append(dst, []byte("root"))
		}
	}
	return dst
}

func (v *view) socket(dst [][]byte, field int) [][]byte {
	s, ok := v.ev.Sockaddr()
	switch {
	case !ok:
	case field == fieldSocket && s.Family == record.FamilyUnix && len(s.Path) > 0:
		dst = append(dst, s.Path)
	case field == fieldSocket || !s.Addr.IsValid():
	case field == fieldAddress:
		dst = append(dst, []byte(s.Addr.Addr().Unmap().String()))
	default:
		dst = append(dst, strconv.AppendUint(nil, uint64(s.Addr.Port()), 10))
	}
	return dst
}

// where is what the agent found out about the place that the event comes from.
func (v *view) where(dst [][]byte, field int) [][]byte {
	c := v.context
	s := ""
	switch field {
	case fieldWhere:
		s = place(c)
	case fieldPod:
		if c.Pod != "" {
			s = c.Namespace + "/" + c.Pod
		}
	case fieldNamespaceK8s:
		s = c.Namespace
	case fieldContainer:
		s = c.Container
	case fieldImage:
		s = c.Image
	case fieldUnit:
		s = c.Unit
	case fieldLogin:
		s = c.User
	}
	if s == "" {
		return dst
	}
	return append(dst, []byte(s))
}

// place tells pods and the host apart; unknown when the process was gone before the agent could look.
func place(c *chain.Context) string {
	switch {
	case c.PodUID != "" || c.ContainerID != "":
		return "pod"
	case c.Unit != "":
		return "host"
	}
	return "unknown"
}
