package authority

import (
	"context"
	"crypto/ecdsa"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/imagekey"
	"touchstone.dev/touchstone/internal/ledger"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/release"
	"touchstone.dev/touchstone/internal/store"
	"touchstone.dev/touchstone/internal/tpm"
)

// releaseAge is how old the last Evidence of a node may be when it asks for an image key, whatever the class allows: the agent attests for it.
const releaseAge = time.Minute

// sealedFor is what the key-encryption key seals an image key for.
func sealedFor(id string) []byte { return []byte("image-key/" + id) }

// meets holds a node against the record of a key: what its class demanded when the key was made, and what the class demands now. So a class that is
// loosened later opens no image, and one that is tightened closes them. Reasons are in words; none: the node gets the key.
func (a *Authority) meets(ctx context.Context, n *node, k *store.ImageKey, now time.Time) ([]string, error) {
	if !k.Revoked.IsZero() {
		return []string{"the key is revoked since " + k.Revoked.UTC().Format(time.RFC3339)}, nil
	}
	all := [][]byte{k.Conditions}
	if k.Class != "" {
		c, err := a.store.Class(ctx, k.Class)
		if err == nil && string(c.Conditions) != string(k.Conditions) {
			all = append(all, c.Conditions)
		}
		if err != nil && !notFound(err) {
			return nil, err
		}
	}
	standing, reasons := n.standing(now), []string(nil)
	for _, raw := range all {
		c, err := release.Parse(raw)
		if err != nil {
			return nil, fmt.Errorf("conditions of image key %s: %w", k.ID, err)
		}
		for _, why := range release.Meets(&c, standing, now).Missing {
			if !slices.Contains(reasons, why) {
				reasons = append(reasons, why)
			}
		}
	}
	return reasons, nil
}

// releaseKey gives an image key to a node. The proofs, in order:
//
//  1. The connection is the node's: its TLS key lives in its TPM. (done by nodeOf)
//  2. It has attested just now, and meets what the record of the key demands.
//  3. The key to encrypt to lives in the same TPM as the attestation key (TPM2_Certify), cannot leave it, and works only while the PCRs of the
//     boot have the values that were quoted in that Evidence.
func (a *Authority) releaseKey(ctx context.Context, n *node, req *protocol.ReleaseRequest) (*protocol.Release, error) {
	id, err := imagekey.ParseID(req.ID)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "image-key", "this names no image key", err.Error(), "")
	}
	k, err := a.store.ImageKey(ctx, id)
	if notFound(err) {
		return nil, refuse(http.StatusNotFound, "no-image-key", "AIAS has no image key "+id, "", "the image was encrypted with another AIAS, or its key was never imported")
	}
	if err != nil {
		return nil, err
	}
	to, err := a.releaseTo(ctx, n, k, req)
	if err != nil {
		return nil, err
	}
	key, err := a.secrets.Unwrap(ctx, k.Wrapped, sealedFor(id))
	if err != nil {
		return nil, fmt.Errorf("image key %s: %w", id, err)
	}
	public, err := to.ECDH()
	if err != nil {
		return nil, err
	}
	sealed, err := imagekey.SealTo(public, n.name, id, key)
	if err != nil {
		return nil, err
	}
	if err := a.noteImageKey(ctx, n, k, ledger.KeyReleased, "meets its conditions"); err != nil {
		return nil, err
	}
	a.log.Info("image key released", "key", id, "class", k.Class, "node", n.name)
	return &protocol.Release{ID: id, Sealed: sealed}, nil
}

// releaseTo decides, with the node held still, and returns the proven key to encrypt to.
func (a *Authority) releaseTo(ctx context.Context, n *node, k *store.ImageKey, req *protocol.ReleaseRequest) (*ecdsa.PublicKey, error) {
	if err := n.lock(ctx); err != nil {
		return nil, err
	}
	defer n.unlock()
	now := a.now()
	reasons, err := a.meets(ctx, n, k, now)
	if err != nil {
		return nil, err
	}
	if age := now.Sub(n.attested); len(reasons) == 0 && age > releaseAge {
		reasons = append(reasons, fmt.Sprintf("its last attestation is %s old, want at most %s", age.Round(time.Second), releaseAge))
	}
	if len(reasons) > 0 {
		a.log.Warn("image key refused", "key", k.ID, "class", k.Class, "node", n.name, "reasons", reasons)
		return nil, errors.Join(refuseKey(n, k, reasons), a.noteImageKey(ctx, n, k, ledger.KeyRefused, strings.Join(reasons, "; ")))
	}
	key, err := a.provenKey(ctx, n, req)
	if err != nil {
		a.log.Warn("image key refused: the key to encrypt it to is not proven", "key", k.ID, "node", n.name, "err", err)
		err = errors.Join(err, a.noteImageKey(ctx, n, k, ledger.KeyRefused, "the key to encrypt it to is not proven"))
	}
	return key, err
}

// noteImageKey puts a release or refusal into the ledger; nothing is released that is not there.
func (a *Authority) noteImageKey(ctx context.Context, n *node, k *store.ImageKey, kind ledger.Kind, why string) error {
	decision := "refused"
	if kind == ledger.KeyReleased {
		decision = "released"
	}
	e := ledger.Entry{Kind: kind, Node: n.name, Actor: "node:" + n.name, Subject: "image-key:" + k.ID, Decision: decision, Reason: why, Verdict: n.view(a.now()).Trust}
	if k.Class != "" {
		e.Detail = map[string]string{"class": k.Class}
	}
	if err := a.record(ctx, e); err != nil {
		return err
	}
	a.metrics.imageKeys.WithLabelValues(decision).Inc()
	return nil
}

func refuseKey(n *node, k *store.ImageKey, reasons []string) error {
	what := k.ID
	if k.Class != "" {
		what += " (trust class " + k.Class + ")"
	}
	return refuse(http.StatusForbidden, "image-key-refused", fmt.Sprintf("image key %s is not for %s now", what, n.name), strings.Join(reasons, "; "),
		"see `touchstone why "+n.name+"`")
}

// provenKey checks the key to encrypt to. The caller holds the node.
func (a *Authority) provenKey(ctx context.Context, n *node, req *protocol.ReleaseRequest) (*ecdsa.PublicKey, error) {
	unproven := func(err error) error {
		return refuse(http.StatusForbidden, "unproven-key", "the key to encrypt the image key to is not proven to live in the node's TPM, in the state that it booted into",
			err.Error(), "restart the trust agent")
	}
	key, err := tpm.ParsePublic(req.Public)
	if err != nil {
		return nil, unproven(err)
	}
	policy, err := a.bootPolicy(ctx, n, req.Bank)
	if err != nil {
		return nil, unproven(err)
	}
	if err := tpm.VerifyDecryptionKey(n.ak, key, policy, imagekey.Context(n.name), req.Certify, req.Signature); err != nil {
		return nil, unproven(err)
	}
	public, ok := key.Key.(*ecdsa.PublicKey)
	if !ok {
		return nil, unproven(fmt.Errorf("it is a %T", key.Key))
	}
	return public, nil
}

// bootPolicy is the policy of an object that is bound to the boot that the node's last Evidence tells of. The quote is verified once more: Evidence that
// was judged bad is kept, too, and a class may not care about every level.
func (a *Authority) bootPolicy(ctx context.Context, n *node, bank string) ([]byte, error) {
	alg, err := tpm.ParseHashAlg(bank)
	if err != nil || alg == tpm.AlgSHA1 {
		return nil, fmt.Errorf("bank %.20q: want sha256 or a longer one", bank)
	}
	e, err := a.store.Evidence(ctx, n.id, n.lastKind())
	if err != nil {
		return nil, err
	}
	doc, err := evidence.Decode(e.Document)
	if err != nil {
		return nil, fmt.Errorf("kept evidence: %w", err)
	}
	for i := range doc.Quotes {
		values, pcrs, err := quotedBank(n.ak, &doc.Quotes[i], doc.Nonce, alg)
		if err != nil {
			return nil, err
		}
		if values != nil {
			return imagekey.BootPolicy(values, pcrs)
		}
	}
	return nil, fmt.Errorf("no quote of bank %s in the node's last evidence", bank)
}

// quotedBank returns the values of a bank that a quote covers, and which; nil when it is of another bank.
func quotedBank(ak *tpm.Public, q *evidence.Quote, nonce []byte, alg tpm.Alg) (*tpm.Bank, tpm.PCRSet, error) {
	attest, err := tpm.ParseQuote(q.Message)
	if err != nil {
		return nil, 0, err
	}
	if len(attest.Selections) != 1 || attest.Selections[0].Alg != alg {
		return nil, 0, nil
	}
	sig, err := tpm.ParseSignature(q.Signature)
	if err != nil {
		return nil, 0, err
	}
	if err := ak.Verify(q.Message, sig); err != nil {
		return nil, 0, err
	}
	values := &tpm.Bank{Alg: alg}
	for _, b := range q.PCRs {
		for i, v := range b.Values {
			if b.Alg == alg && i >= 0 && i < tpm.NumPCRs {
				values.Values[i] = v
			}
		}
	}
	digest, err := tpm.PCRDigest(sig.Hash, attest.Selections, map[tpm.Alg]*tpm.Bank{alg: values})
	if err != nil {
		return nil, 0, err
	}
	if subtle.ConstantTimeCompare(digest, attest.PCRDigest) != 1 || subtle.ConstantTimeCompare(nonce, attest.ExtraData) != 1 {
		return nil, 0, errors.New("the PCR values of the last evidence are not the quoted ones")
	}
	return values, attest.Selections[0].PCRs, nil
}
