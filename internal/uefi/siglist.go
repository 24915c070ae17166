package uefi

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// Limits on signature databases.
const (
	MaxDatabase      = 1 << 20 // bytes of a signature database (Microsoft's dbx has 25 kB)
	MaxSignatures    = 1 << 15 // entries of a database
	MaxSignatureData = 64 << 10
)

// Types of signatures (UEFI 2.10, 32.4.1). A type outside this list is given as its GUID in text form.
const (
	TypeX509       = "x509"
	TypeSHA1       = "sha1"
	TypeSHA224     = "sha224"
	TypeSHA256     = "sha256"
	TypeSHA384     = "sha384"
	TypeSHA512     = "sha512"
	TypeX509SHA256 = "x509-sha256" // hash of a certificate's to-be-signed part (32 bytes) and time of revocation (16 bytes)
	TypeX509SHA384 = "x509-sha384"
	TypeX509SHA512 = "x509-sha512"
	TypeRSA2048    = "rsa2048" // modulus, big endian
)

// ErrSignatureList marks bytes that are no signature database.
var ErrSignatureList = errors.New("malformed EFI signature list")

// sigType describes a known signature type. size is the fixed size of the data, 0 where it varies.
type sigType struct {
	name string
	size int
}

var sigTypes = map[GUID]sigType{
	mustGUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072"): {TypeX509, 0},
	mustGUID("826ca512-cf10-4ac9-b187-be01496631bd"): {TypeSHA1, 20},
	mustGUID("0b6e5233-a65c-44c9-9407-d9ab83bfc8bd"): {TypeSHA224, 28},
	mustGUID("c1c41626-504c-4092-aca9-41f936934328"): {TypeSHA256, 32},
	mustGUID("ff3e5307-9fd0-48c9-85f1-8ad56c701e01"): {TypeSHA384, 48},
	mustGUID("093e0fae-a6c4-4f50-9f1b-d41e2b89c19a"): {TypeSHA512, 64},
	mustGUID("3bd2a492-96c0-4079-b420-fcf98ef103ed"): {TypeX509SHA256, 48},
	mustGUID("7076876e-80c2-4ee6-aad2-28b349a6865b"): {TypeX509SHA384, 64},
	mustGUID("446dbf63-2502-4cda-bcfa-2465d2b0fe9d"): {TypeX509SHA512, 80},
	mustGUID("3c5766e8-269c-4e34-aa14-ed776e85b3b6"): {TypeRSA2048, 256},
}

// Signature is one entry of a signature database: a certificate, a hash or a key.
type Signature struct {
	Type  string // "x509", "sha256", ... or the GUID of an unknown type
	Owner string // GUID of the agent that put it there, lower case
	Data  []byte // certificate in DER, hash, or key; aliases the input
	// SHA256 names the entry: of type "sha256" it is the hash itself, else the SHA-256 of Data (of a certificate: its fingerprint).
	SHA256 [32]byte
}

// Equal reports whether s and o are the same entry, whoever owns it.
func (s Signature) Equal(o Signature) bool { return s.Type == o.Type && s.SHA256 == o.SHA256 }

// listHeader is the size of an EFI_SIGNATURE_LIST before its signatures: type GUID, list size, header size, signature size.
const listHeader = GUIDSize + 12

// ParseSignatureLists reads the content of a signature database (PK, KEK, db, dbx, MokList): EFI_SIGNATURE_LISTs one after the
// other, up to the last byte. An empty database has no signatures and is no error.
func ParseSignatureLists(b []byte) ([]Signature, error) {
	if len(b) > MaxDatabase {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are read", ErrSignatureList, len(b), MaxDatabase)
	}
	var out []Signature
	for off := 0; off < len(b); {
		list, err := cutList(b[off:])
		if err != nil {
			return nil, fmt.Errorf("%w: list at byte %d: %w", ErrSignatureList, off, err)
		}
		if out, err = appendSignatures(out, list); err != nil {
			return nil, fmt.Errorf("%w: list at byte %d: %w", ErrSignatureList, off, err)
		}
		off += len(list)
	}
	return out, nil
}

// cutList returns the first list of b, its header included.
func cutList(b []byte) ([]byte, error) {
	if len(b) < listHeader {
		return nil, fmt.Errorf("%d bytes left, a list needs %d", len(b), listHeader)
	}
	size := binary.LittleEndian.Uint32(b[GUIDSize:])
	if size < listHeader || uint64(size) > uint64(len(b)) {
		return nil, fmt.Errorf("list says it has %d bytes, %d are there", size, len(b))
	}
	return b[:size], nil
}

// appendSignatures appends the signatures of one whole list.
func appendSignatures(out []Signature, list []byte) ([]Signature, error) {
	header := uint64(binary.LittleEndian.Uint32(list[GUIDSize+4:]))
	size := uint64(binary.LittleEndian.Uint32(list[GUIDSize+8:]))
	room := uint64(len(list) - listHeader)
	if header > room {
		return nil, fmt.Errorf("header of %d bytes in a list of %d", header, len(list))
	}
	body := list[listHeader+header:]
	if len(body) == 0 {
		return out, nil
	}
	kind := typeOf(GUID(list[:GUIDSize]))
	if err := checkSize(kind, size); err != nil {
		return nil, err
	}
	if uint64(len(body))%size != 0 {
		return nil, fmt.Errorf("%d bytes are no multiple of the signature size %d", len(body), size)
	}
	if n := uint64(len(body)) / size; n+uint64(len(out)) > MaxSignatures {
		return nil, fmt.Errorf("more than %d signatures", MaxSignatures)
	}
	var owner GUID
	var text string // owners repeat: their text is made once
	for ; len(body) > 0; body = body[size:] {
		if g := GUID(body[:GUIDSize]); text == "" || g != owner {
			owner, text = g, g.String()
		}
		out = append(out, newSignature(kind.name, text, body[GUIDSize:size:size]))
	}
	return out, nil
}

func checkSize(kind sigType, size uint64) error {
	switch {
	case size <= GUIDSize || size > GUIDSize+MaxSignatureData:
		return fmt.Errorf("signature size %d: want %d to %d", size, GUIDSize+1, GUIDSize+MaxSignatureData)
	case kind.size != 0 && size != uint64(GUIDSize+kind.size):
		return fmt.Errorf("signature size %d of type %s: want %d", size, kind.name, GUIDSize+kind.size)
	}
	return nil
}

func typeOf(g GUID) sigType {
	if t, ok := sigTypes[g]; ok {
		return t
	}
	return sigType{name: g.String()}
}

func newSignature(kind, owner string, data []byte) Signature {
	s := Signature{Type: kind, Owner: owner, Data: data}
	if kind == TypeSHA256 && len(data) == sha256.Size {
		copy(s.SHA256[:], data)
	} else {
		s.SHA256 = sha256.Sum256(data)
	}
	return s
}

// ParseSignatureData reads a single EFI_SIGNATURE_DATA, as an EV_EFI_VARIABLE_AUTHORITY event carries it (PC Client PFP, 3.3.4.8):
// owner GUID and data. The event does not say the type: data that is a certificate is "x509", 32 bytes are "sha256", everything
// else is given as "unknown". shim measures its own vendor certificate without an owner: bytes that are a certificate as a whole are
// given as "x509" with an empty Owner.
func ParseSignatureData(b []byte) (Signature, error) {
	if len(b) <= GUIDSize || len(b) > GUIDSize+MaxSignatureData {
		return Signature{}, fmt.Errorf("%w: signature data of %d bytes: want %d to %d", ErrSignatureList, len(b), GUIDSize+1, GUIDSize+MaxSignatureData)
	}
	if looksLikeCertificate(b) {
		return newSignature(TypeX509, "", b), nil
	}
	owner, data := GUID(b[:GUIDSize]).String(), b[GUIDSize:]
	switch {
	case len(data) == sha256.Size:
		return newSignature(TypeSHA256, owner, data), nil
	case looksLikeCertificate(data):
		return newSignature(TypeX509, owner, data), nil
	}
	return newSignature("unknown", owner, data), nil
}
