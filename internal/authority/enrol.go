package authority

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode"

	"github.com/fxamacker/cbor/v2"

	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/store"
	"touchstone.dev/touchstone/internal/tpm"
)

const (
	sessionLifetime = 2 * time.Minute
	secretSize      = 32
	maxCertificates = 8 // in EnrolRequest.EKCerts
)

// session is what AIAS must remember between the two requests of an enrolment. It travels with the node, sealed.
type session struct {
	ID       []byte    `cbor:"1,keyasint"`
	Until    time.Time `cbor:"2,keyasint"`
	Node     string    `cbor:"3,keyasint"`
	Token    string    `cbor:"4,keyasint"` // id of a join token; empty when a certificate or the cluster gave the right
	EK       []byte    `cbor:"5,keyasint"` // SHA-256 of the SubjectPublicKeyInfo
	EKCert   string    `cbor:"6,keyasint"`
	Software bool      `cbor:"7,keyasint"`
	AK       []byte    `cbor:"8,keyasint"`
	TLS      []byte    `cbor:"9,keyasint"`
	Agent    string    `cbor:"10,keyasint"`
	Secret   []byte    `cbor:"11,keyasint"` // SHA-256 of the secret in the credential
}

// enrol begins an enrolment:
//
//  1. The right to the name: a join token, the client certificate of the same node when it renews, or a token of the agent's pod on that node.
//  2. The EK is that of a genuine TPM: certificate chain to an imported root, or allow-list; and name and EK are not bound elsewhere.
//  3. The attestation key may only sign what the TPM made, and lives in it; the TLS key lives in it.
//  4. A credential over the Name of the attestation key, recomputed from its whole public area, that only that EK can open.
func (a *Authority) enrol(ctx context.Context, id identity, r *protocol.EnrolRequest) (*protocol.EnrolChallenge, error) {
	if err := checkNodeName(r.Node); err != nil {
		return nil, refuse(http.StatusBadRequest, "node-name", "this is no node name", err.Error(), "set a valid node name in the agent's configuration")
	}
	keys, err := parseKeys(r)
	if err != nil {
		return nil, err
	}
	token, err := a.right(ctx, id, r, keys.ekHash)
	if err != nil {
		return nil, err
	}
	ekCert, software, err := a.recognise(ctx, keys.ek, keys.ekHash, r.EKCerts)
	if err != nil {
		return nil, err
	}
	if err := a.unbound(r.Node, keys.ekHash); err != nil {
		return nil, err
	}
	secret := randomBytes(secretSize)
	blob, encrypted, err := tpm.MakeCredential(keys.ek, keys.ak.Name(), secret)
	if err != nil {
		return nil, badKey("endorsement", err)
	}
	sum := sha256.Sum256(secret)
	sealed, err := cbor.Marshal(session{
		ID: randomBytes(16), Until: a.now().Add(sessionLifetime), Node: r.Node, Token: token, EK: keys.ekHash[:], EKCert: ekCert,
		Software: software, AK: r.AKPublic, TLS: r.TLSPublic, Agent: printable(clip(r.Agent, 64)), Secret: sum[:],
	})
	if err != nil {
		return nil, err
	}
	return &protocol.EnrolChallenge{
		Session:    base64.RawURLEncoding.EncodeToString(seal(a.sessions, sealed, "enrolment")),
		Credential: blob, Secret: encrypted,
	}, nil
}

type enrolKeys struct {
	ek, ak, tls *tpm.Public
	ekHash      [32]byte
}

func parseKeys(r *protocol.EnrolRequest) (k enrolKeys, err error) {
	if k.ek, err = tpm.ParsePublic(r.EKPublic); err != nil {
		return k, badKey("endorsement", err)
	}
	if err = k.ek.CheckEndorsementKey(); err != nil {
		return k, badKey("endorsement", err)
	}
	if k.ekHash, err = keyHash(k.ek.Key); err != nil {
		return k, badKey("endorsement", err)
	}
	if k.ak, err = tpm.ParsePublic(r.AKPublic); err != nil {
		return k, badKey("attestation", err)
	}
	if err = k.ak.CheckAttestationKey(); err != nil {
		return k, badKey("attestation", err)
	}
	if k.tls, err = tpm.ParsePublic(r.TLSPublic); err != nil {
		return k, badKey("TLS", err)
	}
	if err = k.tls.CheckResidentKey(); err != nil {
		return k, badKey("TLS", err)
	}
	return k, nil
}

func badKey(which string, err error) error {
	return refuse(http.StatusBadRequest, "key", "the "+which+" key is not acceptable", err.Error(), "let the trust agent make new keys in the TPM")
}

// right checks what gives the right to a node name. It returns the id of the token, which activation uses up.
func (a *Authority) right(ctx context.Context, id identity, r *protocol.EnrolRequest, ek [32]byte) (string, error) {
	if r.Token == "" && id.role == roleNode {
		n, err := a.nodeOf(id)
		if err != nil {
			return "", err
		}
		if n.name != r.Node || n.ek != ek {
			return "", refuse(http.StatusForbidden, "other-node", "the client certificate speaks for another node or TPM", "", "enrol with a join token")
		}
		return "", nil
	}
	if a.cluster != nil && isJWT(r.Token) {
		return "", a.cluster.mayJoin(ctx, r.Token, r.Node)
	}
	bad := refuse(http.StatusForbidden, "token", "the join token does not give the right to enrol this node",
		"it is unknown, used up, expired, or made for another node or TPM", "ask the operator for a new one: touchstone token create --node "+r.Node)
	tid, secret, ok := strings.Cut(r.Token, ".")
	if !ok || len(r.Token) > 256 {
		return "", bad
	}
	t, err := a.store.Token(ctx, tid)
	if notFound(err) {
		return "", bad
	}
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(secret))
	if subtle.ConstantTimeCompare(sum[:], t.Hash) != 1 || t.Left <= 0 || !a.now().Before(t.Expires) ||
		t.Node != "" && t.Node != r.Node || t.EK != nil && string(t.EK) != string(ek[:]) {
		return "", bad
	}
	return t.ID, nil
}

// recognise decides whether an EK belongs to a genuine TPM, and says how that is known. A host's certificates are only ever links.
func (a *Authority) recognise(ctx context.Context, ek *tpm.Public, hash [32]byte, certs [][]byte) (how string, software bool, err error) {
	allowed, err := a.allowed(ctx, hash)
	if err != nil {
		return "", false, err
	}
	if allowed {
		return "allow-list", false, nil
	}
	unknown := func(detail string) error {
		return refuse(http.StatusForbidden, "ek", "the TPM is not known to be genuine", detail,
			"import the root certificates of the TPM's manufacturer (touchstone reference import ek-roots DIR), or put the EK "+
				hex.EncodeToString(hash[:])+" on the allow-list")
	}
	if len(certs) == 0 {
		return "", false, unknown("the TPM brought no EK certificate, and its EK is not on the allow-list")
	}
	if len(certs) > maxCertificates {
		return "", false, unknown(fmt.Sprintf("%d certificates, at most %d are taken", len(certs), maxCertificates))
	}
	chain := make([]*x509.Certificate, len(certs))
	for i, der := range certs {
		if chain[i], err = tpm.ParseEKCertificate(der); err != nil {
			return "", false, unknown(err.Error())
		}
	}
	if err := tpm.EKMatchesCertificate(ek, chain[0]); err != nil {
		return "", false, unknown(err.Error())
	}
	s, t := a.snapshot.Load(), a.trust.Load()
	err = tpm.VerifyEKChain(chain[0], append(chain[1:len(chain):len(chain)], s.Links...), s.Roots, a.now())
	if err == nil {
		return chain[0].Issuer.String(), false, nil
	}
	if t.softRoots != nil && tpm.VerifyEKChain(chain[0], append(chain[1:len(chain):len(chain)], t.softLinks...), t.softRoots, a.now()) == nil {
		return chain[0].Issuer.String(), true, nil
	}
	return "", false, unknown(err.Error())
}

func (a *Authority) allowed(ctx context.Context, hash [32]byte) (bool, error) {
	if _, ok := a.trust.Load().eks[hash]; ok {
		return true, nil
	}
	eks, err := a.store.EKs(ctx)
	if err != nil {
		return false, err
	}
	for _, ek := range eks {
		if ek.Hash == hash {
			return true, nil
		}
	}
	return false, nil
}

// unbound refuses early what the store would refuse at the end: a name of another TPM, or a TPM with another name.
func (a *Authority) unbound(name string, ek [32]byte) error {
	if n := a.node(name); n != nil && n.ek != ek {
		n.mu.RLock()
		open := a.now().Before(n.rebindTill)
		n.mu.RUnlock()
		if !open {
			return bindingProblem(store.ErrNameTaken, name)
		}
	}
	if n := a.nodeByEK(ek); n != nil && n.name != name {
		return bindingProblem(store.ErrTPMTaken, name)
	}
	return nil
}

// bindingProblem explains the refusals of store.Enrol.
func bindingProblem(err error, name string) error {
	switch {
	case errors.Is(err, store.ErrNameTaken):
		return refuse(http.StatusConflict, "name-taken", "this node name belongs to another TPM",
			fmt.Sprintf("%q was enrolled with another endorsement key", name),
			"if the machine or its TPM was replaced, an operator allows it: touchstone node rebind "+name)
	case errors.Is(err, store.ErrTPMTaken):
		return refuse(http.StatusConflict, "tpm-taken", "this TPM is enrolled under another node name", "",
			"use the old name, or let an operator remove the old node: touchstone node delete")
	case errors.Is(err, store.ErrToken):
		return refuse(http.StatusForbidden, "token", "the join token was used up or has expired meanwhile", "", "ask the operator for a new one")
	case errors.Is(err, store.ErrUsed):
		return refuse(http.StatusConflict, "session", "this enrolment was finished already", "", "begin again with "+protocol.PathEnrol)
	}
	return err
}

// printable takes out what would play tricks on the terminal of an operator.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, s)
}

func clip(s string, n int) string { return strings.ToValidUTF8(s[:min(len(s), n)], "") }
