package device

import (
	"encoding/binary"
	"encoding/hex"

	"github.com/google/go-tpm/tpm2"

	"touchstone.dev/touchstone/internal/tpm"
)

const (
	residentAttributes = tpm.AttrFixedTPM | tpm.AttrFixedParent | tpm.AttrSensitiveDataOrigin
	ekAttributes       = residentAttributes | tpm.AttrAdminWithPolicy | tpm.AttrRestricted | tpm.AttrDecrypt
	akAttributes       = residentAttributes | tpm.AttrUserWithAuth | tpm.AttrNoDA | tpm.AttrRestricted | tpm.AttrSign
	tlsAttributes      = residentAttributes | tpm.AttrUserWithAuth | tpm.AttrNoDA | tpm.AttrSign
	srkAttributes      = residentAttributes | tpm.AttrUserWithAuth | tpm.AttrNoDA | tpm.AttrRestricted | tpm.AttrDecrypt
)

// Policies of endorsement keys (TCG EK Credential Profile, B.6).
const (
	policyA       = "837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa"
	policyBSHA256 = "ca3d0a99a2b93906f7a3342414efcfb3a385d44cd1fd459089d19b5071c0b7a0"
	policyBSHA384 = "b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419cacb47ba09699646150f9fc000f3f80e12"
)

// template describes a primary key. The same template gives the same key, as long as the TPM keeps its endorsement seed.
type template struct {
	name       string
	nameAlg    tpm.Alg
	attributes uint32
	policy     string  // hexadecimal digest
	aesBits    uint16  // of a storage key
	scheme     tpm.Alg // of a signing key; its hash is SHA-256
	rsaBits    uint16  // of an RSA key
	curve      uint16  // of an ECC key (TPM_ECC_CURVE)
	unique     []byte  // goes into the unique field, to tell keys of one shape apart
	uniqueSize int     // size of the unique field, filled up with zeros: the low-range EK templates want it so
	owner      bool    // in the storage hierarchy; the others are in the endorsement hierarchy
}

var (
	akECC = template{name: "ak-ecc", nameAlg: tpm.AlgSHA256, attributes: akAttributes, scheme: tpm.AlgECDSA, curve: 3}
	akRSA = template{name: "ak-rsa", nameAlg: tpm.AlgSHA256, attributes: akAttributes, scheme: tpm.AlgRSASSA, rsaBits: 2048}
	// tlsECC differs from akECC by its unique field also, so that the two never share key material.
	tlsECC = template{name: "tls", nameAlg: tpm.AlgSHA256, attributes: tlsAttributes, scheme: tpm.AlgECDSA, curve: 3,
		unique: []byte("touchstone tls")}
	// srkECC is the storage root key (TCG TPM v2.0 Provisioning Guidance, 7.5.1; its template is that of ek-l2 without a policy).
	srkECC = template{name: "srk", nameAlg: tpm.AlgSHA256, attributes: srkAttributes, aesBits: 128, curve: 3, uniqueSize: 32, owner: true}
)

// ekTemplate is a template of the EK Credential Profile with the NV indices of its certificate and, in the low range, of what
// a manufacturer put into its unique field.
type ekTemplate struct {
	template
	certificate, nonce uint32
}

// ekTemplates are tried in this order (EK Credential Profile, 2.2.1.4, 2.2.1.5, B.3, B.4).
var ekTemplates = []ekTemplate{
	{template{name: "ek-l1", nameAlg: tpm.AlgSHA256, attributes: ekAttributes, policy: policyA, aesBits: 128, rsaBits: 2048, uniqueSize: 256}, 0x01c00002, 0x01c00003},
	{template{name: "ek-l2", nameAlg: tpm.AlgSHA256, attributes: ekAttributes, policy: policyA, aesBits: 128, curve: 3, uniqueSize: 32}, 0x01c0000a, 0x01c0000b},
	{highRange("ek-h1", tpm.AlgSHA256, policyBSHA256, 128, 2048, 0), 0x01c00012, 0},
	{highRange("ek-h2", tpm.AlgSHA256, policyBSHA256, 128, 0, 3), 0x01c00014, 0},
	{highRange("ek-h3", tpm.AlgSHA384, policyBSHA384, 256, 0, 4), 0x01c00016, 0},
	{highRange("ek-h6", tpm.AlgSHA384, policyBSHA384, 256, 3072, 0), 0x01c0001c, 0},
}

func highRange(name string, nameAlg tpm.Alg, policy string, aes, rsaBits, curve uint16) template {
	return template{name: name, nameAlg: nameAlg, attributes: ekAttributes | tpm.AttrUserWithAuth, policy: policy,
		aesBits: aes, rsaBits: rsaBits, curve: curve}
}

// public encodes the template as TPM2_CreatePrimary takes it.
func (t template) public() tpm2.TPM2BPublic {
	policy, _ := hex.DecodeString(t.policy) // our own constants
	u16 := binary.BigEndian.AppendUint16
	keyType := tpm.AlgECC
	if t.rsaBits != 0 {
		keyType = tpm.AlgRSA
	}
	b := u16(u16(nil, uint16(keyType)), uint16(t.nameAlg))
	b = binary.BigEndian.AppendUint32(b, t.attributes)
	b = append(u16(b, uint16(len(policy))), policy...)
	if t.aesBits != 0 {
		b = u16(u16(u16(b, uint16(tpm2.TPMAlgAES)), t.aesBits), uint16(tpm2.TPMAlgCFB))
	} else {
		b = u16(b, uint16(tpm.AlgNull))
	}
	if t.scheme != 0 {
		b = u16(u16(b, uint16(t.scheme)), uint16(tpm.AlgSHA256))
	} else {
		b = u16(b, uint16(tpm.AlgNull))
	}
	unique := append(append([]byte(nil), t.unique...), make([]byte, max(0, t.uniqueSize-len(t.unique)))...)
	if keyType == tpm.AlgRSA {
		b = binary.BigEndian.AppendUint32(u16(b, t.rsaBits), 0) // exponent: default
		b = append(u16(b, uint16(len(unique))), unique...)
	} else {
		b = u16(u16(b, t.curve), uint16(tpm.AlgNull))
		b = append(u16(b, uint16(len(unique))), unique...)
		b = append(u16(b, uint16(t.uniqueSize)), make([]byte, t.uniqueSize)...)
	}
	return tpm2.BytesAs2B[tpm2.TPMTPublic](b)
}
