package reference

import "time"

// Kinds of sources.
const (
	KindPackage  = "package"  // a Debian package (.deb)
	KindCapture  = "capture"  // captured from the Evidence of a node that a person declared good
	KindFiles    = "files"    // a list of SHA-256 and path, as sha256sum writes it
	KindDBX      = "dbx"      // a UEFI revocation list (signed DBXUpdate, raw signature lists, or the published JSON with names)
	KindSBAT     = "sbat"     // an SBAT revocation level
	KindEndorser = "endorser" // CA certificates for EK certificates
)

// Source is everything that one import brought, with its provenance. One file in the reference folder holds one Source.
type Source struct {
	Kind     string    `json:"kind"`
	Name     string    `json:"name"`              // "linux-image-6.1.0-56-cloud-amd64", "node worker-1"
	Version  string    `json:"version,omitempty"` // package version
	Arch     string    `json:"arch,omitempty"`
	File     string    `json:"file"`   // name (without folder) of what was imported
	SHA256   string    `json:"sha256"` // of what was imported, hexadecimal
	Imported time.Time `json:"imported"`
	Note     string    `json:"note,omitempty"` // what the person who imported it said

	Images     []Image       `json:"images,omitempty"`
	Files      []File        `json:"files,omitempty"`
	Modules    []Module      `json:"modules,omitempty"`
	ModuleKeys []Certificate `json:"moduleKeys,omitempty"` // certificates inside vmlinuz that sign modules
	VendorKeys []Certificate `json:"vendorKeys,omitempty"` // certificates inside shim (.vendor_cert), its own authority
	Firmware   []Firmware    `json:"firmware,omitempty"`
	Keys       *Keys         `json:"keys,omitempty"`
	Revoked    []Revoked     `json:"revoked,omitempty"`
	SBAT       string        `json:"sbat,omitempty"` // SBAT level, CSV: "sbat,1,2025051800\nshim,4\ngrub,5\n"
	CAs        []Certificate `json:"cas,omitempty"`  // for EK chains; self-signed ones are roots, others intermediates
}

// Image is a PE image of the boot chain.
type Image struct {
	Path string `json:"path"`
	Role string `json:"role"` // "shim", "grub", "kernel", "mok-manager", "systemd-boot", "stub", "uki", "efi"
	// Authenticode holds the digests that firmware and shim extend into PCR 4, by bank ("sha1", "sha256", "sha384", "sha512"), hexadecimal.
	Authenticode map[string]string `json:"authenticode"`
	SHA256       string            `json:"sha256"` // of the whole file: what GRUB extends into PCR 9
	Signers      []Signer          `json:"signers,omitempty"`
	SBAT         string            `json:"sbat,omitempty"`   // content of the .sbat section
	Kernel       string            `json:"kernel,omitempty"` // kernel release ("6.1.0-56-cloud-amd64") of an image with role kernel
}

// Signer is one valid Authenticode signature of an image.
type Signer struct {
	Subject string `json:"subject"`
	Issuer  string `json:"issuer"`
	// Chain are the certificates in the signature, the signing one first, base64 DER.
	Chain [][]byte `json:"chain"`
}

// File is a file that may be executed or read.
type File struct {
	Path   string `json:"path"`
	SHA256 string `json:"sha256"`
}

// Module is a kernel module. A compressed module has the digest of the file (SHA256) and of its content (Content).
type Module struct {
	Name    string `json:"name"` // as /proc/modules shows it: "virtio_net"
	Path    string `json:"path"`
	Kernel  string `json:"kernel"` // kernel release that it belongs to
	SHA256  string `json:"sha256"`
	Content string `json:"content,omitempty"`
	Signer  string `json:"signer,omitempty"` // subject of the module key that verified it; empty when unsigned or unknown
}

// Certificate is an X.509 certificate with what people need to recognise it.
type Certificate struct {
	Subject string `json:"subject"`
	SHA256  string `json:"sha256"` // of the DER, hexadecimal
	DER     []byte `json:"der"`
	File    string `json:"file,omitempty"` // file it was read from, when the source was a folder
}

// Firmware is an accepted firmware: the digests of the events of a PCR, in order, by bank.
type Firmware struct {
	Name    string `json:"name"` // "OVMF 2022.11 / q35" or whatever the machine calls itself
	Version string `json:"version,omitempty"`
	// PCRs maps bank ("sha256") to PCR index to the events that were extended into it.
	PCRs map[string]map[int][]FirmwareEvent `json:"pcrs"`
	// Locality is the startup locality: 0, 3 or 4 (PC Client PFP, 10.4.5.3).
	Locality int `json:"locality"`
	// Values are the PCR values of the captured boot, by bank and index. Nothing is judged by them: they tell where a worker differs
	// that has no firmware log.
	Values map[string]map[int]string `json:"values,omitempty"`
}

// FirmwareEvent is one measured event.
type FirmwareEvent struct {
	Type   string `json:"type"`
	Digest string `json:"digest"`
	What   string `json:"what,omitempty"` // for people: "firmware volume 0x820000 (0xe0000 bytes)"
}

// Keys are the Secure Boot variables of a machine.
type Keys struct {
	PK  []Signature `json:"pk"`
	KEK []Signature `json:"kek"`
	DB  []Signature `json:"db"`
	DBX []Signature `json:"dbx"`
}

// Signature is one entry of an EFI signature list (UEFI 2.10, 32.4.1).
type Signature struct {
	Type    string `json:"type"`  // "x509", "sha256", "x509-sha256", ... (package uefi)
	Owner   string `json:"owner"` // GUID
	SHA256  string `json:"sha256"`
	Subject string `json:"subject,omitempty"` // of a certificate
}

// Revoked is one revoked image or certificate, with the name that the publisher gives it.
type Revoked struct {
	// Type is "sha256" (Authenticode digest), "x509" (SHA-256 of the DER), another type of package uefi with its hash, or "svn": not a
	// hash but the least security version of a Windows boot manager, which other firmware cannot match.
	Type string `json:"type"`
	Hash string `json:"hash"`
	Name string `json:"name,omitempty"`
}
