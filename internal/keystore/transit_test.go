package keystore

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// realTransit names a real server for these tests, "ADDRESS TOKEN" (http on loopback, a transit engine at transit/). Else they run against vault below.
const realTransit = "TOUCHSTONE_TEST_TRANSIT"

// vault is the documented API of the transit engine, as far as keys of type aes256-gcm96 go, with what a real server says of errors.
type vault struct {
	mu     sync.Mutex
	token  string
	sealed bool
	keys   map[string]*vaultKey
	// change, when set, changes what is said of a key.
	change func(k map[string]any)
}

type vaultKey struct {
	aead    cipher.AEAD
	deletes bool
}

func (v *vault) fail(w http.ResponseWriter, status int, said ...string) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": append([]string{}, said...)})
}

func (v *vault) say(w http.ResponseWriter, data map[string]any) {
	_ = json.NewEncoder(w).Encode(map[string]any{"request_id": "1", "lease_id": "", "data": data})
}

func newVaultKey() *vaultKey {
	raw := make([]byte, 32)
	_, _ = rand.Read(raw)
	block, _ := aes.NewCipher(raw)
	aead, _ := cipher.NewGCM(block)
	return &vaultKey{aead: aead}
}

// ServeHTTP answers.
func (v *vault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.sealed:
		v.fail(w, http.StatusServiceUnavailable, "Vault is sealed")
		return
	case r.Header.Get("X-Vault-Token") != v.token:
		v.fail(w, http.StatusForbidden, "permission denied")
		return
	}
	where, ok := strings.CutPrefix(r.URL.Path, "/v1/transit/")
	words := strings.Split(where, "/")
	if !ok || len(words) < 2 {
		v.fail(w, http.StatusNotFound, "no handler for route")
		return
	}
	var in struct {
		Type    string `json:"type"`
		Plain   []byte `json:"plaintext"`
		Cipher  string `json:"ciphertext"`
		AAD     []byte `json:"associated_data"`
		Deletes bool   `json:"deletion_allowed"`
	}
	if r.Method == http.MethodPost && json.NewDecoder(r.Body).Decode(&in) != nil {
		v.fail(w, http.StatusBadRequest, "error parsing JSON")
		return
	}
	k := v.keys[words[1]]
	switch what := r.Method + " " + words[0] + strings.Join(append([]string{""}, words[2:]...), "/"); {
	case what == "POST keys":
		if k == nil {
			v.keys[words[1]] = newVaultKey()
		}
		w.WriteHeader(http.StatusNoContent)
	case what == "GET keys" && k == nil:
		v.fail(w, http.StatusNotFound)
	case what == "GET keys":
		data := map[string]any{"name": words[1], "type": transitType, "exportable": false, "derived": false}
		if v.change != nil {
			v.change(data)
		}
		v.say(w, data)
	case what == "POST encrypt":
		if k == nil { // as a policy with the right to create does
			k = newVaultKey()
			v.keys[words[1]] = k
		}
		nonce := make([]byte, k.aead.NonceSize())
		_, _ = rand.Read(nonce)
		v.say(w, map[string]any{"ciphertext": "vault:v1:" + base64.StdEncoding.EncodeToString(k.aead.Seal(nonce, nonce, in.Plain, in.AAD)), "key_version": 1})
	case k == nil:
		v.fail(w, http.StatusBadRequest, "encryption key not found")
	case what == "POST decrypt":
		v.decrypt(w, k, in.Cipher, in.AAD)
	case what == "POST keys/config":
		k.deletes = in.Deletes
		w.WriteHeader(http.StatusNoContent)
	case what == "DELETE keys" && !k.deletes:
		v.fail(w, http.StatusBadRequest, "error deleting policy "+words[1]+": deletion is not allowed for this key")
	case what == "DELETE keys":
		delete(v.keys, words[1])
		w.WriteHeader(http.StatusNoContent)
	default:
		v.fail(w, http.StatusMethodNotAllowed, "unsupported operation")
	}
}

func (v *vault) decrypt(w http.ResponseWriter, k *vaultKey, text string, aad []byte) {
	if strings.HasPrefix(text, "vault:v0:") { // of the first version of the engine, which counted from 0
		text = strings.Replace(text, "v0", "v1", 1)
	}
	b, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(text, "vault:v1:"))
	if !strings.HasPrefix(text, "vault:v1:") || err != nil || len(b) < k.aead.NonceSize() {
		v.fail(w, http.StatusBadRequest, "invalid ciphertext: no prefix")
		return
	}
	plain, err := k.aead.Open(nil, b[:k.aead.NonceSize()], b[k.aead.NonceSize():], aad)
	if err != nil {
		v.fail(w, http.StatusBadRequest, "cipher: message authentication failed")
		return
	}
	v.say(w, map[string]any{"plaintext": base64.StdEncoding.EncodeToString(plain)})
}

// transitAt is the configuration for a server.
func transitAt(t testing.TB, address, token string) Config {
	t.Helper()
	return Config{Source: Source{Transit: &Transit{Address: address, TokenFile: writeFile(t, filepath.Join(t.TempDir(), "token"), token+"\n")}}}
}

// TestTransit: a ring under keys in the server, rotated, moved to from a file, and held against what is damaged or elsewhere.
func TestTransit(t *testing.T) {
	v := &vault{token: "a token", keys: map[string]*vaultKey{}}
	s := httptest.NewServer(v)
	defer s.Close()
	address, token := s.URL, v.token
	if at := os.Getenv(realTransit); at != "" {
		address, token, _ = strings.Cut(at, " ")
	}
	c := transitAt(t, address, token)
	rotateThrough(t, c, c)
	file := Source{File: filepath.Join(t.TempDir(), "key")}
	moved := c
	moved.Older = []Source{file}
	rotateThrough(t, Config{Source: file}, moved)

	ctx, m := context.Background(), &memory{}
	r := mustOpen(t, c, m)
	sealed := mustWrap(t, r, "secret", "place")
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if got, err := r.Unwrap(ctx, bad, []byte("place")); !errors.Is(err, ErrSealed) && !errors.Is(err, ErrUnknownKey) {
			t.Fatalf("Unwrap() with byte %d changed: got %q, %v", i, got, err)
		}
	}
	if _, err := r.Unwrap(ctx, sealed, []byte("other")); !errors.Is(err, ErrSealed) {
		t.Errorf("Unwrap() elsewhere: got %v, want %v", err, ErrSealed)
	}
	k := r.current.(*transitKey)
	if _, err := k.Unwrap(ctx, []byte("vault:v1:AAAA"), nil); !errors.Is(err, ErrSealed) {
		t.Errorf("Unwrap() of what is no ciphertext: got %v, want %v", err, ErrSealed)
	}
	// Another token in the file is used at once; a bad one says what is wrong.
	writeFile(t, c.Transit.TokenFile, "another")
	if _, err := r.Unwrap(ctx, sealed, []byte("place")); err == nil || !strings.Contains(err.Error(), "the token is not valid") {
		t.Errorf("Unwrap() with a bad token: got %v", err)
	}
	if _, err := Open(ctx, c, m); err == nil || !strings.Contains(err.Error(), "the token is not valid") {
		t.Errorf("Open() with a bad token: got %v", err)
	}
	writeFile(t, c.Transit.TokenFile, token)
	canOpen(t, c, m, sealed)
	if err := k.source.retire(ctx, []record{{ID: k.id}, {ID: "file:00"}}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Unwrap(ctx, []byte("vault:v1:AAAA"), nil); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("Unwrap() by a key that is gone: got %v, want %v", err, ErrUnknownKey)
	}
	if _, err := Open(ctx, c, m); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("Open() when the key is gone: got %v, want %v", err, ErrUnknownKey)
	}
}

// TestTransitRefuses: servers that are sealed, send elsewhere, answer nonsense, or have keys that can leave them.
func TestTransitRefuses(t *testing.T) {
	ctx := context.Background()
	v := &vault{token: "a token", keys: map[string]*vaultKey{}}
	s := httptest.NewServer(v)
	defer s.Close()
	c, m := transitAt(t, s.URL, v.token), &memory{}
	mustOpen(t, c, m)
	for name, change := range map[string]func(map[string]any){
		"exportable": func(k map[string]any) { k["exportable"] = true }, "not said": func(k map[string]any) { delete(k, "exportable") },
		"derived": func(k map[string]any) { k["derived"] = true }, "other type": func(k map[string]any) { k["type"] = "rsa-4096" },
	} {
		v.change = change
		if _, err := Open(ctx, c, m); err == nil || !strings.Contains(err.Error(), "stays in the server") {
			t.Errorf("%s: Open(): got %v, want that the key is not as wanted", name, err)
		}
		if _, err := Open(ctx, c, &memory{}); err == nil {
			t.Errorf("%s: Open() with a new key: got no error", name)
		}
	}
	v.change, v.sealed = nil, true
	if _, err := Open(ctx, c, m); err == nil || !strings.Contains(err.Error(), "sealed") {
		t.Errorf("Open() at a sealed server: got %v", err)
	}
	stolen := make(chan string, 10)
	thief := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { stolen <- r.Header.Get("X-Vault-Token") }))
	defer thief.Close()
	for name, h := range map[string]http.HandlerFunc{
		"elsewhere": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, thief.URL, http.StatusTemporaryRedirect)
		},
		"nonsense": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) },
		"nothing":  func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) },
		"endless":  func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(bytes.Repeat([]byte(" "), 1<<20)) },
	} {
		other := httptest.NewServer(h)
		if r, err := Open(ctx, transitAt(t, other.URL, v.token), &memory{}); err == nil {
			t.Errorf("%s: Open(): got %v, want an error", name, r.Keys())
		}
		src, err := openTransit(*transitAt(t, other.URL, v.token).Transit)
		if err != nil {
			t.Fatal(err)
		}
		k := &transitKey{source: src.(*transitSource), name: "k"}
		if b, err := k.Wrap(ctx, []byte("x"), nil); err == nil {
			t.Errorf("%s: Wrap(): got %q, want an error", name, b)
		}
		if b, err := k.Unwrap(ctx, []byte("vault:v1:AAAA"), nil); err == nil {
			t.Errorf("%s: Unwrap(): got %q, want an error", name, b)
		}
		other.Close()
	}
	select {
	case token := <-stolen:
		t.Errorf("a redirect got the token %q", token)
	default:
	}
}

// TestTransitTLS: the server must have a certificate of the CA that is named.
func TestTransitTLS(t *testing.T) {
	v := &vault{token: "a token", keys: map[string]*vaultKey{}}
	s := httptest.NewTLSServer(v)
	defer s.Close()
	c := transitAt(t, s.URL, v.token)
	if _, err := Open(context.Background(), c, &memory{}); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("Open() at a server of an unknown CA: got %v", err)
	}
	c.Transit.CAFile = writeFile(t, filepath.Join(t.TempDir(), "ca"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
	rotateThrough(t, c, c)
}

func TestTransitConfig(t *testing.T) {
	for name, x := range map[string]struct {
		c  Transit
		ok bool
	}{
		"https":         {Transit{Address: "https://vault.example:8200", TokenFile: "t"}, true},
		"this machine":  {Transit{Address: "http://127.0.0.1:8200", TokenFile: "t", Mount: "kms/transit", Key: "site-a"}, true},
		"plain":         {Transit{Address: "http://vault.example:8200", TokenFile: "t"}, false},
		"no address":    {Transit{TokenFile: "t"}, false},
		"with a path":   {Transit{Address: "https://vault.example/x", TokenFile: "t"}, false},
		"with a secret": {Transit{Address: "https://a:b@vault.example", TokenFile: "t"}, false},
		"no token":      {Transit{Address: "https://vault.example"}, false},
		"up":            {Transit{Address: "https://vault.example", TokenFile: "t", Mount: "../sys"}, false},
		"query":         {Transit{Address: "https://vault.example", TokenFile: "t", Key: "a?b"}, false},
	} {
		if err := (Config{Source: Source{Transit: &x.c}}).Validate(); (err == nil) != x.ok {
			t.Errorf("%s: Validate(): got %v, want ok %v", name, err, x.ok)
		}
	}
}
