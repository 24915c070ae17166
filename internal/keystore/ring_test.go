package keystore

import (
	"bytes"
	"context"
	"errors"
	"testing"
)

func testKey(t testing.TB, fill byte) KEK {
	t.Helper()
	k, err := NewKey("file", bytes.Repeat([]byte{fill}, keySize))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func testRing(t testing.TB, current KEK, older ...KEK) *Ring {
	t.Helper()
	r, err := NewRing(current, older...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func mustWrap(t testing.TB, k KEK, plain, aad string) []byte {
	t.Helper()
	b, err := k.Wrap(context.Background(), []byte(plain), []byte(aad))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRing(t *testing.T) {
	ctx := context.Background()
	one, two := testKey(t, 1), testKey(t, 2)
	old, both, late := testRing(t, one), testRing(t, two, one), testRing(t, two)
	sealed := mustWrap(t, old, "secret", "place")
	if bytes.Contains(sealed, []byte("secret")) {
		t.Error("Wrap(): the secret is in the sealed form")
	}
	if again := mustWrap(t, old, "secret", "place"); bytes.Equal(again, sealed) {
		t.Error("Wrap() twice: got the same bytes")
	}
	if id, err := SealedBy(sealed); err != nil || id != one.ID() {
		t.Errorf("SealedBy(): got %q, %v; want %q", id, err, one.ID())
	}
	for name, c := range map[string]struct {
		ring   *Ring
		sealed []byte
		aad    string
		want   error
	}{
		"own":              {old, sealed, "place", nil},
		"older":            {both, sealed, "place", nil},
		"unknown key":      {late, sealed, "place", ErrUnknownKey},
		"elsewhere":        {old, sealed, "place2", ErrSealed},
		"no place":         {old, sealed, "", ErrSealed},
		"empty":            {old, nil, "place", ErrSealed},
		"plain":            {old, []byte("-----BEGIN PRIVATE KEY-----"), "place", ErrSealed},
		"a later version":  {old, append([]byte("TSS2"), sealed[4:]...), "place", ErrSealed},
		"something behind": {old, append(bytes.Clone(sealed), 0), "place", ErrSealed},
		"the inner form":   {old, sealed[bytes.IndexByte(sealed[5:], 0)+7:], "place", ErrSealed},
	} {
		got, err := c.ring.Unwrap(ctx, c.sealed, []byte(c.aad))
		if !errors.Is(err, c.want) || (c.want == nil) != (string(got) == "secret") {
			t.Errorf("%s: Unwrap(): got %q, %v; want %v", name, got, err, c.want)
		}
	}
	moved, err := both.Rewrap(ctx, sealed, []byte("place"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := late.Unwrap(ctx, moved, []byte("place")); err != nil || string(got) != "secret" {
		t.Errorf("Unwrap() after Rewrap(): got %q, %v; want the secret", got, err)
	}
	if again, err := both.Rewrap(ctx, moved, []byte("place")); again != nil || err != nil {
		t.Errorf("Rewrap() of what is under the current key: got %d bytes, %v; want none", len(again), err)
	}
	if _, err := both.Rewrap(ctx, sealed, []byte("other")); !errors.Is(err, ErrSealed) {
		t.Errorf("Rewrap() with another aad: got %v, want %v", err, ErrSealed)
	}
}

// TestFlippedBits: no changed bit and no cut of a sealed form opens, and a changed key ID is an unknown key, never the wrong one.
func TestFlippedBits(t *testing.T) {
	r := testRing(t, testKey(t, 1), testKey(t, 2))
	sealed := mustWrap(t, r, "secret", "place")
	for i := range sealed {
		for bit := range 8 {
			bad := bytes.Clone(sealed)
			bad[i] ^= 1 << bit
			if got, err := r.Unwrap(context.Background(), bad, []byte("place")); !errors.Is(err, ErrSealed) && !errors.Is(err, ErrUnknownKey) {
				t.Fatalf("Unwrap() with bit %d of byte %d flipped: got %q, %v", bit, i, got, err)
			}
		}
		if got, err := r.Unwrap(context.Background(), sealed[:i], []byte("place")); !errors.Is(err, ErrSealed) {
			t.Fatalf("Unwrap() of %d bytes: got %q, %v; want %v", i, got, err, ErrSealed)
		}
	}
}

func TestSealLimits(t *testing.T) {
	r := testRing(t, testKey(t, 1))
	for _, n := range []int{0, 1, MaxSecret} {
		b, err := r.Wrap(context.Background(), make([]byte, n), nil)
		if err != nil {
			t.Fatalf("Wrap() of %d bytes: %v", n, err)
		}
		if got, err := r.Unwrap(context.Background(), b, nil); err != nil || len(got) != n {
			t.Errorf("Unwrap() of %d bytes: got %d, %v", n, len(got), err)
		}
	}
	if _, err := r.Wrap(context.Background(), make([]byte, MaxSecret+1), nil); err == nil {
		t.Error("Wrap() of too much: got no error")
	}
	if _, err := NewRing(testKey(t, 1), testKey(t, 1)); err == nil {
		t.Error("NewRing() with one key twice: got no error")
	}
	if _, err := NewKey("file", make([]byte, 16)); err == nil {
		t.Error("NewKey() of 16 bytes: got no error")
	}
	if _, err := NewKey("File", make([]byte, 32)); err == nil {
		t.Error("NewKey() of a bad kind: got no error")
	}
}

// The sealed form does not change: this one was made by the first version.
func TestSealedFormIsStable(t *testing.T) {
	r := testRing(t, testKey(t, 7))
	if want := "file:813e1bcba241b72c"; r.ID() != want {
		t.Errorf("ID(): got %s, want %s", r.ID(), want)
	}
	b := unhex(t, stable)
	if got, err := r.Unwrap(context.Background(), b, []byte("place")); err != nil || string(got) != "secret" {
		t.Errorf("Unwrap() of an earlier sealed form: got %q, %v", got, err)
	}
}

func FuzzUnwrap(f *testing.F) {
	r := testRing(f, testKey(f, 1))
	f.Add(mustWrap(f, r, "secret", "place"))
	f.Add([]byte(magic + "\x01a\x00\x01"))
	f.Add([]byte(magic + "\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := r.Unwrap(context.Background(), b, []byte("place"))
		if err == nil && string(got) != "secret" {
			t.Errorf("Unwrap(%x): got %q", b, got)
		}
		if id, err := SealedBy(b); err == nil && checkID(id) != nil {
			t.Errorf("SealedBy(%x): got %q", b, id)
		}
	})
}

func BenchmarkWrap(b *testing.B) {
	r := testRing(b, testKey(b, 1))
	for b.Loop() {
		mustWrap(b, r, "a private key on P-256 in PKCS #8 has some 138 bytes", "place")
	}
}

func BenchmarkUnwrap(b *testing.B) {
	r := testRing(b, testKey(b, 1))
	sealed := mustWrap(b, r, "a private key on P-256 in PKCS #8 has some 138 bytes", "place")
	for b.Loop() {
		if _, err := r.Unwrap(context.Background(), sealed, []byte("place")); err != nil {
			b.Fatal(err)
		}
	}
}
