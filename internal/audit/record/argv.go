package record

import "bytes"

// Argv is the command line that was executed, put together from all EXECVE records: an argument of more than 7500 bytes comes as
// aN_len=, aN[0]=, aN[1]= ..., over several records.
type Argv struct {
	Args [][]byte
	// Complete tells that all of argc arguments are there, each with all of its parts.
	Complete bool
}

// Argv returns the executed command line; false when the event executed nothing. Arguments that are missing (records were lost) are left
// out, those after MaxArgs too: Complete is false then.
func (e *Event) Argv() (Argv, bool) {
	a := argvReader{complete: true}
	found := false
	for i := range e.Records {
		if e.Records[i].Type == TypeExecve {
			found = true
			a.record(&e.Records[i])
		}
	}
	if !found {
		return Argv{}, false
	}
	a.endArg()
	return Argv{Args: a.args, Complete: a.complete && uint64(len(a.args)) == a.argc}, true
}

// argvComplete reports whether all arguments are there, without decoding any.
func (e *Event) argvComplete() bool {
	a := argvReader{complete: true, dry: true}
	for i := range e.Records {
		if e.Records[i].Type == TypeExecve {
			a.record(&e.Records[i])
		}
	}
	a.endArg()
	return a.complete && a.next == a.argc
}

type argvReader struct {
	dry      bool // only count
	args     [][]byte
	argc     uint64
	complete bool

	long      []byte // parts of the argument that comes in parts
	inLong    bool
	next      uint64 // number of the next argument
	nextPart  uint64
	wantBytes uint64 // length of all parts as they stand in the records
	haveBytes uint64
}

func (a *argvReader) record(r *Record) {
	for name, raw := range r.Fields() {
		if string(name) == "argc" {
			a.argc, _ = digits(raw)
			continue
		}
		if len(name) < 2 || name[0] != 'a' {
			continue
		}
		n, used := leadingDigits(name[1:])
		if used == 0 || used > 9 {
			continue
		}
		switch rest := name[1+used:]; {
		case len(rest) == 0:
			a.whole(n, r, raw)
		case string(rest) == "_len":
			a.begin(n, raw)
		case rest[0] == '[' && rest[len(rest)-1] == ']':
			part, ok := digits(rest[1 : len(rest)-1])
			a.part(n, part, ok, r, raw)
		}
	}
}

func (a *argvReader) whole(n uint64, r *Record, raw []byte) {
	a.endArg()
	if a.dry {
		a.add(n, nil)
		return
	}
	text, _ := r.text("a0", raw)
	a.add(n, text)
}

func (a *argvReader) add(n uint64, arg []byte) {
	if n != a.next || len(a.args) >= MaxArgs {
		a.complete = false
	}
	a.next = n + 1
	if len(a.args) < MaxArgs && !a.dry {
		a.args = append(a.args, arg)
	}
}

func (a *argvReader) begin(n uint64, raw []byte) {
	a.endArg()
	a.inLong, a.long, a.nextPart, a.haveBytes = true, nil, 0, 0
	a.wantBytes, _ = digits(raw)
	if n != a.next {
		a.complete = false
	}
	a.next = n
}

func (a *argvReader) part(n, part uint64, ok bool, r *Record, raw []byte) {
	if !a.inLong || n != a.next { // the record with its length, or its first parts, are lost
		a.begin(n, nil)
	}
	if !ok || part != a.nextPart {
		a.complete = false
	}
	a.nextPart = part + 1
	a.haveBytes += uint64(len(bytes.Trim(raw, `"`)))
	if a.dry {
		return
	}
	text, _ := r.text("a0", raw)
	a.long = append(a.long, text...)
}

func (a *argvReader) endArg() {
	if !a.inLong {
		return
	}
	if a.haveBytes != a.wantBytes {
		a.complete = false
	}
	a.inLong = false
	a.add(a.next, a.long)
}
