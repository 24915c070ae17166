package reference

import (
	"crypto/sha256"
	"crypto/x509"
	"slices"
	"time"

	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/uefi"
)

// Set is all Reference Values, compiled for look-up. It is immutable and safe for concurrent use; what it returns belongs to it and
// must not be changed. The zero Set knows nothing.
type Set struct {
	id        string
	summaries []Summary

	named   []namedFile // until it is compiled
	files   fileTable
	modules []ModuleRef
	names   []string // of sources, "name version"

	images     map[imageKey]*ImageRef
	imageFiles map[[sha256.Size]byte]*ImageRef
	imageList  []*ImageRef

	moduleKeys  []Certificate
	vendorKeys  []Certificate
	vendorByDER map[[sha256.Size]byte]bool

	firmware    []Firmware
	keys        []CapturedKeys
	revoked     []Revoked
	revokedFrom []string // source of each, as long as revoked
	revokedBy   map[string]int
	sbat        []SBATLevel

	ekRoots         *x509.CertPool
	ekRootList      []*x509.Certificate
	ekIntermediates []*x509.Certificate
}

// imageKey is an Authenticode digest with its algorithm; shorter digests are padded with zeros.
type imageKey struct {
	alg    tpm.Alg
	digest [64]byte
}

// FileRef is a known file.
type FileRef struct {
	Path   string     // where its source puts it
	Source string     // name and version: "busybox-static 1:1.35.0-4+deb12u1+b1"
	Module *ModuleRef // set when it is a kernel module
}

// ModuleRef is a known kernel module.
type ModuleRef struct {
	Name   string // as /proc/modules shows it
	Kernel string // kernel release that it belongs to
	Signer string // subject of the key that signed it; empty when unsigned or signed by an unknown key
}

// ImageRef is a known image of the boot chain.
type ImageRef struct {
	Image
	Source string // name and version: "shim-signed 1.51~1+deb12u1+16.1-2~deb12u1"
	// Signers are the valid signatures with parsed certificates, of all sources that have an image with this digest.
	Signers []*ImageSigner
}

// SBATLevel is a revocation level that a source asks for.
type SBATLevel struct {
	Source string
	Level  uefi.Level
}

// CapturedKeys are the Secure Boot variables of a machine that was declared good.
type CapturedKeys struct {
	Source string // "node worker-1"
	Keys
}

// Summary says what a source is and how much it holds.
type Summary struct {
	Kind     string    `json:"kind"`
	Name     string    `json:"name"`
	Version  string    `json:"version,omitempty"`
	Arch     string    `json:"arch,omitempty"`
	File     string    `json:"file"`
	SHA256   string    `json:"sha256"`
	Imported time.Time `json:"imported"`
	Note     string    `json:"note,omitempty"`

	Images     int  `json:"images,omitempty"`
	Files      int  `json:"files,omitempty"`
	Modules    int  `json:"modules,omitempty"`
	ModuleKeys int  `json:"moduleKeys,omitempty"`
	VendorKeys int  `json:"vendorKeys,omitempty"`
	Firmware   int  `json:"firmware,omitempty"`
	Keys       bool `json:"keys,omitempty"`
	Revoked    int  `json:"revoked,omitempty"`
	SBAT       bool `json:"sbat,omitempty"`
	CAs        int  `json:"cas,omitempty"`
}

// ID returns the SHA-256 over the contents, hexadecimal. It depends neither on the order of the sources nor on when they were imported.
func (s *Set) ID() string { return s.id }

// Sources returns a summary of each source, ordered by kind, name and version.
func (s *Set) Sources() []Summary { return s.summaries }

// File looks up a file or kernel module of any source by the digest of its content. Only SHA-256 is known. It does not allocate.
func (s *Set) File(alg tpm.Alg, digest []byte) (FileRef, bool) {
	if alg != tpm.AlgSHA256 || len(digest) != sha256.Size {
		return FileRef{}, false
	}
	e := s.files.find((*[sha256.Size]byte)(digest))
	if e == nil {
		return FileRef{}, false
	}
	return s.fileRef(e), true
}

func (s *Set) fileRef(e *fileEntry) FileRef {
	ref := FileRef{Path: s.files.pathOf(e), Source: s.names[e.source]}
	if e.module >= 0 {
		ref.Module = &s.modules[e.module]
	}
	return ref
}

// FileQuery asks Files for one file and has the answer afterwards.
type FileQuery struct {
	Alg    tpm.Alg
	Digest []byte
	Ref    FileRef // zero when it is not known
	Known  bool
}

// Files is File for many files, which takes a fraction of the time of so many calls.
func (s *Set) Files(ask []FileQuery) {
	for len(ask) > 0 {
		n := min(len(ask), together)
		s.someFiles(ask[:n])
		ask = ask[n:]
	}
}

func (s *Set) someFiles(ask []FileQuery) {
	var digests [together]*[sha256.Size]byte
	for i := range ask {
		if ask[i].Alg == tpm.AlgSHA256 && len(ask[i].Digest) == sha256.Size {
			digests[i] = (*[sha256.Size]byte)(ask[i].Digest)
		}
	}
	found := s.files.findAll(digests[:len(ask)])
	for i := range ask {
		ask[i].Known = found[i] != nil
		ask[i].Ref = FileRef{}
		if ask[i].Known {
			ask[i].Ref = s.fileRef(found[i])
		}
	}
}

// Image looks up an image of the boot chain by its Authenticode digest, as PCR 4 events carry it.
func (s *Set) Image(alg tpm.Alg, authenticode []byte) (*ImageRef, bool) {
	k := imageKey{alg: alg}
	if len(authenticode) == 0 || len(authenticode) != alg.Size() {
		return nil, false
	}
	copy(k.digest[:], authenticode)
	im, ok := s.images[k]
	return im, ok
}

// ImageFile looks up an image by the SHA-256 of its file, signatures included, as GRUB extends it into PCR 9.
func (s *Set) ImageFile(digest []byte) (*ImageRef, bool) {
	if len(digest) != sha256.Size {
		return nil, false
	}
	im, ok := s.imageFiles[[sha256.Size]byte(digest)]
	return im, ok
}

// Images returns all images, ordered by source and path.
func (s *Set) Images() []*ImageRef { return s.imageList }

// VendorKeys returns the certificates that known shims bring along.
func (s *Set) VendorKeys() []Certificate { return s.vendorKeys }

// IsVendorKey reports whether a certificate is one that a known shim brings along.
func (s *Set) IsVendorKey(der []byte) bool { return s.vendorByDER[sha256.Sum256(der)] }

// ModuleKeys returns the certificates inside known kernels that sign modules.
func (s *Set) ModuleKeys() []Certificate { return s.moduleKeys }

// Firmware returns the accepted firmware.
func (s *Set) Firmware() []Firmware { return s.firmware }

// Keys returns the captured Secure Boot variables.
func (s *Set) Keys() []CapturedKeys { return s.keys }

// Revoked looks up a revoked image (Authenticode SHA-256) or certificate (SHA-256 of the DER), and the source that says so.
func (s *Set) Revoked(hash []byte) (Revoked, string, bool) {
	i, ok := s.revokedBy[string(hash)]
	if !ok {
		return Revoked{}, "", false
	}
	return s.revoked[i], s.revokedFrom[i], true
}

// RevokedAll returns everything that is revoked, ordered by hash. A hash in several sources stands there once.
func (s *Set) RevokedAll() []Revoked { return s.revoked }

// SBAT returns the revocation levels that sources ask for, oldest first.
func (s *Set) SBAT() []SBATLevel { return s.sbat }

// EKRoots returns the root CAs for EK certificates: only those that the operator imported. Never nil.
func (s *Set) EKRoots() *x509.CertPool {
	if s.ekRoots == nil {
		return x509.NewCertPool()
	}
	return s.ekRoots
}

// EKRootList returns the certificates in EKRoots.
func (s *Set) EKRootList() []*x509.Certificate { return slices.Clone(s.ekRootList) }

// EKIntermediates returns the CAs below the roots, to complete a chain with.
func (s *Set) EKIntermediates() []*x509.Certificate { return s.ekIntermediates }

// HasImages reports whether any boot image is known: without one, level 3 and 4 cannot be judged by digest.
func (s *Set) HasImages() bool { return len(s.imageList) > 0 }

// HasFiles reports whether any file or module is known.
func (s *Set) HasFiles() bool { return len(s.files.entries) > 0 }

// HasModules reports whether any kernel module is known.
func (s *Set) HasModules() bool { return len(s.modules) > 0 }

// HasFirmware reports whether any firmware is accepted.
func (s *Set) HasFirmware() bool { return len(s.firmware) > 0 }

// HasKeys reports whether Secure Boot variables were captured.
func (s *Set) HasKeys() bool { return len(s.keys) > 0 }

// HasDBX reports whether a revocation list was imported.
func (s *Set) HasDBX() bool { return len(s.revoked) > 0 }

// HasSBAT reports whether a revocation level was imported.
func (s *Set) HasSBAT() bool { return len(s.sbat) > 0 }

// HasEKRoots reports whether any root CA for EK certificates was imported.
func (s *Set) HasEKRoots() bool { return len(s.ekRootList) > 0 }
