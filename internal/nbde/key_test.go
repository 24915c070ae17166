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

// key is one as tangd makes them.
func key(t testing.TB, use Use) *Key {
	t.Helper()
	k, err := generate(use, P521)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// on is an exchange key on a curve.
func on(t testing.TB, c Curve) *Key {
	t.Helper()
	k, err := NewKey(c)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// all are the curves, each with what the standard library has for it.
var all = map[Curve]ecdh.Curve{P256: ecdh.P256(), P384: ecdh.P384(), P521: ecdh.P521()}

// TestRecoverIsECDH: the abscissa is what the standard library's ECDH gives, and the point lies on the curve.
func TestRecoverIsECDH(t *testing.T) {
	for c, std := range all {
		for range 20 {
			server, client := on(t, c), on(t, c)
			got, err := server.Recover(client.public)
			if err != nil {
				t.Fatal(err)
			}
			private, err := std.NewPrivateKey(server.scalar)
			if err != nil {
				t.Fatal(err)
			}
			public, err := std.NewPublicKey(client.public)
			if err != nil {
				t.Fatal(err)
			}
			want, err := private.ECDH(public)
			if x := got[1 : 1+len(got)/2]; err != nil || !bytes.Equal(x, want) {
				t.Fatalf("%s: Recover(): x is %x, ECDH says %x, %v", c, x, want, err)
			}
			// The other way round gives the same point, not its mirror image.
			if mirror, err := client.Recover(server.public); err != nil || !bytes.Equal(mirror, got) {
				t.Fatalf("%s: Recover() from the other side: got %x, want %x, %v", c, mirror, got, err)
			}
		}
	}
}

// TestThumbprints compares with what jose prints.
func TestThumbprints(t *testing.T) {
	need(t, "jose")
	for c := range all {
		k := on(t, c)
		public, err := json.Marshal(k.jwk())
		if err != nil {
			t.Fatal(err)
		}
		for i, alg := range []string{"S256", "S1", "S224", "S384", "S512"} {
			cmd := exec.CommandContext(t.Context(), "jose", "jwk", "thp", "-i-", "-a", alg)
			cmd.Stdin = bytes.NewReader(public)
			want, err := cmd.Output()
			if err != nil || k.names[i] != string(want) {
				t.Errorf("%s, %s: got %s, jose says %s, %v", c, alg, k.names[i], want, err)
			}
		}
	}
}

// badPoints are what is no point of a curve, or is one that gives the private key away.
func badPoints(t testing.TB, c Curve) map[string][]byte {
	t.Helper()
	good := on(t, c).public
	size := len(good)
	field := size / 2
	flip := func(i int, bit byte) []byte {
		b := bytes.Clone(good)
		b[i] ^= bit
		return b
	}
	p := groups[c].curve().Params().P
	bad := map[string][]byte{
		"infinity": {0}, "nothing": {}, "zeros": make([]byte, size), "origin": append([]byte{4}, make([]byte, size-1)...),
		"off by a bit of x": flip(field, 1), "off by a bit of y": flip(size-1, 1), "compressed": append([]byte{2}, good[1:1+field]...),
		"form": flip(0, 2), "short": good[:size-1], "long": append(bytes.Clone(good), 0),
		"all ones": append([]byte{4}, bytes.Repeat([]byte{0xff}, size-1)...), "of another curve": on(t, map[bool]Curve{true: P384, false: P256}[c == P256]).public,
	}
	// x + p is the same point to who reduces it. Not every x + p fits into as many bytes.
	if x := new(big.Int).Add(new(big.Int).SetBytes(good[1:1+field]), p); x.BitLen() <= 8*field {
		grown := bytes.Clone(good)
		x.FillBytes(grown[1 : 1+field])
		bad["not reduced"] = grown
	}
	return bad
}

func TestRecoverRefuses(t *testing.T) {
	for c := range all {
		k := on(t, c)
		for name, point := range badPoints(t, c) {
			if got, err := k.Recover(point); err == nil {
				t.Errorf("%s: Recover(%s): got %x, want an error", c, name, got)
			}
		}
	}
	if _, err := key(t, Sign).Recover(key(t, Exchange).public); err == nil {
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
	zero := base64.RawURLEncoding.EncodeToString(make([]byte, 66))
	tests := map[string][]byte{
		"nothing": nil, "list": []byte("[]"), "public only": change(func(m map[string]any) { delete(m, "d") }),
		"other curve": set("crv", "P-256"), "curve nobody knows": set("crv", "secp256k1"), "other kind": set("kty", "oct"), "other alg": set("alg", "ES256"), "no alg": change(func(m map[string]any) { delete(m, "alg") }),
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
		"one damaged": {"b.jwk: not a key", func(dir string) { add(t, dir, key(t, Sign), false); write(dir, "b.jwk", "{") }},
		"a folder":    {"c.jwk: not a regular file", func(dir string) { _ = os.Mkdir(filepath.Join(dir, "c.jwk"), 0o700) }},
		"twice": {"hold the same key", func(dir string) {
			b, _ := add(t, dir, key(t, Exchange), true).Marshal()
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
	hidden := add(t, dir, key(t, Exchange), true)
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
