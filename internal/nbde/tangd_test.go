package nbde

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"
)

// blinded is the body of a recovery, with changes to its members.
func blinded(t testing.TB, c Curve, change map[string]any) []byte {
	t.Helper()
	k, err := NewKey(c)
	if err != nil {
		t.Fatal(err)
	}
	x, y := encoded(k.public)
	m := map[string]any{"alg": "ECMR", "kty": "EC", "crv": string(c), "x": x, "y": y}
	for name, v := range change {
		if m[name] = v; v == nil {
			delete(m, name)
		}
	}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestAnswersLikeTangd sends the same requests to Debian's tangd and to ours, over the same folder of keys.
func TestAnswersLikeTangd(t *testing.T) {
	dir := tangFolder(t)
	hiddenSign, hidden := add(t, dir, key(t, Sign), true), add(t, dir, key(t, Exchange), true)
	small, middle := add(t, dir, on(t, P256), true), add(t, dir, on(t, P384), true)
	keys, err := ReadFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	var sign, exchange *Key
	for _, k := range keys {
		switch {
		case !k.Rotated && k.Use == Sign:
			sign = k.Key
		case !k.Rotated:
			exchange = k.Key
		}
	}
	good := blinded(t, P521, nil)
	off := strings.Repeat("A", 87) + "E" // a coordinate that is on no curve with another's
	type ask struct {
		method, path string
		body         []byte
	}
	asks := map[string]ask{
		"advertisement":                 {"GET", "/adv", nil},
		"slash at the end":              {"GET", "/adv/", nil},
		"slashes":                       {"GET", "///adv/", nil},
		"slashes at the end":            {"GET", "/adv//", nil},
		"by thumbprint":                 {"GET", "/adv/" + sign.Thumbprint, nil},
		"by thumbprint, slashes":        {"GET", "//adv//" + sign.Thumbprint, nil},
		"by thumbprint, slash":          {"GET", "/adv/" + sign.Thumbprint + "/", nil},
		"by an exchange key":            {"GET", "/adv/" + exchange.Thumbprint, nil},
		"by a rotated key":              {"GET", "/adv/" + hiddenSign.Thumbprint, nil},
		"by nothing known":              {"GET", "/adv/" + strings.Repeat("A", 43), nil},
		"by what is no thumbprint":      {"GET", "/adv/a.b", nil},
		"with a query":                  {"GET", "/adv?a=b", nil},
		"posted":                        {"POST", "/adv", good},
		"deleted":                       {"DELETE", "/adv", nil},
		"root":                          {"GET", "/", nil},
		"longer word":                   {"GET", "/advert", nil},
		"recovery":                      {"POST", "/rec/" + exchange.Thumbprint, good},
		"recovery, slashes":             {"POST", "//rec///" + exchange.Thumbprint, good},
		"recovery, slash at the end":    {"POST", "/rec/" + exchange.Thumbprint + "/", good},
		"recovery by a rotated key":     {"POST", "/rec/" + hidden.Thumbprint, good},
		"recovery on P-256":             {"POST", "/rec/" + small.Thumbprint, blinded(t, P256, nil)},
		"recovery on P-384":             {"POST", "/rec/" + middle.Thumbprint, blinded(t, P384, nil)},
		"a point of P-256 for P-521":    {"POST", "/rec/" + exchange.Thumbprint, blinded(t, P256, nil)},
		"a point of P-521 for P-256":    {"POST", "/rec/" + small.Thumbprint, good},
		"recovery by a signing key":     {"POST", "/rec/" + sign.Thumbprint, good},
		"recovery by nothing known":     {"POST", "/rec/" + strings.Repeat("A", 43), good},
		"recovery by nothing":           {"POST", "/rec/", good},
		"recovery by nothing, no slash": {"POST", "/rec", good},
		"recovery read":                 {"GET", "/rec/" + exchange.Thumbprint, nil},
		"no body":                       {"POST", "/rec/" + exchange.Thumbprint, nil},
		"no JSON":                       {"POST", "/rec/" + exchange.Thumbprint, []byte("{")},
		"JSON list":                     {"POST", "/rec/" + exchange.Thumbprint, []byte("[]")},
		"no alg":                        {"POST", "/rec/" + exchange.Thumbprint, blinded(t, P521, map[string]any{"alg": nil})},
		"other alg":                     {"POST", "/rec/" + exchange.Thumbprint, blinded(t, P521, map[string]any{"alg": "ES512"})},
		"no kty":                        {"POST", "/rec/" + exchange.Thumbprint, blinded(t, P521, map[string]any{"kty": nil})},
		"other kty":                     {"POST", "/rec/" + exchange.Thumbprint, blinded(t, P521, map[string]any{"kty": "RSA"})},
		"other curve":                   {"POST", "/rec/" + exchange.Thumbprint, blinded(t, P521, map[string]any{"crv": "P-256"})},
		"no curve":                      {"POST", "/rec/" + exchange.Thumbprint, blinded(t, P521, map[string]any{"crv": nil})},
		"no y":                          {"POST", "/rec/" + exchange.Thumbprint, blinded(t, P521, map[string]any{"y": nil})},
		"off the curve":                 {"POST", "/rec/" + exchange.Thumbprint, blinded(t, P521, map[string]any{"x": off})},
		"infinity":                      {"POST", "/rec/" + exchange.Thumbprint, blinded(t, P521, map[string]any{"x": "", "y": ""})},
		"key_ops that fit":              {"POST", "/rec/" + exchange.Thumbprint, blinded(t, P521, map[string]any{"key_ops": []string{"deriveKey"}})},
		"key_ops that do not":           {"POST", "/rec/" + exchange.Thumbprint, blinded(t, P521, map[string]any{"key_ops": []string{"verify"}})},
		"unknown member":                {"POST", "/rec/" + exchange.Thumbprint, blinded(t, P521, map[string]any{"more": 1})},
		"too large":                     {"POST", "/rec/" + exchange.Thumbprint, append(bytes.Repeat([]byte(" "), 70<<10), good...)},
	}
	for name, sum := range map[string]int{"S256": 0, "S1": 1, "S224": 2, "S384": 3, "S512": 4} {
		asks["advertisement by "+name] = ask{"GET", "/adv/" + sign.names[sum], nil}
		asks["recovery by "+name] = ask{"POST", "/rec/" + exchange.names[sum], good}
	}
	theirs, ours := realTang(t, dir), serve(t, open(t, dir))
	for _, name := range slices.Sorted(maps.Keys(asks)) {
		a := asks[name]
		want, got := raw(t, theirs, a.method, a.path, a.body), raw(t, ours, a.method, a.path, a.body)
		if got.status != want.status {
			t.Errorf("%s: %s %s: got %d, tangd says %d", name, a.method, a.path, got.status, want.status)
			continue
		}
		if want.status != http.StatusOK {
			if len(got.body) != 0 {
				t.Errorf("%s: a refusal says %q, want nothing", name, got.body)
			}
			continue
		}
		if got.kind != want.kind {
			t.Errorf("%s: Content-Type %q, tangd says %q", name, got.kind, want.kind)
		}
		if a.method == http.MethodPost {
			same(t, name, want.body, got.body)
			continue
		}
		if strings.HasPrefix(name, "by thumbprint") || strings.HasPrefix(name, "advertisement by") {
			// Asked by a key that signs anyway, tangd signs with that one twice. Once is enough.
			want = raw(t, theirs, http.MethodGet, "/adv", nil)
		}
		sameAdvertisement(t, name, want.body, got.body)
	}
}

// same compares two JSON documents.
func same(t *testing.T, name string, want, got []byte) {
	t.Helper()
	var a, b any
	if err := json.Unmarshal(want, &a); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(got, &b); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	if diff := cmp.Diff(a, b); diff != "" {
		t.Errorf("%s: differs (-tangd +ours):\n%s", name, diff)
	}
}

// sameAdvertisement compares form, payload and signers of two advertisements: their signatures never are the same bytes.
func sameAdvertisement(t *testing.T, name string, want, got []byte) {
	t.Helper()
	members := func(b []byte) []string {
		var m map[string]json.RawMessage
		if err := json.Unmarshal(b, &m); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return slices.Sorted(maps.Keys(m))
	}
	if diff := cmp.Diff(members(want), members(got)); diff != "" {
		t.Errorf("%s: members differ (-tangd +ours):\n%s", name, diff)
	}
	wantKeys, wantHeads, wantSigners := opened(t, want)
	gotKeys, gotHeads, gotSigners := opened(t, got)
	if diff := cmp.Diff([]any{wantKeys, wantHeads, wantSigners}, []any{gotKeys, gotHeads, gotSigners}); diff != "" {
		t.Errorf("%s: advertisement differs (-tangd +ours):\n%s", name, diff)
	}
}

// opened verifies every signature of an advertisement that a key in it made, and returns its keys and heads, sorted, and how many signatures were
// verified and not.
func opened(t *testing.T, b []byte) (keys, heads []string, signers [2]int) {
	t.Helper()
	jws, err := jose.ParseSignedJSON(string(b), []jose.SignatureAlgorithm{jose.ES512})
	if err != nil {
		t.Fatal(err)
	}
	var set struct {
		Keys []map[string]any `json:"keys"`
	}
	if err := json.Unmarshal(jws.UnsafePayloadWithoutVerification(), &set); err != nil {
		t.Fatal(err)
	}
	for _, s := range jws.Signatures {
		heads = append(heads, s.Protected.Algorithm+" "+s.Protected.ExtraHeaders["cty"].(string))
	}
	known := 0
	for _, k := range set.Keys {
		one, _ := json.Marshal(k)
		keys = append(keys, string(one))
		if k["alg"] != string(Sign) {
			continue
		}
		var j jwk
		if err := json.Unmarshal(one, &j); err != nil {
			t.Fatal(err)
		}
		point, err := j.point()
		if err != nil {
			t.Fatal(err)
		}
		public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P521(), point)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, _, err := jws.VerifyMulti(public); err == nil {
			known++
		}
	}
	slices.Sort(keys)
	slices.Sort(heads)
	return keys, heads, [2]int{known, len(jws.Signatures) - known}
}
