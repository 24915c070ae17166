package result

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"touchstone.dev/touchstone/internal/appraisal"
)

var issued = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

func newKey(t testing.TB) *Key {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := NewKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sample(statuses ...appraisal.Status) *Result {
	r := &Result{
		Node: "worker-1", AKName: "000b0102", Trusted: true, Snapshot: "abc", ResetCount: 7, RestartCount: 1, ID: NewID(), Build: "v1",
		Issued: issued, Expires: issued.Add(5 * time.Minute), EKSHA256: "ab01", Tags: map[string]string{"country": "de"},
		Machine: Machine{SystemUUID: "u", BootID: "b", KubeletKeys: []string{"k"}},
	}
	for i, name := range appraisal.LevelNames {
		s := appraisal.Pass
		if i < len(statuses) {
			s = statuses[i]
		}
		if s == appraisal.Fail || s == appraisal.Unknown {
			r.Trusted = false
		}
		r.Levels = append(r.Levels, Level{Level: i + 1, Name: name, Status: s})
	}
	return r
}

func TestSignVerify(t *testing.T) {
	key := newKey(t)
	jwks, err := JWKS(newKey(t), key)
	if err != nil {
		t.Fatal(err)
	}
	want := sample(appraisal.Pass, appraisal.Fail)
	token, err := Sign(key, want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Verify(token, jwks, Expectation{Node: "worker-1", AKName: "000b0102", Now: issued.Add(time.Minute)})
	if err != nil {
		t.Fatalf("Verify(own token): %v", err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Verify(Sign(r)) differs (-want +got):\n%s", diff)
	}
}

func TestVerifyRefuses(t *testing.T) {
	key, stranger := newKey(t), newKey(t)
	jwks, _ := JWKS(key)
	good, err := Sign(key, sample())
	if err != nil {
		t.Fatal(err)
	}
	foreign, _ := Sign(stranger, sample())
	parts := strings.Split(good, ".")
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + parts[1] + "."
	payload, _ := base64.RawURLEncoding.DecodeString(parts[1])
	forged := parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(payload), "worker-1", "worker-2", 1))) + "." + parts[2]
	sealed := func(head string, key []byte) string {
		text := base64.RawURLEncoding.EncodeToString([]byte(head)) + "." + parts[1]
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(text))
		return text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
	}
	header, _ := base64.RawURLEncoding.DecodeString(parts[0])
	confused := sealed(strings.Replace(string(header), "ES256", "HS256", 1), jwks)
	strangers, _ := JWKS(stranger)
	own := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256","jwk":`+string(strangers[len(`{"keys":[`):len(strangers)-2])+`}`)) + "." + strings.Join(strings.Split(foreign, ".")[1:], ".")
	private, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: private, KeyID: key.ID()}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	named, _ := jws.CompactSerialize()
	four := sample()
	four.Levels = four.Levels[:4]
	short, _ := Sign(key, four)

	at := Expectation{Node: "worker-1", AKName: "000b0102", Now: issued.Add(time.Second)}
	tests := []struct {
		name  string
		token string
		want  Expectation
		err   error
	}{
		{"expired", good, Expectation{Now: issued.Add(5 * time.Minute)}, ErrExpired},
		{"no clock", good, Expectation{}, ErrExpired},
		{"from the future", good, Expectation{Now: issued.Add(-2 * time.Minute)}, ErrForm},
		{"another node", good, Expectation{Node: "worker-2", Now: at.Now}, ErrOther},
		{"another key", good, Expectation{AKName: "000b", Now: at.Now}, ErrOther},
		{"signed by a stranger", foreign, at, ErrSignature},
		{"algorithm none", none, at, ErrForm},
		{"algorithm of another kind", confused, at, ErrForm},
		{"key in the token", own, at, ErrSignature},
		{"stranger under our key's name", named, at, ErrSignature},
		{"changed payload", forged, at, ErrSignature},
		{"four levels", short, at, ErrForm},
		{"garbage", "a.b.c", at, ErrForm},
		{"too long", strings.Repeat("a", maxToken+1), at, ErrForm},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Verify(tt.token, jwks, tt.want); !errors.Is(err, tt.err) {
				t.Errorf("Verify(%s): got %v, want %v", tt.name, err, tt.err)
			}
		})
	}
}

func TestStatusAndVector(t *testing.T) {
	tests := []struct {
		name   string
		levels []appraisal.Status
		status string
		vector map[string]int
	}{
		{"all pass", nil, Affirming, map[string]int{claimIdentity: 2, claimHardware: 2, claimConfig: 2, claimExecutable: 2, claimFiles: 2}},
		{"warning on 1", []appraisal.Status{appraisal.Warn}, Warning,
			map[string]int{claimIdentity: 2, claimHardware: 32, claimConfig: 2, claimExecutable: 2, claimFiles: 2}},
		{"4 worse than 3", []appraisal.Status{"pass", "pass", "warn", "fail"}, Contraindicated,
			map[string]int{claimIdentity: 2, claimHardware: 2, claimConfig: 2, claimExecutable: 96, claimFiles: 2}},
		{"5 unknown", []appraisal.Status{"pass", "pass", "pass", "pass", "unknown"}, Contraindicated,
			map[string]int{claimIdentity: 2, claimHardware: 2, claimConfig: 2, claimExecutable: 2, claimFiles: 0}},
	}
	for _, tt := range tests {
		r := sample(tt.levels...)
		if got := r.Status(); got != tt.status {
			t.Errorf("%s: Status(): got %q, want %q", tt.name, got, tt.status)
		}
		if diff := cmp.Diff(tt.vector, r.Vector()); diff != "" {
			t.Errorf("%s: Vector() differs (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestClaimNames(t *testing.T) {
	key := newKey(t)
	token, err := Sign(key, sample())
	if err != nil {
		t.Fatal(err)
	}
	payload, _ := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	var got map[string]any
	if err := json.Unmarshal(payload, &got); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"eat_profile", "iat", "exp", "jti", "ear.verifier-id", "submods"} {
		if _, ok := got[name]; !ok {
			t.Errorf("claims of a result: %q is missing", name)
		}
	}
}

func FuzzVerify(f *testing.F) {
	key := newKey(f)
	jwks, _ := JWKS(key)
	signed := sample()
	token, _ := Sign(key, signed)
	f.Add(token)
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, s string) {
		// Base64 and ECDSA have several spellings of the same bytes, so it is the content that counts.
		if r, err := Verify(s, jwks, Expectation{Now: issued}); err == nil && !cmp.Equal(r, signed) {
			t.Errorf("Verify(%q): accepted %+v, which nobody signed", s, r)
		}
	})
}

func BenchmarkSign(b *testing.B) {
	key, r := newKey(b), sample()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Sign(key, r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	key := newKey(b)
	jwks, _ := JWKS(key)
	token, _ := Sign(key, sample())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Verify(token, jwks, Expectation{Now: issued}); err != nil {
			b.Fatal(err)
		}
	}
}
