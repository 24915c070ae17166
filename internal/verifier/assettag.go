package verifier

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"fmt"
	"time"

	"touchstone.dev/touchstone/internal/assettag"
	"touchstone.dev/touchstone/internal/claims"
	"touchstone.dev/touchstone/internal/tpm"
)

// AssetTag is what AIAS issued for the TPM of a node.
type AssetTag struct {
	Node   string
	EK     [sha256.Size]byte // SHA-256 of the SubjectPublicKeyInfo of the endorsement key
	Key    *ecdsa.PublicKey  // that signs asset tags
	Serial uint64
	Record []byte            // the newest: the only one that proves anything
	Tags   map[string]string // behind Record
	// Earlier is the record that was proven last before Record, and EarlierTags what of it still holds; nil when there is none.
	Earlier     []byte
	EarlierTags map[string]string
	// Told says that the challenge which the Evidence answers brought Record. Overdue says that the time to write it is over.
	Told    bool
	Overdue bool
}

// assetTag compares what the TPM certifies with what was issued. Equal bytes need no look at the signature of AIAS: it made them.
func (s *session) assetTag() claims.AssetTag {
	want, cert := s.exp.AssetTag, s.doc.AssetTag
	offline := s.exp.AK == nil
	if want == nil && (cert == nil || !offline) {
		return claims.AssetTag{}
	}
	if cert == nil {
		return want.missing()
	}
	index, content, err := tpm.VerifyNV(s.authentic.ak, s.authentic.nonce, cert.Public, cert.Message, cert.Signature)
	if err != nil {
		return want.wrong(claims.TagUncertified, err.Error())
	}
	if err := assettag.CheckIndex(index); err != nil {
		return want.wrong(claims.TagIndex, err.Error())
	}
	if want != nil && bytes.Equal(content, want.Record) {
		return claims.AssetTag{State: claims.TagProven, Tags: want.Tags}
	}
	r, err := assettag.Parse(content)
	if err != nil {
		return want.wrong(claims.TagForged, err.Error())
	}
	if want == nil {
		return claims.AssetTag{State: claims.TagShown, Observed: describe(r)}
	}
	return want.other(r, content)
}

// other says what a record is that is not the newest one.
func (t *AssetTag) other(r *assettag.Record, content []byte) claims.AssetTag {
	switch {
	case r.Verify(t.Key) != nil:
		return t.wrong(claims.TagForged, describe(r)+", with a signature that does not verify")
	case !r.IsFor(t.Node, t.EK):
		return t.wrong(claims.TagCopied, describe(r))
	case r.Serial >= t.Serial:
		return t.wrong(claims.TagAhead, describe(r))
	case t.Told:
		return t.wrong(claims.TagOld, describe(r))
	case len(t.Earlier) > 0 && bytes.Equal(content, t.Earlier):
		return claims.AssetTag{State: claims.TagNotTold, Tags: t.EarlierTags}
	}
	return claims.AssetTag{State: claims.TagNotTold}
}

// missing is the state of a worker that certifies nothing.
func (t *AssetTag) missing() claims.AssetTag {
	switch {
	case !t.Told:
		return claims.AssetTag{State: claims.TagNotTold}
	case t.Overdue:
		return t.wrong(claims.TagOverdue, "no certificate of an NV index")
	}
	return t.wrong(claims.TagAbsent, "no certificate of an NV index")
}

func (t *AssetTag) wrong(state claims.TagState, observed string) claims.AssetTag {
	expected := "an asset tag of AIAS"
	if t != nil {
		expected = fmt.Sprintf("the asset tag with serial %d for %s and the TPM with EK %x: %s", t.Serial, t.Node, t.EK, assettag.Text(t.Tags))
	}
	return claims.AssetTag{State: state, Expected: expected, Observed: observed}
}

func describe(r *assettag.Record) string {
	return fmt.Sprintf("an asset tag with serial %d for the TPM with EK %x, issued %s", r.Serial, r.EK, r.Issued.Format(time.RFC3339))
}
