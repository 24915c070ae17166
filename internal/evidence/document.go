// Package evidence defines the Evidence document: what a worker sends to the Verifier, and the only thing that the trust
// agent and AIAS share.
//
// It is one deterministic CBOR map (RFC 8949, section 4.2), the same bytes on the wire and in a file. It carries raw logs and
// raw TPM structures, never parsed ones: whoever appraises it parses them again. Decoding is strict: unknown keys, duplicate
// keys, indefinite lengths, tags, trailing bytes and anything beyond the limits below are refused.
package evidence

import "touchstone.dev/touchstone/internal/tpm"

// Version is the version of the document that this package reads and writes.
const Version = 1

// Limits on a document that is decoded. A real worker stays far below them.
const (
	MaxDocument  = 64 << 20 // bytes of the whole document
	MaxEventLog  = 4 << 20  // bytes of the firmware log
	MaxIMA       = 48 << 20 // bytes of (the new part of) the IMA list
	MaxQuotes    = 4        // one for each bank
	MaxStructure = 4 << 10  // bytes of a TPM structure, key or nonce
	MaxCert      = 16 << 10 // bytes of one certificate
	MaxCerts     = 16       // certificates in the EK chain
	MaxFacts     = 512      // number of facts
	MaxFact      = 1 << 20  // bytes of one fact
	MaxFactsSize = 8 << 20  // bytes of all facts together
	MaxName      = 253      // bytes of the node name and of a fact's name
)

// Document is the Evidence of one node at one moment.
type Document struct {
	Version uint   `cbor:"1,keyasint"`
	Node    string `cbor:"2,keyasint,omitempty"` // node name that the worker says is its own; the enrolment decides
	Nonce   []byte `cbor:"3,keyasint,omitempty"` // qualifying data that the quotes must carry
	// AK is the public area of the attestation key: TPM2B_PUBLIC, TPMT_PUBLIC, or a PEM public key (then its attributes
	// cannot be checked). Empty when the Verifier knows the key from enrolment.
	AK     []byte  `cbor:"4,keyasint,omitempty"`
	Quotes []Quote `cbor:"5,keyasint"`
	// EventLog is the raw firmware log (binary_bios_measurements). Empty with EventLogDigest set: unchanged since the
	// attestation whose log had that SHA-256.
	EventLog       []byte `cbor:"6,keyasint,omitempty"`
	EventLogDigest []byte `cbor:"7,keyasint,omitempty"`
	// IMA is the raw IMA list (binary_runtime_measurements) from byte offset IMAOffset on; the bytes before it were verified in an
	// earlier attestation of the same boot.
	IMA       []byte `cbor:"8,keyasint,omitempty"`
	IMAOffset uint64 `cbor:"9,keyasint,omitempty"`
	// EKCerts are the EK certificate (first) and the intermediates that came with the TPM, DER.
	EKCerts [][]byte `cbor:"10,keyasint,omitempty"`
	// Facts are raw files by name that the worker read: claimed, not proven. Names are those of package facts.
	Facts map[string][]byte `cbor:"11,keyasint,omitempty"`
	// FactsDigest is the SHA-256 of the deterministic CBOR of Facts. Set with Facts empty: unchanged since the attestation whose facts had
	// that digest.
	FactsDigest []byte `cbor:"12,keyasint,omitempty"`
	// AssetTag is what the TPM certifies of the NV index that holds the asset tag; nil when AIAS asked for none, or there is none.
	AssetTag *NVCertificate `cbor:"13,keyasint,omitempty"`
	// Statement is a Statement, encoded. When it is there the quotes carry Qualify(Nonce, Statement) instead of Nonce.
	Statement []byte `cbor:"14,keyasint,omitempty"`
}

// NVCertificate is a TPM2_NV_Certify over a whole NV index, with the nonce of the document as qualifying data.
type NVCertificate struct {
	Public    []byte `cbor:"1,keyasint"` // TPMS_NV_PUBLIC
	Message   []byte `cbor:"2,keyasint"` // TPMS_ATTEST
	Signature []byte `cbor:"3,keyasint"` // TPMT_SIGNATURE
}

// Quote is one TPM2_Quote with the PCR values that it covers. Each bank is quoted by itself.
type Quote struct {
	Message   []byte `cbor:"1,keyasint"` // TPMS_ATTEST
	Signature []byte `cbor:"2,keyasint"` // TPMT_SIGNATURE
	// PCRs are the values behind the quote's digest, of one bank or more (a quote may select several).
	PCRs []PCRBank `cbor:"3,keyasint"`
}

// PCRBank holds PCR values as they travel.
type PCRBank struct {
	Alg    tpm.Alg        `cbor:"1,keyasint"`
	Values map[int][]byte `cbor:"2,keyasint"` // PCR index to digest
}

// Names of facts: where the kernel publishes them, and what they tell.
const (
	FactLockdown    = "lockdown"     // /sys/kernel/security/lockdown
	FactTainted     = "tainted"      // /proc/sys/kernel/tainted
	FactSigEnforce  = "sig_enforce"  // /sys/module/module/parameters/sig_enforce
	FactCommandLine = "proc_cmdline" // /proc/cmdline
	FactModules     = "proc_modules" // /proc/modules
	FactVersion     = "proc_version" // /proc/version
	FactMEIStatus   = "mei_fw_status"
	FactMSRBootGrd  = "msr_13a"    // /dev/cpu/0/msr at 0x13A: 8 bytes little endian, or hexadecimal text
	FactAssetTag    = "asset_tag"  // JSON object of strings
	FactEFIPrefix   = "efivars/"   // efivars/NAME-GUID: attributes (4 bytes) and data
	FactMachine     = "machine_id" // the system's UUID, from the file that kubelets read it from (machinePaths)
	FactBootID      = "boot_id"    // /proc/sys/kernel/random/boot_id
	// FactKubeletKeys are the SHA-256 of the DER SubjectPublicKeyInfo of the kubelet's client keys and of its client certificate,
	// hexadecimal, one a line.
	FactKubeletKeys = "kubelet_keys"
)
