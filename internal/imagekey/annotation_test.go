package imagekey

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
)

var (
	testKey    = bytes.Repeat([]byte{1}, KeySize)
	otherKey   = bytes.Repeat([]byte{2}, KeySize)
	digestA    = "sha256:" + strings.Repeat("a", 64)
	digestB    = "sha256:" + strings.Repeat("b", 64)
	idA        = "ik-" + strings.Repeat("a", 26)
	idB        = "ik-" + strings.Repeat("b", 26)
	theOptions = []byte(`{"symkey":"c2VjcmV0"}`)
)

func sealed(t testing.TB) []byte {
	t.Helper()
	b, err := Seal(testKey, Annotation{Key: idA, Layer: digestA, Plain: digestB}, theOptions)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestIDs(t *testing.T) {
	for in, want := range map[string]string{
		idA: idA, "kbs:///a/b/c": "kbs:///a/b/c", "kbs://evil.example:8080/repo/key/one": "kbs:///repo/key/one",
	} {
		if got, err := ParseID(in); err != nil || got != want {
			t.Errorf("ParseID(%q): got %q, %v, want %q", in, got, err, want)
		}
	}
	for _, bad := range []string{
		"", "ik-", idA + "a", strings.ToUpper(idA), "https://evil.example/a/b/c", "kbs://a/b", "kbs:///a/b/c/d", "kbs:///../b/c", "kbs:///a/b/c?x", "kbs:///a//c",
		"kbs://" + strings.Repeat("x", 600) + "/a/b/c", "kbs:///a/b/\x00", idA + "\n",
	} {
		if got, err := ParseID(bad); !errors.Is(err, ErrID) {
			t.Errorf("ParseID(%q): got %q, %v, want %v", bad, got, err, ErrID)
		}
	}
	if id, err := ParseID(NewID()); err != nil || Imported(id) {
		t.Errorf("NewID(): got %q, %v", id, err)
	}
}

// TestAnnotation: whatever in an annotation is changed, it does not open, and no other key opens it.
func TestAnnotation(t *testing.T) {
	b := sealed(t)
	o, key, plain, err := Read(b)
	if err != nil || key != idA || plain != digestB {
		t.Fatalf("Read(): got key %q, plain %q, %v", key, plain, err)
	}
	if got, err := o.Open(testKey); err != nil || !bytes.Equal(got, theOptions) {
		t.Errorf("Open(): got %q, %v", got, err)
	}
	if got, err := o.Open(otherKey); !errors.Is(err, ErrDecrypt) {
		t.Errorf("Open() by another key: got %q, %v, want %v", got, err, ErrDecrypt)
	}
	for name, change := range map[string]func(*Annotation){
		"another key ID":      func(a *Annotation) { a.Key = idB },
		"another layer":       func(a *Annotation) { a.Layer = digestB },
		"another plain layer": func(a *Annotation) { a.Plain = digestA },
		"no layer":            func(a *Annotation) { a.Layer = "" },
		"layers swapped":      func(a *Annotation) { a.Layer, a.Plain = a.Plain, a.Layer },
		"nonce":               func(a *Annotation) { a.Nonce[0] ^= 1 },
		"short nonce":         func(a *Annotation) { a.Nonce = a.Nonce[1:] },
		"no nonce":            func(a *Annotation) { a.Nonce = nil },
		"no data":             func(a *Annotation) { a.Data = nil },
	} {
		a, err := Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		change(a)
		if got, err := a.Open(testKey); !errors.Is(err, ErrDecrypt) {
			t.Errorf("%s: Open(): got %q, %v, want %v", name, got, err, ErrDecrypt)
		}
	}
	for i := range theOptions {
		a, _ := Parse(b)
		a.Data[i] ^= 0x80
		if _, err := a.Open(testKey); !errors.Is(err, ErrDecrypt) {
			t.Errorf("Open() with byte %d flipped: got %v", i, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "no object": "[]", "version": `{"v":2,"key":"` + idA + `","nonce":"","data":""}`, "no version": `{"key":"` + idA + `"}`,
		"unknown field": `{"v":1,"key":"` + idA + `","server":"https://evil.example"}`, "no key": `{"v":1}`, "URL": `{"v":1,"key":"https://evil.example/"}`,
		"key with server": `{"v":1,"key":"kbs://evil.example/a/b/c"}`, "digest": `{"v":1,"key":"` + idA + `","layer":"sha256:x"}`, "two": `{"v":1,"key":"` + idA + `"}{}`,
		"large": `{"v":1,"key":"` + idA + `","data":"` + strings.Repeat("A", MaxAnnotation) + `"}`,
	} {
		if _, _, _, err := Read([]byte(text)); !errors.Is(err, ErrAnnotation) {
			t.Errorf("Read(%s): got %v, want %v", name, err, ErrAnnotation)
		}
	}
	for name, a := range map[string]Annotation{"no key": {}, "digest": {Key: idA, Layer: "x"}} {
		if _, err := Seal(testKey, a, theOptions); !errors.Is(err, ErrAnnotation) {
			t.Errorf("Seal(%s): got %v, want %v", name, err, ErrAnnotation)
		}
	}
	for _, options := range [][]byte{nil, make([]byte, MaxOptions+1)} {
		if _, err := Seal(testKey, Annotation{Key: idA}, options); !errors.Is(err, ErrAnnotation) {
			t.Errorf("Seal() of %d bytes: got %v, want %v", len(options), err, ErrAnnotation)
		}
	}
	if _, err := Seal(testKey[1:], Annotation{Key: idA}, theOptions); err == nil {
		t.Error("Seal() under a short key: got no error")
	}
}

// packet is an annotation as CoCo's tools write it.
func packet(kid, kind string, iv, wrapped []byte, enc *base64.Encoding) []byte {
	return fmt.Appendf(nil, `{"kid":%q,"wrapped_data":%q,"iv":%q,"wrap_type":%q,"provider":"x"}`, kid, enc.EncodeToString(wrapped), enc.EncodeToString(iv), kind)
}

func TestPacket(t *testing.T) {
	block, err := aes.NewCipher(testKey)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	iv12, iv16 := random(12), random(16)
	ctr := make([]byte, len(theOptions))
	cipher.NewCTR(block, iv16).XORKeyStream(ctr, theOptions)
	for name, b := range map[string][]byte{
		"GCM":                           packet("kbs:///default/key/1", wrapGCM, iv12, aead.Seal(nil, iv12, theOptions, nil), base64.StdEncoding),
		"GCM with a server, no padding": packet("kbs://kbs.example:8080/default/key/1", wrapGCM, iv12, aead.Seal(nil, iv12, theOptions, nil), base64.RawStdEncoding),
		"CTR":                           packet("kbs:///default/key/1", wrapCTR, iv16, ctr, base64.StdEncoding),
	} {
		o, key, plain, err := Read(b)
		if err != nil || key != "kbs:///default/key/1" || plain != "" {
			t.Errorf("%s: Read(): got key %q, %q, %v", name, key, plain, err)
			continue
		}
		if got, err := o.Open(testKey); err != nil || !bytes.Equal(got, theOptions) {
			t.Errorf("%s: Open(): got %q, %v", name, got, err)
		}
		if _, err := o.Open(otherKey); !errors.Is(err, ErrDecrypt) {
			t.Errorf("%s: Open() by another key: got %v, want %v", name, err, ErrDecrypt)
		}
	}
	gcm := aead.Seal(nil, iv12, theOptions, nil)
	gcm[3] ^= 1
	for name, b := range map[string][]byte{
		"flipped bit": packet("kbs:///default/key/1", wrapGCM, iv12, gcm, base64.StdEncoding),
		"short IV":    packet("kbs:///default/key/1", wrapGCM, iv12[1:], gcm, base64.StdEncoding),
		"CTR, short":  packet("kbs:///default/key/1", wrapCTR, iv12, ctr, base64.StdEncoding),
		"large":       packet("kbs:///default/key/1", wrapGCM, iv12, make([]byte, 2*MaxOptions), base64.StdEncoding),
	} {
		o, _, _, err := Read(b)
		if err != nil {
			t.Errorf("%s: Read(): %v", name, err)
			continue
		}
		if got, err := o.Open(testKey); !errors.Is(err, ErrDecrypt) {
			t.Errorf("%s: Open(): got %q, %v, want %v", name, got, err, ErrDecrypt)
		}
	}
	for name, b := range map[string][]byte{
		"wrap type": packet("kbs:///default/key/1", "A128KW", iv12, gcm, base64.StdEncoding),
		"URL":       packet("https://evil.example/a/b/c", wrapGCM, iv12, gcm, base64.StdEncoding),
		"base64":    []byte(`{"kid":"kbs:///a/b/c","wrapped_data":"*","iv":"","wrap_type":"A256GCM"}`),
		"kid":       []byte(`{"kid":""}`),
	} {
		if _, _, _, err := Read(b); !errors.Is(err, ErrAnnotation) {
			t.Errorf("%s: Read(): got %v, want %v", name, err, ErrAnnotation)
		}
	}
}

// FuzzRead: nothing opens but what was sealed, and nothing panics.
func FuzzRead(f *testing.F) {
	f.Add(sealed(f))
	f.Add(packet("kbs:///default/key/1", wrapGCM, make([]byte, 12), make([]byte, 40), base64.StdEncoding))
	f.Add([]byte(`{"kid":"kbs:///a/b/c","wrapped_data":"","iv":"","wrap_type":"A256CTR"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, key, _, err := Read(b)
		if err != nil {
			return
		}
		if id, err := ParseID(key); err != nil || id != key {
			t.Errorf("Read(%q): key %q", b, key)
		}
		if p, ok := o.(*Packet); ok && p.Kind == wrapCTR {
			return // it does not authenticate: the MAC over the layer does
		}
		if got, err := o.Open(otherKey); err == nil {
			t.Errorf("Open(%q): got %q", b, got)
		}
		if a, ok := o.(*Annotation); ok {
			again, err := json.Marshal(a)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Parse(again); err != nil && len(again) <= MaxAnnotation {
				t.Errorf("Parse(%q) again: %v", again, err)
			}
		}
	})
}
