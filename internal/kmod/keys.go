package kmod

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
)

// Limits on the search for keys.
const (
	maxKeys  = 64
	maxCert  = 16 << 10 // bytes of a certificate
	maxTries = 4096     // places that look like a certificate
)

// ModuleKeys returns the certificates that lie in an unpacked kernel, each once, in the order of their place. Linked in one after the
// other (certs/system_certificates.S), the module signing key first, they are the keyring .builtin_trusted_keys that module signatures
// are verified with. The certificate of the kernel's own signature self-test is left out: nothing is verified with it.
func ModuleKeys(vmlinux []byte) []*x509.Certificate {
	var out []*x509.Certificate
	tries := 0
	for off := 0; len(out) < maxKeys && tries < maxTries; {
		i := bytes.Index(vmlinux[off:], []byte{0x30, 0x82})
		if i < 0 {
			break
		}
		off += i
		der := certificateAt(vmlinux[off:])
		if der == nil {
			off += 2
			continue
		}
		tries++
		c, err := x509.ParseCertificate(der)
		if err != nil {
			off += 2
			continue
		}
		off += len(der)
		if !isSelfTest(c) && !contains(out, c) {
			out = append(out, c)
		}
	}
	return out
}

// certificateAt returns the bytes at the start of b that may be a certificate: a SEQUENCE that begins with a SEQUENCE that begins with
// version 3 and an integer, lengths of both fitting. Nil else.
func certificateAt(b []byte) []byte {
	const header = 4 // of the outer SEQUENCE, whose length takes two bytes in every real certificate
	if len(b) < header+4 || b[4] != 0x30 {
		return nil
	}
	size := header + int(binary.BigEndian.Uint16(b[2:]))
	var tbs, at int // length and start of the inner SEQUENCE's content; that of a P-256 key may take one byte
	switch b[5] {
	case 0x81:
		tbs, at = int(b[6]), 7
	case 0x82:
		tbs, at = int(binary.BigEndian.Uint16(b[6:])), 8
	default:
		return nil
	}
	if size > maxCert || size > len(b) || tbs > size-at || !bytes.HasPrefix(b[at:], []byte{0xa0, 3, 2, 1, 2, 2}) {
		return nil
	}
	return bytes.Clone(b[:size]) // small: must not keep the kernel in memory
}

func isSelfTest(c *x509.Certificate) bool {
	return c.Subject.CommonName == "Certificate verification self-testing key"
}

func contains(certs []*x509.Certificate, c *x509.Certificate) bool {
	for _, k := range certs {
		if k.Equal(c) {
			return true
		}
	}
	return false
}
