package ima

import (
	"fmt"
	"strings"
)

// field is one kind of field of a template (Linux, ima_template.c, supported_fields).
type field uint8

const (
	fieldD field = iota
	fieldN
	fieldDNG
	fieldNNG
	fieldDNGv2
	fieldSig
	fieldDModSig
	fieldModSig
	fieldBuf
	fieldEVMSig
	fieldUID
	fieldGID
	fieldMode
	fieldXattrNames
	fieldXattrLengths
	fieldXattrValues
)

var fieldNames = map[string]field{
	"d": fieldD, "n": fieldN, "d-ng": fieldDNG, "n-ng": fieldNNG, "d-ngv2": fieldDNGv2, "sig": fieldSig,
	"d-modsig": fieldDModSig, "modsig": fieldModSig, "buf": fieldBuf, "evmsig": fieldEVMSig, "iuid": fieldUID, "igid": fieldGID,
	"imode": fieldMode, "xattrnames": fieldXattrNames, "xattrlengths": fieldXattrLengths, "xattrvalues": fieldXattrValues,
}

// maxFields is the kernel's IMA_TEMPLATE_NUM_FIELDS_MAX.
const maxFields = 15

// template describes the template data of an entry.
type template struct {
	name    string
	fields  []field
	buffer  bool   // every entry has a buffer
	custom  bool   // user-defined: the name is the format
	old     bool   // the template "ima", with a layout and a hash of its own
	problem string // why the fields cannot be read; the entry is still replayed
}

// builtin holds the templates that a kernel knows by name, the most used first.
var builtin = []*template{
	mustTemplate("ima-sig", "d-ng|n-ng|sig"),
	mustTemplate("ima-ng", "d-ng|n-ng"),
	mustTemplate("ima-buf", "d-ng|n-ng|buf"),
	mustTemplate("ima-ngv2", "d-ngv2|n-ng"),
	mustTemplate("ima-sigv2", "d-ngv2|n-ng|sig"),
	mustTemplate("ima-modsig", "d-ng|n-ng|sig|d-modsig|modsig"),
	mustTemplate("evm-sig", "d-ng|n-ng|evmsig|xattrnames|xattrlengths|xattrvalues|iuid|igid|imode"),
	{name: "ima", old: true},
}

// Templates returns the names and formats of the templates that a kernel knows by name. The format of "ima" is "d|n", but its
// layout differs from that of a user-defined template with this format.
func Templates() map[string]string {
	m := map[string]string{"ima": "d|n"}
	for _, t := range builtin {
		if !t.old {
			m[t.name] = formatOf(t.fields)
		}
	}
	return m
}

func formatOf(fields []field) string {
	names := make([]string, len(fields))
	for n, f := range fieldNames {
		for i := range fields {
			if fields[i] == f {
				names[i] = n
			}
		}
	}
	return strings.Join(names, "|")
}

func mustTemplate(name, format string) *template {
	fields, err := parseFormat(format)
	if err != nil {
		panic(err) // a wrong table above, seen by every test
	}
	return &template{name: name, fields: fields, buffer: name == "ima-buf"}
}

// parseFormat reads a format as in the kernel's parameter ima_template_fmt. A field named twice is refused: the kernel would
// accept it, but it would be unclear which of the two an entry means.
func parseFormat(format string) ([]field, error) {
	if strings.Count(format, "|") >= maxFields {
		return nil, fmt.Errorf("template format %.40q has more than %d fields", format, maxFields)
	}
	var fields []field
	var seen uint32
	for _, name := range strings.Split(format, "|") {
		f, ok := fieldNames[name]
		if !ok {
			return nil, fmt.Errorf("unknown template or template field %.40q", name)
		}
		if seen&(1<<f) != 0 {
			return nil, fmt.Errorf("template format %.40q names the field %s twice", format, name)
		}
		seen |= 1 << f
		fields = append(fields, f)
	}
	return fields, nil
}

// maxCustom bounds the templates that one list is remembered to use; a kernel uses two or three.
const maxCustom = 8

// template returns the template of that name. Names that mean nothing give a template without fields and with a problem.
func (l *List) template(name []byte) *template {
	if l.last != nil && l.last.name == string(name) {
		return l.last
	}
	for _, t := range builtin {
		if t.name == string(name) {
			l.last = t
			return t
		}
	}
	for _, t := range l.custom {
		if t.name == string(name) {
			l.last = t
			return t
		}
	}
	t := &template{name: string(name), custom: true}
	var err error
	if t.fields, err = parseFormat(t.name); err != nil {
		t.problem = err.Error()
	}
	if len(l.custom) < maxCustom {
		l.custom = append(l.custom, t)
	}
	l.last = t
	return t
}
