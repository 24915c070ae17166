package ima

import (
	"bytes"
	"fmt"
	"strings"

	"touchstone.dev/touchstone/internal/tpm"
)

// AggregateName is the path of the entry that IMA makes first of all, over the PCRs of the boot.
const AggregateName = "boot_aggregate"

// Entry is one measurement. Its slices point into the list that was given; they must not be changed. Its strings, slices and Extra
// stay valid when the Entry itself is used again for the next one.
type Entry struct {
	Index        uint64 // position in the whole list, from 0
	Offset       int    // byte offset in the whole list
	PCR          int
	TemplateHash []byte // 20 bytes as in the list; all zero for a violation
	Template     string // name of the template, or its format when it is user-defined
	Data         []byte // raw template data
	// Violation: the kernel could not measure what was used (file open for writing while it was measured, or the other
	// way round). Digest then says nothing.
	Violation bool
	Alg       tpm.Alg // algorithm of Digest; 0 when it is not one of tpm.HashAlgs or the entry has a Problem
	Type      string  // what was hashed, in d-ngv2 fields: "ima" (the file), "verity" (the fs-verity descriptor); else ""
	Digest    []byte  // file digest
	Path      string  // path or event name, as the kernel wrote it
	Signature []byte  // security.ima signature (or security.evm portable signature), empty when the file has none
	ModSig    []byte  // appended signature, CMS
	Buffer    []byte  // measured buffer: kexec command line, key, policy, critical data
	Extra     *Extra  // the rarer fields; nil when the template has none
	// Problem says why the fields of the entry could not be read: unknown template, field malformed, unknown digest
	// algorithm. Such an entry is replayed like any other. It never counts as known.
	Problem string
}

// Extra holds the fields that only the templates ima-modsig, evm-sig and user-defined ones have.
type Extra struct {
	ModAlg       tpm.Alg // algorithm and digest that the appended signature covers
	ModDigest    []byte
	EVMSignature []byte // portable signature from security.evm
	UID, GID     uint32 // owner of the inode
	Mode         uint16 // type and permissions of the inode
	// XattrNames are the names of the extended attributes that EVM protects and the inode has; XattrValues their values.
	XattrNames  []string
	XattrValues [][]byte
}

// isAggregate reports whether e is a boot_aggregate that can be read.
func (e *Entry) isAggregate() bool {
	return e.Path == AggregateName && e.Problem == "" && !e.Violation && e.Alg != 0 && len(e.Digest) > 0
}

// fields fills e from the template data.
func (e *Entry) fields(t *template, l *List) {
	if t.problem != "" {
		e.Problem = t.problem
		return
	}
	if t.old {
		e.Digest, e.Alg = e.Data[:20], tpm.AlgSHA1
		e.name(e.Data[24:], false, l)
		return
	}
	at := 0
	var x xattrs
	for _, f := range t.fields {
		n, ok := length(e.Data, at, l.order)
		if !ok {
			e.problem("template data end before its last field")
			e.Alg = 0
			return
		}
		at += 4
		e.field(f, e.Data[at:at+n], l, &x)
		at += n
	}
	if at != len(e.Data) {
		e.problem("%d bytes after the last field", len(e.Data)-at)
	}
	if x.seen {
		x.split(e, l.order)
	}
	if len(e.Buffer) > 0 || t.buffer {
		e.checkBuffer()
	}
	if e.Problem != "" {
		e.Alg = 0 // a digest from a malformed entry is no digest
	}
}

// checkBuffer tells a measured buffer from a file whose entry was renamed to a template with a buffer, where its signature would
// stand for one: the digest of a buffer is that of its bytes, and what is measured has a name, not a path (Linux,
// process_buffer_measurement).
func (e *Entry) checkBuffer() {
	if e.Violation || e.Alg == 0 {
		return // says so itself
	}
	h := e.Alg.Hash().New()
	h.Write(e.Buffer)
	switch {
	case len(e.Buffer) == 0 || !bytes.Equal(h.Sum(nil), e.Digest):
		e.problem("digest is not that of the buffer: not an entry for a buffer")
	case strings.HasPrefix(e.Path, "/"):
		e.problem("buffer under the path of a file: not an entry for a buffer")
	}
}

// length reads the length of the field at offset at; ok is false when the field would not fit.
func length(b []byte, at int, order ByteOrder) (n int, ok bool) {
	if len(b)-at < 4 {
		return 0, false
	}
	v := order.uint32(b[at:])
	return int(v), uint64(v) <= uint64(len(b)-at-4)
}

func (e *Entry) field(f field, b []byte, l *List, x *xattrs) {
	switch f {
	case fieldDNG, fieldDNGv2:
		e.Alg, e.Type, e.Digest = e.digest(b, f == fieldDNGv2)
	case fieldNNG, fieldN:
		e.name(b, true, l)
	case fieldSig:
		e.Signature = b
	case fieldModSig:
		e.ModSig = b
	case fieldBuf:
		e.Buffer = b
	case fieldD:
		e.Alg, e.Digest = tpm.AlgSHA1, b
		if len(b) != tpm.AlgSHA1.Size() {
			e.Alg = 0
			e.problem("digest of %d bytes in field d: want 20 (SHA-1)", len(b))
		}
	default:
		e.extra(f, b, l.order, x)
	}
}

func (e *Entry) extra(f field, b []byte, order ByteOrder, x *xattrs) {
	if e.Extra == nil {
		e.Extra = new(Extra)
	}
	switch f {
	case fieldDModSig:
		if len(b) > 0 { // empty when the file has no appended signature
			e.Extra.ModAlg, _, e.Extra.ModDigest = e.digest(b, false)
		}
	case fieldEVMSig:
		e.Extra.EVMSignature = b
	case fieldUID:
		e.Extra.UID = e.number(b, order)
	case fieldGID:
		e.Extra.GID = e.number(b, order)
	case fieldMode:
		e.Extra.Mode = uint16(e.number(b, order))
	case fieldXattrNames:
		x.names, x.seen = b, true
	case fieldXattrLengths:
		x.lengths, x.seen = b, true
	case fieldXattrValues:
		x.values, x.seen = b, true
	}
}

func (e *Entry) problem(format string, args ...any) {
	if e.Problem == "" {
		e.Problem = fmt.Sprintf(format, args...)
	}
}

// name takes the path; the newer fields end with one NUL.
func (e *Entry) name(b []byte, nul bool, l *List) {
	end := bytes.IndexByte(b, 0)
	switch {
	case nul && end >= 0 && end == len(b)-1:
		b = b[:end]
	case nul && (len(b) == 0 || b[len(b)-1] != 0):
		e.problem("path does not end with NUL")
	case end >= 0:
		e.problem("path holds a NUL")
	}
	if len(b) > MaxPath {
		e.problem("path has %d bytes", len(b))
		b = b[:MaxPath]
	}
	e.Path = l.path(b)
}

// number reads an owner or mode; the kernel writes 2 or 4 bytes, and none when an entry has no file.
func (e *Entry) number(b []byte, order ByteOrder) uint32 {
	switch len(b) {
	case 4:
		return order.uint32(b)
	case 2:
		return uint32(order.uint16(b))
	case 0:
		return 0
	}
	e.problem("number of %d bytes: want 2 or 4", len(b))
	return 0
}

// sha256Prefix begins the digests of nearly every list.
const sha256Prefix = "sha256:\x00"

// digest splits "algorithm:\0digest" or, with v2, "type:algorithm:\0digest". Of a violation, the digest is zero and may
// have 20 bytes whatever the algorithm (kernels before 6.2).
func (e *Entry) digest(b []byte, v2 bool) (alg tpm.Alg, typ string, digest []byte) {
	if !v2 && len(b) == len(sha256Prefix)+32 && string(b[:len(sha256Prefix)]) == sha256Prefix {
		return tpm.AlgSHA256, "", b[len(sha256Prefix):]
	}
	end := bytes.Index(b, []byte(":\x00"))
	if end < 0 {
		e.problem("file digest names no algorithm")
		return 0, "", nil
	}
	name, digest := b[:end], b[end+2:]
	if v2 {
		t, rest, ok := bytes.Cut(name, []byte(":"))
		if !ok {
			e.problem("file digest names no type")
		}
		switch {
		case string(t) == "ima":
			typ = "ima"
		case string(t) == "verity":
			typ = "verity"
		case ok:
			e.problem("file digest of unknown type %.16q", t)
		}
		name = rest
	}
	if len(name) > 32 {
		name = name[:32]
	}
	alg, err := tpm.ParseHashAlg(string(name))
	switch {
	case err != nil:
		e.problem("file digest: %v", err)
		return 0, typ, digest
	case len(digest) != alg.Size() && !(e.Violation && len(digest) == 20):
		e.problem("file digest of %d bytes: want %d (%v)", len(digest), alg.Size(), alg)
		return 0, typ, digest
	}
	return alg, typ, digest
}
