package nbde

import (
	"bytes"
	"crypto/ecdh"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

func key(t testing.TB, use Use) *Key {
	t.Helper()
	k, err := NewKey(use)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestRecoverIsECDH: the abscissa is what the standard library's ECDH gives, and the point lies on the curve.
func TestRecoverIsECDH(t *testing.T) {
	for range 20 {
		server, client := key(t, Exchange), key(t, Exchange)
		got, err := server.Recover(client.public)
		if err != nil {
			t.Fatal(err)
		}
		private, err := ecdh.P521().NewPrivateKey(server.scalar)
		if err != nil {
			t.Fatal(err)
		}
		public, err := ecdh.P521().NewPublicKey(client.public)
		if err != nil {
			t.Fatal(err)
		}
		want, err := private.ECDH(public)
		if err != nil || !bytes.Equal(got[1:1+fieldSize], want) {
			t.Fatalf("Recover(): x is %x, ECDH says %x, %v", got[1:1+fieldSize], want, err)
		}
		// The other way round gives the same point, not its mirror image.
		if mirror, err := client.Recover(server.public); err != nil || !bytes.Equal(mirror, got) {
			t.Fatalf("Recover() from the other side: got %x, want %x, %v", mirror, got, err)
		}
	}
}

// TestThumbprints compares with what jose prints.
func TestThumbprints(t *testing.T) {
	need(t, "jose")
	k := key(t, Exchange)
	public, err := json.Marshal(k.jwk())
	if err != nil {
		t.Fatal(err)
	}
	for i, alg := range []string{"S256", "S1", "S224", "S384", "S512"} {
		cmd := exec.CommandContext(t.Context(), "jose", "jwk", "thp", "-i-", "-a", alg)
		cmd.Stdin = bytes.NewReader(public)
		want, err := cmd.Output()
		if err != nil || k.names[i] != string(want) {
			t.Errorf("%s: got %s, jose says %s, %v", alg, k.names[i], want, err)
		}
	}
}

// badPoints are what is no point of P-521, or is one that gives the private key away.
func badPoints(t testing.TB) map[string][]byte {
	t.Helper()
	good := key(t, Exchange).public
	flip := func(i int, bit byte) []byte {
		b := bytes.Clone(good)
		b[i] ^= bit
		return b
	}
	p := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 521), big.NewInt(1))
	grown := bytes.Clone(good) // x + p: the same point to who reduces it
	new(big.Int).Add(new(big.Int).SetBytes(good[1:1+fieldSize]), p).FillBytes(grown[1 : 1+fieldSize])
	return map[string][]byte{
		"infinity": {0}, "nothing": {}, "zeros": make([]byte, pointSize), "origin": append([]byte{4}, make([]byte, pointSize-1)...),
		"off by a bit of x": flip(fieldSize, 1), "off by a bit of y": flip(pointSize-1, 1), "compressed": append([]byte{2}, good[1:1+fieldSize]...),
		"form": flip(0, 2), "short": good[:pointSize-1], "long": append(bytes.Clone(good), 0), "not reduced": grown,
		"all ones": append([]byte{4}, bytes.Repeat([]byte{0xff}, pointSize-1)...),
	}
}

func TestRecoverRefuses(t *testing.T) {
	k := key(t, Exchange)
	for name, point := range badPoints(t) {
		if got, err := k.Recover(point); err == nil {
			t.Errorf("Recover(%s): got %x, want an error", name, got)
		}
	}
	if _, err := key(t, Sign).Recover(k.public); err == nil {
		t.Error("Recover() by a signing key: got no error")
	}
}

func TestParseKeyRefuses(t *testing.T) {
	change := func(f func(m map[string]any)) []byte {
		b, err := key(t, Exchange).Marshal()
		if err != nil {
			t.Fatal(err)
		}
		m := map[string]any{}
		if err := json.Unmarshal(b, &m); err != nil {
			t.Fatal(err)
		}
		f(m)
		b, _ = json.Marshal(m)
		return b
	}
	set := func(name string, v any) []byte { return change(func(m map[string]any) { m[name] = v }) }
	good := change(func(map[string]any) {})
	other, _ := encoded(key(t, Exchange).public)
	zero := base64.RawURLEncoding.EncodeToString(make([]byte, fieldSize))
	tests := map[string][]byte{
		"nothing": nil, "list": []byte("[]"), "public only": change(func(m map[string]any) { delete(m, "d") }),
		"other curve": set("crv", "P-256"), "other kind": set("kty", "oct"), "other alg": set("alg", "ES256"), "no alg": change(func(m map[string]any) { delete(m, "alg") }),
		"key_ops of the other use": set("key_ops", []string{"sign"}), "another's private part": set("d", other), "zero": set("d", zero),
		"x of another": set("x", other), "short d": set("d", "AA"), "padded": set("x", other+"="), "too large": append(good, bytes.Repeat([]byte(" "), maxJWK)...),
		"member twice": []byte(strings.Replace(string(good), `{`, `{"kty":"EC",`, 1)), "trailing": append(bytes.Clone(good), '{'),
	}
	for _, name := range slices.Sorted(maps.Keys(tests)) {
		k, err := ParseKey(tests[name])
		if !errors.Is(err, ErrKey) {
			t.Errorf("ParseKey(%s): got %v, %v; want ErrKey", name, k, err)
		}
		if err != nil && strings.Contains(err.Error(), other) {
			t.Errorf("ParseKey(%s): the error quotes the key: %v", name, err)
		}
	}
	if _, err := ParseKey(good); err != nil {
		t.Errorf("ParseKey(good): %v", err)
	}
}

func TestReadFolderRefuses(t *testing.T) {
	write := func(dir, name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tests := map[string]struct {
		want string
		make func(dir string)
	}{
		"empty":       {"no .jwk file", func(string) {}},
		"only others": {"no .jwk file", func(dir string) { write(dir, "README", "x") }},
		"one damaged": {"b.jwk: not a key", func(dir string) { add(t, dir, Sign, false); write(dir, "b.jwk", "{") }},
		"a folder":    {"c.jwk: not a regular file", func(dir string) { _ = os.Mkdir(filepath.Join(dir, "c.jwk"), 0o700) }},
		"twice": {"hold the same key", func(dir string) {
			b, _ := add(t, dir, Exchange, true).Marshal()
			write(dir, "again.jwk", string(b))
		}},
	}
	for name, tt := range tests {
		dir := t.TempDir()
		tt.make(dir)
		if keys, err := ReadFolder(dir); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("ReadFolder(%s): got %d keys, %v; want an error with %q", name, len(keys), err, tt.want)
		}
	}
}

// TestRotatedIsNotAdvertised: whatever hides a key in the folder hides it from who binds, never from who recovers.
func TestRotatedIsNotAdvertised(t *testing.T) {
	dir := tangFolder(t)
	hidden := add(t, dir, Exchange, true)
	r := ring(t, dir)
	b, err := r.Advertisement("")
	if err != nil {
		t.Fatal(err)
	}
	jws, err := jose.ParseSignedJSON(string(b), []jose.SignatureAlgorithm{jose.ES512})
	if err != nil {
		t.Fatal(err)
	}
	x, _ := encoded(hidden.public)
	if bytes.Contains(jws.UnsafePayloadWithoutVerification(), []byte(x)) {
		t.Error("Advertisement(): has a rotated key")
	}
	if r.Find(hidden.Thumbprint) == nil || r.Find(hidden.names[1]) == nil {
		t.Error("Find(rotated key): got none")
	}
}
