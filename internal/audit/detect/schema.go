package detect

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"

	"touchstone.dev/touchstone/internal/audit/detect/sigma"
	"touchstone.dev/touchstone/internal/audit/record"
)

// The fields that are worked out of an event. Any other name of small letters, digits, - and _ is a field of the kernel's records as it is.
const (
	fieldKeyword = iota
	fieldType
	fieldKey
	fieldSyscall
	fieldAccess      // read, write, create, attr, exec: what a system call wants of a file
	fieldPath        // whole path of each file, but for the folder that it is in
	fieldMode        // suid, sgid: bits that a system call sets
	fieldNamespace   // kinds of namespaces that setns, unshare or clone asks for
	fieldRequest     // command of bpf or ptrace, signal of kill
	fieldCommandLine // of an execve, its arguments joined by spaces
	fieldArgument    // each of them
	fieldTitle       // command line as the process shows it
	fieldCWD
	fieldExe
	fieldUser
	fieldAddress
	fieldPort
	fieldSocket // path of a unix socket
	fieldWhere  // pod, host or unknown
	fieldPod    // namespace/name
	fieldNamespaceK8s
	fieldContainer
	fieldImage
	fieldUnit
	fieldLogin // who logged in, by the agent's word
	fieldCreated
	firstNamed // from here on: names of the schema
)

// derived are the names of those fields. Names that begin with a capital are those of Sigma's taxonomy.
var derived = map[string]int{
	"": fieldKeyword, "type": fieldType, "key": fieldKey, "syscall": fieldSyscall, "access": fieldAccess, "path": fieldPath, "mode_set": fieldMode,
	"ns": fieldNamespace, "request": fieldRequest, "argument": fieldArgument, "proctitle": fieldTitle, "dest_ip": fieldAddress, "dest_port": fieldPort,
	"socket_path": fieldSocket, "where": fieldWhere, "k8s.pod": fieldPod, "k8s.namespace": fieldNamespaceK8s, "k8s.container": fieldContainer,
	"k8s.image": fieldImage, "unit": fieldUnit, "login": fieldLogin, "created": fieldCreated,

	"CommandLine": fieldCommandLine, "Image": fieldExe, "CurrentDirectory": fieldCWD, "User": fieldUser, "TargetFilename": fieldPath,
	"DestinationIp": fieldAddress, "DestinationPort": fieldPort,
}

// taxonomy are the other names of Sigma's taxonomy that audit has a field for.
var taxonomy = map[string]string{"ProcessId": "pid", "ParentProcessId": "ppid", "LogonId": "ses"}

// schema resolves log sources and fields, and remembers the names that rules ask for.
type schema struct {
	names  []string
	number map[string]int
	claims map[int]bool // fields of msg='...'
}

func newSchema() *schema { return &schema{number: map[string]int{}, claims: map[int]bool{}} }

// Source implements sigma.Schema.
func (s *schema) Source(src sigma.LogSource) (map[string]any, error) {
	if src.Product != "linux" {
		return nil, fmt.Errorf("log source: product %q: want linux", src.Product)
	}
	if src.Service != "" && src.Service != "auditd" {
		return nil, fmt.Errorf("log source: service %q: want auditd", src.Service)
	}
	switch src.Category {
	case "":
		if src.Service == "" {
			return nil, fmt.Errorf("log source: want service auditd, or a category")
		}
		return nil, nil
	case "process_creation":
		return map[string]any{"syscall": []any{"execve", "execveat"}, "success": "yes"}, nil
	case "file_event":
		return map[string]any{"access": []any{"write", "create"}, "success": "yes"}, nil
	case "network_connection":
		return map[string]any{"syscall": []any{"connect"}}, nil
	}
	return nil, fmt.Errorf("log source: category %q: want process_creation, file_event or network_connection", src.Category)
}

var (
	fieldName   = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,39}$`)
	claimName   = regexp.MustCompile(`^msg\.[a-z][a-z0-9_-]{0,39}$`)
	syscallWord = regexp.MustCompile(`^[0-9]+$`)
)

// Field implements sigma.Schema.
func (s *schema) Field(_ sigma.LogSource, name string) (sigma.Field, error) {
	if id, ok := derived[name]; ok {
		return derivedField(id), nil
	}
	if real, ok := taxonomy[name]; ok {
		name = real
	}
	claim := claimName.MatchString(name)
	if !claim && !fieldName.MatchString(name) {
		return sigma.Field{}, fmt.Errorf("field %q: audit events have no such field (of Sigma's taxonomy: %v; msg.NAME for what programs claim)", name, taxonomyNames())
	}
	id, ok := s.number[name]
	if !ok {
		id = firstNamed + len(s.names)
		s.names = append(s.names, name)
		s.number[name], s.claims[id] = id, claim
	}
	return sigma.Field{ID: id}, nil
}

func taxonomyNames() []string {
	var out []string
	for n := range derived {
		if n != "" && 'A' <= n[0] && n[0] <= 'Z' {
			out = append(out, n)
		}
	}
	for n := range taxonomy {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

func derivedField(id int) sigma.Field {
	f := sigma.Field{ID: id, Type: id == fieldType, Keyword: id == fieldKeyword}
	switch id {
	case fieldKey:
		f.Gate = 1
	case fieldSyscall:
		f.Gate, f.Check = 2, func(v string) error {
			if !knownSyscalls[v] && !syscallWord.MatchString(v) {
				return fmt.Errorf("there is no system call %q", v)
			}
			return nil
		}
	case fieldType:
		f.Gate, f.Check = 4, func(v string) error {
			if _, ok := record.ParseType([]byte(v)); !ok {
				return fmt.Errorf("there is no record of type %q", v)
			}
			return nil
		}
	case fieldWhere:
		f.Check = oneOf("pod", "host", "unknown")
	case fieldAccess:
		f.Gate = 3
		f.Check = oneOf("read", "write", "create", "attr", "exec")
	case fieldMode:
		f.Gate = 1
		f.Check = oneOf("suid", "sgid")
	case fieldPort:
		f.Check = func(v string) error {
			_, err := strconv.ParseUint(v, 10, 16)
			return err
		}
	}
	return f
}

func oneOf(words ...string) func(string) error {
	return func(v string) error {
		if !slices.Contains(words, v) {
			return fmt.Errorf("%q: want one of %v", v, words)
		}
		return nil
	}
}
