package softtpm

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"touchstone.dev/touchstone/internal/tpm"
)

// Attributes of the keys, as the TCG templates and package device set them.
const (
	residentAttributes   = tpm.AttrFixedTPM | tpm.AttrFixedParent | tpm.AttrSensitiveDataOrigin
	akAttributes         = residentAttributes | tpm.AttrUserWithAuth | tpm.AttrNoDA | tpm.AttrRestricted | tpm.AttrSign
	ekAttributes         = residentAttributes | tpm.AttrAdminWithPolicy | tpm.AttrRestricted | tpm.AttrDecrypt
	decryptionAttributes = residentAttributes | tpm.AttrNoDA | tpm.AttrDecrypt
	tlsAttributes        = residentAttributes | tpm.AttrUserWithAuth | tpm.AttrNoDA | tpm.AttrSign
)

// ekPolicy is the digest of PolicySecret(TPM_RH_ENDORSEMENT) (TCG EK Credential Profile, B.6.2).
const ekPolicy = "837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa"

// TPM holds the three keys of an imitated TPM, all on P-256: attestation key, endorsement key and TLS key. It is immutable and
// safe for concurrent use.
type TPM struct {
	ak, ek, tls             *ecdsa.PrivateKey
	akArea, ekArea, tlsArea []byte
	akName, qualified       []byte
}

// New returns the TPM of seed: the same seed gives the same keys.
func New(seed []byte) *TPM {
	t := &TPM{ak: deriveKey(seed, "ak"), ek: deriveKey(seed, "ek"), tls: deriveKey(seed, "tls")}
	policy, _ := hex.DecodeString(ekPolicy)
	t.akArea = eccArea(&t.ak.PublicKey, akAttributes, nil)
	t.ekArea = eccArea(&t.ek.PublicKey, ekAttributes, policy)
	t.tlsArea = eccArea(&t.tls.PublicKey, tlsAttributes, nil)
	t.akName = name(t.akArea)
	t.qualified = qualifiedName(t.akName)
	return t
}

// WithOtherAK returns the same TPM with another attestation key, as TPM2_CreatePrimary makes one from another template.
func (t *TPM) WithOtherAK(seed []byte) *TPM {
	other, fresh := *t, New(seed)
	other.ak, other.akArea, other.akName, other.qualified = fresh.ak, fresh.akArea, fresh.akName, fresh.qualified
	return &other
}

// AKArea returns the TPMT_PUBLIC of the attestation key: restricted, ECDSA with SHA-256.
func (t *TPM) AKArea() []byte { return t.akArea }

// AKName returns the Name of the attestation key.
func (t *TPM) AKName() []byte { return t.akName }

// EKArea returns the TPMT_PUBLIC of the endorsement key: TCG template L-2 (ECC P-256, AES-128-CFB).
func (t *TPM) EKArea() []byte { return t.ekArea }

// TLSKey returns the TLS key and its TPMT_PUBLIC. [TPM.Certify] says that it lives in this TPM.
func (t *TPM) TLSKey() (*ecdsa.PrivateKey, []byte) { return t.tls, t.tlsArea }

// DecryptionKey returns a key that decrypts, with the TPMT_PUBLIC of one that is bound to a policy. Unlike one in a TPM it works in any state.
func (t *TPM) DecryptionKey(policy []byte) (key *ecdsa.PrivateKey, area []byte) {
	area = eccArea(&t.ek.PublicKey, decryptionAttributes, policy)
	const symmetric = 10 // bytes before it: type, Name algorithm, attributes, size of the policy
	area = append(area[:symmetric+len(policy):symmetric+len(policy)], area[symmetric+len(policy)+4:]...)
	binary.BigEndian.PutUint16(area[symmetric+len(policy):], uint16(tpm.AlgNull))
	return t.ek, area
}

// deriveKey computes a P-256 key from the seed. Of 2^32 candidates one is out of range; then the next is taken.
func deriveKey(seed []byte, use string) *ecdsa.PrivateKey {
	for i := 0; ; i++ {
		raw, err := hkdf.Key(sha256.New, seed, nil, fmt.Sprintf("touchstone softtpm %s %d", use, i), 32)
		if err != nil {
			panic("softtpm: " + err.Error()) // only for more than 255 hashes of output
		}
		if key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), raw); err == nil {
			return key
		}
	}
}

// eccArea writes a TPMT_PUBLIC on P-256 with SHA-256: a storage key where attributes have decrypt, else a signing key.
func eccArea(key *ecdsa.PublicKey, attributes uint32, policy []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(tpm.AlgECC))
	b = binary.BigEndian.AppendUint16(b, uint16(tpm.AlgSHA256))
	b = binary.BigEndian.AppendUint32(b, attributes)
	b = appendSized(b, policy)
	if attributes&tpm.AttrDecrypt != 0 {
		b = append(b, 0x00, 0x06, 0x00, 0x80, 0x00, 0x43) // AES, 128 bits, CFB
		b = binary.BigEndian.AppendUint16(b, uint16(tpm.AlgNull))
	} else {
		b = binary.BigEndian.AppendUint16(b, uint16(tpm.AlgNull))
		b = binary.BigEndian.AppendUint16(b, uint16(tpm.AlgECDSA))
		b = binary.BigEndian.AppendUint16(b, uint16(tpm.AlgSHA256))
	}
	b = append(b, 0x00, 0x03) // TPM_ECC_NIST_P256
	b = binary.BigEndian.AppendUint16(b, uint16(tpm.AlgNull))
	point := mustPoint(key)
	return appendSized(appendSized(b, point[1:33]), point[33:])
}

// mustPoint returns the uncompressed point of one of our own keys, which is on its curve.
func mustPoint(key *ecdsa.PublicKey) []byte {
	point, err := key.Bytes()
	if err != nil {
		panic("softtpm: " + err.Error())
	}
	return point
}

func name(area []byte) []byte {
	h := sha256.Sum256(area)
	return append(binary.BigEndian.AppendUint16(nil, uint16(tpm.AlgSHA256)), h[:]...)
}

// qualifiedName returns the Qualified Name of a primary key in the endorsement hierarchy (part 1, 26.5).
func qualifiedName(objectName []byte) []byte {
	const endorsement = 0x4000000B
	return name(append(binary.BigEndian.AppendUint32(nil, endorsement), objectName...))
}

func appendSized(b, field []byte) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(field))), field...)
}
