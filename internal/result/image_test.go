package result

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/compliance/verdict"
)

func TestImage(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := NewKey(private)
	if err != nil {
		t.Fatal(err)
	}
	jwks, err := JWKS(key)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_800_000_000, 0)
	token, err := SignImage(key, &Image{Manifest: "sha256:m", Config: "sha256:c", Profile: "p", Scanned: now, Failed: map[string]int{"high": 1}, Rules: []verdict.Rule{{ID: "a", Severity: "high", Outcome: "fail"}}, Issued: now, Expires: now.Add(time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	for _, digest := range []string{"sha256:m", "sha256:c"} {
		if i, err := VerifyImage(token, jwks, digest, now); err != nil || i.Failed["high"] != 1 || i.Profile != "p" {
			t.Errorf("%s: got %+v, %v", digest, i, err)
		}
	}
	silent, err := SignImage(key, &Image{Manifest: "sha256:m", Config: "sha256:c", Scanned: now, FeedMade: now, Flaws: map[string]int{"high": 1}, Issued: now, Expires: now.Add(time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	worker, err := Sign(key, &Result{Node: "n", Levels: make([]Level, 5), Issued: now, Expires: now.Add(time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		token, digest string
		at            time.Time
		want          error
	}{
		"other image":              {token, "sha256:x", now, ErrOther},
		"no image":                 {token, "", now, ErrOther},
		"expired":                  {token, "sha256:m", now.Add(time.Minute), ErrExpired},
		"of the future":            {token, "sha256:m", now.Add(-time.Hour), ErrForm},
		"names not what it counts": {silent, "sha256:m", now, ErrForm},
		"result of a worker":       {worker, "sha256:m", now, ErrForm},
		"changed":                  {token[:len(token)-4] + "AAAA", "sha256:m", now, ErrSignature},
	} {
		if _, err := VerifyImage(c.token, jwks, c.digest, c.at); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
	if _, err := Verify(token, jwks, Expectation{Now: now}); !errors.Is(err, ErrForm) {
		t.Errorf("an image result is taken for that of a worker: %v", err)
	}
}
