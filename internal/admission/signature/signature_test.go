package signature

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"strings"
	"testing"
)

const (
	digestA = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	digestB = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

// signer signs as cosign does by default.
type signer struct {
	t   testing.TB
	key *ecdsa.PrivateKey
}

func newSigner(t testing.TB) *signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &signer{t, key}
}

func publicPEM(t testing.TB, public crypto.PublicKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func (s *signer) keys() *Keys {
	s.t.Helper()
	k, err := ParseKeys([]string{publicPEM(s.t, s.key.Public())})
	if err != nil {
		s.t.Fatal(err)
	}
	return k
}

func (s *signer) sign(message string) string {
	s.t.Helper()
	sum := sha256.Sum256([]byte(message))
	sig, err := ecdsa.SignASN1(rand.Reader, s.key, sum[:])
	if err != nil {
		s.t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(sig)
}

func (s *signer) bundle(kind, statement string) string {
	s.t.Helper()
	b, err := json.Marshal(map[string]any{
		"mediaType":            "application/vnd.dev.sigstore.bundle.v0.3+json",
		"verificationMaterial": map[string]any{"publicKey": map[string]any{"hint": "x"}},
		"dsseEnvelope": map[string]any{
			"payload": []byte(statement), "payloadType": kind,
			"signatures": []any{map[string]any{"sig": s.sign(string(preAuthentication(kind, []byte(statement))))}},
		},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return string(b)
}

const payload = `{"critical":{"identity":{"docker-reference":"registry.example/app"},"image":{"docker-manifest-digest":"` + digestA + `"},"type":"cosign container image signature"},"optional":null}`

const statement = `{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{}}`

// check compares an error with the words that it must have; "" wants none.
func check(t *testing.T, what string, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("%s: %v, want no error", what, err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("%s: got error %v, want one with %q", what, err, want)
	}
}

// TestSimple: what a key signed is still read strictly.
func TestSimple(t *testing.T) {
	s := newSigner(t)
	replace := func(old, with string) string { return strings.Replace(payload, old, with, 1) }
	for _, c := range []struct{ name, payload, want string }{
		{"as cosign makes it", payload, ""},
		{"annotations", replace(`null`, `{"critical":{"image":{"docker-manifest-digest":"`+digestB+`"}}}`), ""},
		{"of another repository", replace("registry.example/app", "mirror.example/app"), ""},
		{"of another image", replace(digestA, digestB), "it signs another image"},
		{"long digest", replace(digestA, strings.Repeat("a", 1000)), "..."},
		{"another type", replace("cosign container image signature", "atomic container signature"), "critical.type"},
		{"no type", replace(`,"type":"cosign container image signature"`, ""), `"type" is missing`},
		{"type is no string", replace(`"cosign container image signature"`, "1"), "critical.type"},
		{"two images", replace(`"image":{`, `"image":{"docker-manifest-digest":"`+digestB+`"},"image":{`), `"image" is there twice`},
		{"two digests", replace(`"image":{`, `"image":{"docker-manifest-digest":"`+digestB+`",`), "is there twice"},
		{"another case", replace(`"image"`, `"Image"`), `"image" is missing`},
		{"both cases", replace(`"image":{`, `"Image":{"docker-manifest-digest":"`+digestB+`"},"image":{`), `"Image" is not known`},
		{"more that is critical", replace(`"type"`, `"expires":"2020-01-01","type"`), `"expires" is not known`},
		{"more in the image", replace(`"docker-manifest-digest"`, `"x":1,"docker-manifest-digest"`), `"x" is not known`},
		{"more at the top", replace(`"optional"`, `"more"`), "nothing else"},
		{"no reference", replace(`"registry.example/app"`, "null"), "docker-reference"},
		{"something behind", payload + "{}", "there is more behind"},
		{"cut off", payload[:len(payload)-1], "does not end"},
		{"a list", "[" + payload + "]", "not a JSON object"},
		{"nothing", "", "not a JSON object"},
		{"too long", replace("null", `"`+strings.Repeat("x", MaxPayload)+`"`), "more than 65536 bytes"},
	} {
		signer, err := s.keys().Simple([]byte(c.payload), s.sign(c.payload), digestA)
		check(t, c.name, err, c.want)
		if (signer != "") != (err == nil) {
			t.Errorf("%s: signer %q with error %v", c.name, signer, err)
		}
	}
	for _, c := range []struct{ name, payload, signature, want string }{
		{"tampered", strings.Replace(payload, "app", "App", 1), s.sign(payload), "by none of the keys"},
		{"another key", payload, newSigner(t).sign(payload), "by none of the keys"},
		{"no signature", payload, "", "not base64"},
		{"not base64", payload, "%", "not base64"},
		{"long signature", payload, strings.Repeat("A", 4096), "more than 2048 bytes"},
	} {
		_, err := s.keys().Simple([]byte(c.payload), c.signature, digestA)
		check(t, c.name, err, c.want)
	}
}

func TestBundle(t *testing.T) {
	s := newSigner(t)
	replace := func(old, with string) string { return strings.Replace(statement, old, with, 1) }
	for _, c := range []struct{ name, kind, statement, want string }{
		{"as cosign makes it", statementType, statement, ""},
		{"the older statement", statementType, replace("Statement/v1", "Statement/v0.1"), ""},
		{"second subject", statementType, replace(`[{`, `[{"digest":{"sha256":"bb"}},{`), ""},
		{"another image", statementType, replace("aaa", "bbb"), "it signs another image"},
		{"an attestation", statementType, replace("https://sigstore.dev/cosign/sign/v1", "https://slsa.dev/provenance/v1"), "an attestation"},
		{"another statement", statementType, replace("in-toto.io", "example.com"), "_type"},
		{"another payload", "application/json", statement, "its payload is"},
		{"other digest", statementType, replace(`"sha256":`, `"sha512":`), "it signs another image"},
		{"no subject", statementType, `{"_type":"https://in-toto.io/Statement/v1","subject":[],"predicateType":"https://sigstore.dev/cosign/sign/v1"}`, "subjects"},
		{"two predicates", statementType, replace(`"predicateType"`, `"predicateType":"https://slsa.dev/provenance/v1","predicateType"`), "is there twice"},
		{"no JSON", statementType, "x", "not a JSON object"},
	} {
		_, err := s.keys().Bundle([]byte(s.bundle(c.kind, c.statement)), digestA)
		check(t, c.name, err, c.want)
	}
	good := s.bundle(statementType, statement)
	for _, c := range []struct{ name, doc, want string }{
		{"another key", newSigner(t).bundle(statementType, statement), "by none of the keys"},
		{"no bundle", `{"mediaType":"text/plain"}`, "does not call itself"},
		{"no envelope", `{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","messageSignature":{}}`, "no DSSE envelope"},
		{"two signatures", strings.Replace(good, `"signatures":[`, `"signatures":[{"sig":"AA=="},`, 1), "want one signature"},
		{"envelope twice", strings.Replace(good, `"dsseEnvelope":`, `"dsseEnvelope":{},"dsseEnvelope":`, 1), "is there twice"},
		{"type changed", strings.Replace(good, statementType, "application/vnd.in-toto-json", 1), "by none of the keys"},
		{"too long", good + strings.Repeat(" ", MaxBundle), "more than 1048576 bytes"},
	} {
		_, err := s.keys().Bundle([]byte(c.doc), digestA)
		check(t, c.name, err, c.want)
	}
}

func TestParseKeys(t *testing.T) {
	good := publicPEM(t, newSigner(t).key.Public())
	short, err := rsa.GenerateKey(rand.Reader, 1024) //nolint:gosec // it must be refused
	if err != nil {
		t.Fatal(err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edwards, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{1}}))
	for _, c := range []struct {
		name string
		pems []string
		want string
	}{
		{"one", []string{good}, ""},
		{"rotation", []string{good, publicPEM(t, edwards)}, ""},
		{"with space around", []string{"\n" + good + "\n\n"}, ""},
		{"none", nil, "0 keys"},
		{"too many", make([]string, MaxKeys+1), "17 keys"},
		{"one is broken", []string{good, "x"}, "key 2: want one PEM block"},
		{"private", []string{private}, "want one PEM block PUBLIC KEY"},
		{"not DER", []string{string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte{1}}))}, "not a public key"},
		{"two in one", []string{good + good}, "there is more behind"},
		{"short RSA", []string{publicPEM(t, short.Public())}, "RSA of 1024 bits"},
		{"weak curve", []string{publicPEM(t, p224.Public())}, "curve P-224"},
		{"long", []string{strings.Repeat("x", maxKey+1)}, "more than 16384 bytes"},
	} {
		_, err := ParseKeys(c.pems)
		check(t, c.name, err, c.want)
	}
}

func FuzzSimple(f *testing.F) {
	f.Add([]byte(payload))
	f.Fuzz(func(t *testing.T, b []byte) {
		digest, err := simpleDigest(b)
		if err != nil {
			return
		}
		// What is read is what Go's own reading finds, too.
		var o struct {
			Critical struct {
				Image map[string]string `json:"image"`
			} `json:"critical"`
		}
		if err := json.Unmarshal(b, &o); err != nil || o.Critical.Image["docker-manifest-digest"] != digest {
			t.Errorf("simpleDigest(%q) = %q", b, digest)
		}
	})
}

func FuzzBundle(f *testing.F) {
	s := newSigner(f)
	keys := s.keys()
	f.Add([]byte(s.bundle(statementType, statement)), []byte(statement))
	f.Fuzz(func(t *testing.T, doc, statement []byte) {
		if _, err := keys.Bundle(doc, digestA); err == nil {
			if _, p, _, err := envelope(doc); err != nil || !strings.Contains(string(p), digestA[7:]) {
				t.Errorf("Bundle accepted %q", doc)
			}
		}
		if len(statement) > 0 && states(statement, digestA) == nil && !json.Valid(statement) {
			t.Errorf("states accepted %q", statement)
		}
	})
}
