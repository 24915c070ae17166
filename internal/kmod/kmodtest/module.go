// Package kmodtest makes small kernel modules and kernels for tests, signed with keys made on the spot.
package kmodtest

import (
	"bytes"
	"compress/gzip"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"fmt"
	"math/big"
)

// Module makes an ELF object that has nothing but a .modinfo section.
func Module(name, kernel string) []byte {
	info := fmt.Sprintf("license=GPL\x00name=%s\x00vermagic=%s SMP preempt mod_unload modversions \x00", name, kernel)
	names := "\x00.shstrtab\x00.modinfo\x00"
	le := binary.LittleEndian
	b := make([]byte, 64)
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], 1)  // relocatable
	le.PutUint16(b[18:], 62) // x86-64
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[40:], uint64(64+len(names)+len(info))) // section headers
	le.PutUint16(b[52:], 64)
	le.PutUint16(b[58:], 64)
	le.PutUint16(b[60:], 3)
	le.PutUint16(b[62:], 1)
	b = append(append(b, names...), info...)
	section := func(name, kind uint32, off, size int) {
		h := make([]byte, 64)
		le.PutUint32(h, name)
		le.PutUint32(h[4:], kind)
		le.PutUint64(h[24:], uint64(off))
		le.PutUint64(h[32:], uint64(size))
		b = append(b, h...)
	}
	section(0, 0, 0, 0)
	section(1, 3, 64, len(names))
	section(11, 1, 64+len(names), len(info))
	return b
}

// Options bend a signature.
type Options struct {
	ByKeyID    bool // name the signer by subject key identifier
	Attributes bool // put signed attributes in, which kernels refuse
}

type algorithm struct {
	OID        asn1.ObjectIdentifier
	Parameters asn1.RawValue
}

// Sign appends a signature to a module, as scripts/sign-file of Linux does it.
func Sign(content []byte, cert *x509.Certificate, key crypto.Signer, o Options) ([]byte, error) {
	sum := sha256.Sum256(content)
	value, err := key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		return nil, err
	}
	der, err := signedData(cert, value, o)
	if err != nil {
		return nil, err
	}
	b := append(bytes.Clone(content), der...)
	b = append(b, 0, 0, 2, 0, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(len(der)))
	return append(b, "~Module signature appended~\n"...), nil
}

func context0(b []byte, compound bool) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: compound, Bytes: b}
}

func signedData(cert *x509.Certificate, value []byte, o Options) ([]byte, error) {
	sha := algorithm{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}, asn1.NullRawValue}
	id, err := asn1.Marshal(struct {
		Issuer asn1.RawValue
		Serial *big.Int
	}{asn1.RawValue{FullBytes: cert.RawIssuer}, cert.SerialNumber})
	if err != nil {
		return nil, err
	}
	type signerInfo struct {
		Version    int
		ID         asn1.RawValue
		Digest     algorithm
		Attributes asn1.RawValue `asn1:"optional"`
		Signature  algorithm
		Value      []byte
	}
	si := signerInfo{1, asn1.RawValue{FullBytes: id}, sha, asn1.RawValue{}, algorithm{asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}, asn1.NullRawValue}, value}
	if o.ByKeyID {
		si.Version, si.ID = 3, context0(cert.SubjectKeyId, false)
	}
	if o.Attributes {
		si.Attributes = context0([]byte{0x30, 0}, true)
	}
	type dataInfo struct{ Type asn1.ObjectIdentifier }
	body, err := asn1.Marshal(struct {
		Version int
		Digests []algorithm `asn1:"set"`
		Content dataInfo
		Signers []signerInfo `asn1:"set"`
	}{si.Version, []algorithm{sha}, dataInfo{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}}, []signerInfo{si}})
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue
	}{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}, context0(body, true)})
}

// PayloadAt is where the payload of a kernel with the header of SetupHeader begins.
const PayloadAt = 0x800

// SetupHeader makes the bytes from offset 64 of a bzImage: boot protocol 2.15, the release, and a payload of size bytes at PayloadAt.
func SetupHeader(release string, size int) []byte {
	const from, version = 64, 0x300
	le := binary.LittleEndian
	b := make([]byte, version+len(release)+16)
	b[0x1f1] = PayloadAt/512 - 1
	copy(b[0x202:], "HdrS")
	le.PutUint16(b[0x206:], 0x020f)
	le.PutUint16(b[0x20e:], version-0x200)
	le.PutUint32(b[0x24c:], uint32(size))
	copy(b[version:], release+" (test) #1")
	return b[from:]
}

// Payload compresses a kernel as the build does: gzip, then the unpacked size.
func Payload(vmlinux []byte) ([]byte, error) {
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	if _, err := w.Write(vmlinux); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return binary.LittleEndian.AppendUint32(z.Bytes(), uint32(len(vmlinux))), nil
}

// Kernel makes a bzImage without an EFI header around a compressed payload.
func Kernel(release string, payload []byte) []byte {
	b := make([]byte, PayloadAt)
	copy(b[64:], SetupHeader(release, len(payload)))
	return append(b, payload...)
}
