package result

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Reasons why a Result is refused.
var (
	ErrSignature = errors.New("attestation result is not signed by a known key")
	ErrExpired   = errors.New("attestation result has expired")
	ErrOther     = errors.New("attestation result is about another node or key")
	ErrForm      = errors.New("attestation result is malformed")
)

const (
	maxToken  = 64 << 10         // bytes of a Result
	clockSkew = 60 * time.Second // how far in the future a Result may have been issued
)

// Key signs Results.
type Key struct {
	id     string
	public jose.JSONWebKey
	signer jose.Signer
}

// NewKey makes a Key from an ECDSA key on P-256. Its id is the hash of the public key.
func NewKey(private *ecdsa.PrivateKey) (*Key, error) {
	if private == nil || private.Curve != elliptic.P256() {
		return nil, errors.New("key for attestation results: want ECDSA on P-256")
	}
	der, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("key for attestation results: %w", err)
	}
	sum := sha256.Sum256(der)
	id := base64.RawURLEncoding.EncodeToString(sum[:12])
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: private, KeyID: id}},
		(&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return nil, fmt.Errorf("key for attestation results: %w", err)
	}
	return &Key{id: id, signer: signer, public: jose.JSONWebKey{
		Key: &private.PublicKey, KeyID: id, Algorithm: string(jose.ES256), Use: "sig",
	}}, nil
}

// ID is the kid in the header of what the key signs.
func (k *Key) ID() string { return k.id }

// JWKS returns the public halves of keys as a JSON Web Key Set (RFC 7517, 5).
func JWKS(keys ...*Key) ([]byte, error) {
	var set jose.JSONWebKeySet
	for _, k := range keys {
		set.Keys = append(set.Keys, k.public)
	}
	return json.Marshal(set)
}

// NewID returns a fresh jti.
func NewID() string { return rand.Text() }

type verifierID struct {
	Developer string `json:"developer"`
	Build     string `json:"build"`
}

type private struct {
	Node         string  `json:"node"`
	AKName       string  `json:"ak-name"`
	Trusted      bool    `json:"trusted"`
	Levels       []Level `json:"levels"`
	Snapshot     string  `json:"snapshot"`
	ResetCount   uint32  `json:"reset-count"`
	RestartCount uint32  `json:"restart-count"`
	SoftwareTPM  bool    `json:"software-tpm,omitempty"`
	EKSHA256     string  `json:"ek-sha256,omitempty"`

	Tags    map[string]string `json:"tags,omitempty"`
	Machine Machine           `json:"machine,omitzero"`

	Compliance *Compliance `json:"compliance,omitempty"`
	Audit      *Audit      `json:"audit,omitempty"`
}

type submodule struct {
	Status     string         `json:"ear.status"`
	Vector     map[string]int `json:"ear.trustworthiness-vector"`
	PolicyID   string         `json:"ear.appraisal-policy-id"`
	Touchstone private        `json:"touchstone"`
}

type claims struct {
	Profile  string               `json:"eat_profile"`
	Issued   int64                `json:"iat"`
	Expires  int64                `json:"exp"`
	ID       string               `json:"jti"`
	Subject  string               `json:"sub"`
	Verifier verifierID           `json:"ear.verifier-id"`
	Submods  map[string]submodule `json:"submods"`
}

// Sign returns r as a signed JWT in compact form.
func Sign(key *Key, r *Result) (string, error) {
	payload, err := json.Marshal(claims{
		Profile: Profile, Issued: r.Issued.Unix(), Expires: r.Expires.Unix(), ID: r.ID, Subject: r.Node,
		Verifier: verifierID{Developer: Developer, Build: r.Build},
		Submods: map[string]submodule{Submodule: {
			Status: r.Status(), Vector: r.Vector(), PolicyID: "urn:touchstone:snapshot:" + r.Snapshot,
			Touchstone: private{
				Node: r.Node, AKName: r.AKName, Trusted: r.Trusted, Levels: r.Levels, Snapshot: r.Snapshot,
				ResetCount: r.ResetCount, RestartCount: r.RestartCount, SoftwareTPM: r.SoftwareTPM,
				EKSHA256: r.EKSHA256, Tags: r.Tags, Machine: r.Machine, Compliance: r.Compliance, Audit: r.Audit,
			},
		}},
	})
	if err != nil {
		return "", fmt.Errorf("sign attestation result: %w", err)
	}
	jws, err := key.signer.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("sign attestation result: %w", err)
	}
	return jws.CompactSerialize()
}

// Expectation is what a Relying Party knows. An empty field is not judged; a zero Now is refused.
type Expectation struct {
	Node   string
	AKName string // hexadecimal
	Now    time.Time
}

// Verify checks a Result against the keys of AIAS (a JSON Web Key Set) and what the Relying Party expects. Its errors wrap
// ErrSignature, ErrExpired, ErrOther or ErrForm. A Result that is returned is authentic and fresh; whether it says trusted is in it.
func Verify(token string, jwks []byte, want Expectation) (*Result, error) {
	if want.Now.IsZero() {
		return nil, fmt.Errorf("%w: no time to judge it at", ErrExpired)
	}
	payload, err := authentic(token, jwks, maxToken)
	if err != nil {
		return nil, err
	}
	var c claims
	if err := json.Unmarshal(payload, &c); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrForm, err)
	}
	sub, ok := c.Submods[Submodule]
	p := sub.Touchstone
	if !ok || c.Profile != Profile || len(p.Levels) != 5 || p.Node == "" {
		return nil, fmt.Errorf("%w: not a result of profile %s", ErrForm, Profile)
	}
	r := &Result{
		Node: p.Node, AKName: p.AKName, Trusted: p.Trusted, Levels: p.Levels, Snapshot: p.Snapshot, ResetCount: p.ResetCount,
		RestartCount: p.RestartCount, SoftwareTPM: p.SoftwareTPM, EKSHA256: p.EKSHA256, Tags: p.Tags, Machine: p.Machine, Compliance: p.Compliance, Audit: p.Audit, ID: c.ID, Build: c.Verifier.Build,
		Issued: time.Unix(c.Issued, 0).UTC(), Expires: time.Unix(c.Expires, 0).UTC(),
	}
	if sub.Status != r.Status() {
		return nil, fmt.Errorf("%w: ear.status is %q, the levels say %q", ErrForm, sub.Status, r.Status())
	}
	if !want.Now.Before(r.Expires) {
		return nil, fmt.Errorf("%w: at %s", ErrExpired, r.Expires.Format(time.RFC3339))
	}
	if r.Issued.After(want.Now.Add(clockSkew)) {
		return nil, fmt.Errorf("%w: issued in the future, at %s: check the clocks", ErrForm, r.Issued.Format(time.RFC3339))
	}
	if want.Node != "" && want.Node != r.Node {
		return nil, fmt.Errorf("%w: node %q, want %q", ErrOther, r.Node, want.Node)
	}
	if want.AKName != "" && want.AKName != r.AKName {
		return nil, fmt.Errorf("%w: attestation key %q, want %q", ErrOther, r.AKName, want.AKName)
	}
	return r, nil
}

// authentic returns the payload of a token that one key of the set has signed.
func authentic(token string, jwks []byte, most int) ([]byte, error) {
	if len(token) > most {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are taken", ErrForm, len(token), most)
	}
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrForm, err)
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(jwks, &set); err != nil {
		return nil, fmt.Errorf("%w: key set: %w", ErrSignature, err)
	}
	for _, k := range set.Key(jws.Signatures[0].Header.KeyID) {
		if _, ok := k.Key.(*ecdsa.PublicKey); !ok {
			continue
		}
		if payload, err := jws.Verify(k.Key); err == nil {
			return payload, nil
		}
	}
	return nil, ErrSignature
}
