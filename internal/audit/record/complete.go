package record

import "bytes"

// incomplete reports whether records of a kernel's event are missing, by what the others say about them. ended tells that its end was
// seen (PROCTITLE, EOE).
func incomplete(e *Event, ended bool) bool {
	var call *Record
	context, ring := false, false
	var paths, items uint64
	inOrder := true
	exec := false
	for i := range e.Records {
		switch r := &e.Records[i]; r.Type {
		case TypeSyscall:
			call = r
		case TypeUringop:
			call, ring = r, true
		case TypePath:
			inOrder = inOrder && pathItem(r) == paths
			paths++
			context = true
		case TypeExecve:
			exec, context = true, true
		case TypeCWD, TypeProctitle, TypeSockaddr, TypeObjPID:
			context = true
		}
	}
	if call == nil {
		return context || ended // context of a system call that is not there
	}
	if !ended && !ring { // a log has no mark of the end of a URINGOP
		return true
	}
	items, _ = call.Number("items", 10)
	if !inOrder || paths < items && !hides(call) {
		return true
	}
	return exec && !e.argvComplete()
}

// pathItem returns the number of a PATH record, which is its first field.
func pathItem(r *Record) uint64 {
	after, ok := bytes.CutPrefix(r.Body, []byte("item="))
	if !ok {
		return MaxRecords
	}
	n, _ := leadingDigits(after)
	return n
}

// hides reports whether the kernel counts a path in this system call that it does not log: those of message queues, mq_open and
// mq_unlink (audit_inode_parent_hidden).
func hides(call *Record) bool {
	arch, _ := call.Number("arch", 16)
	nr, ok := call.Number("syscall", 10)
	if !ok {
		return false
	}
	switch arch {
	case 0xc000003e: // x86_64
		return nr == 240 || nr == 241
	case 0xc00000b7: // aarch64
		return nr == 180 || nr == 181
	}
	return nr == 277 || nr == 278 || nr == 274 || nr == 275 // i386; arm
}
