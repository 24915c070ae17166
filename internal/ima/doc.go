// Package ima reads the measurement list of the Linux Integrity Measurement Architecture in its binary form
// (/sys/kernel/security/ima/binary_runtime_measurements), replays it against quoted values of PCR 10, and resumes a replay
// where an earlier one ended.
//
// An entry is: PCR index (4 bytes), template hash (20 bytes, SHA-1 of the template data), length and name of the template,
// length of the template data, template data. Numbers are in the byte order of the kernel that wrote the list; the first entry
// tells which. The template data are fields, each with its length, in the order that the template names. The template "ima" is
// older than that: it has no length of its data, its digest has no length, and its hash is taken over the digest and the
// name padded to 256 bytes (Linux, security/integrity/ima/ima_fs.c and ima_crypto.c).
//
// The list proves nothing by itself: only entries that replay to a quoted PCR 10 are returned by [Verify]. The list grows while
// it is read, so that a worker quotes first and reads then; Verify takes the prefix that ends at the quoted value.
//
// The kernel hashes the template data, not the name of the template. Whoever sends the list can thus give an entry another
// template and have its fields read as others: the signature of a file, which its owner chose, as its digest. Therefore a
// user-defined template counts only when the first entry of the list has it too, as a kernel does it: the boot aggregate, whose
// fields nobody on the worker chooses. All of the kernel's own templates begin with digest and name, and an
// entry with a buffer must have the digest of that buffer.
//
// Limits: the lists binary_runtime_measurements_sha256 and the like (Linux 6.10 and later, with longer template hashes) are not
// read, nor lists with entries in a PCR other than 10, nor the template "ima" with MD5 digests.
package ima

import "errors"

// PCR is the PCR that IMA extends (CONFIG_IMA_MEASURE_PCR_IDX, 10 in every distribution).
const PCR = 10

// Limits on a list. Real lists stay far below them.
const (
	MaxEntries      = 1 << 18 // entries in one call: 100 ms of work
	MaxTemplateName = 256     // bytes of a template's name or format: 15 fields of 16 bytes, the kernel's own limit
	MaxData         = 4 << 20 // bytes of the template data of one entry
	MaxPath         = 1 << 16 // bytes of a path; the kernel's PATH_MAX is 4096
)

// Errors that the functions of this package wrap.
var (
	// ErrMalformed: the bytes are not an IMA list.
	ErrMalformed = errors.New("malformed IMA list")
	// ErrTemplateHash: an entry's data do not hash to its template hash: the entry was altered after it was measured.
	ErrTemplateHash = errors.New("template hash does not match the template data")
	// ErrPCR: an entry extends another PCR than 10.
	ErrPCR = errors.New("entry extends another PCR than 10")
	// ErrNoPrefix: no prefix of the list replays to the quoted values: entries are missing or altered.
	ErrNoPrefix = errors.New("IMA list does not replay to the quoted PCR 10")
	// ErrState: the saved state does not fit the quote; the list must be sent from its start.
	ErrState = errors.New("saved IMA state does not fit")
	// ErrNotComputable: the PCRs that the boot aggregate covers were not all quoted.
	ErrNotComputable = errors.New("boot_aggregate cannot be computed from the quoted PCRs")
	// ErrAggregate: the boot aggregate does not match the quoted PCRs.
	ErrAggregate = errors.New("boot_aggregate does not match the quoted PCRs")
)
