package assettag

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/tpm/softtpm"
)

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func sample() *Document {
	return &Document{
		Node: "worker-1", EK: [32]byte{1, 2, 3}, Serial: 7, Issued: time.Date(2026, 11, 24, 6, 0, 0, 0, time.UTC),
		Tags: map[string]string{"country": "de", "site": "muc"},
	}
}

func TestSignParseVerify(t *testing.T) {
	key, doc := newKey(t), sample()
	b, err := doc.Sign(key)
	if err != nil {
		t.Fatalf("Sign: %v", err)
	}
	r, err := Parse(b)
	if err != nil {
		t.Fatalf("Parse: %v", err)
	}
	if err := r.Verify(&key.PublicKey); err != nil {
		t.Errorf("Verify: %v", err)
	}
	if len(b) != Size || r.Serial != 7 || !r.Issued.Equal(doc.Issued) || !r.IsFor("worker-1", doc.EK) || !r.Holds(doc.Tags) {
		t.Errorf("Parse(Sign): got %+v of %d bytes", r, len(b))
	}
	if r.IsFor("worker-2", doc.EK) || r.IsFor("worker-1", [32]byte{1}) || r.Holds(map[string]string{"country": "de"}) {
		t.Errorf("record is for another node or other tags: %+v", r)
	}
	if err := r.Verify(&newKey(t).PublicKey); !errors.Is(err, ErrSignature) {
		t.Errorf("Verify by another key: got %v, want %v", err, ErrSignature)
	}
	if err := r.Verify(nil); !errors.Is(err, ErrSignature) {
		t.Errorf("Verify without a key: got %v, want %v", err, ErrSignature)
	}
	for i := range b { // whatever bit is changed
		c := bytes.Clone(b)
		c[i] ^= 0x10
		if r, err := Parse(c); err == nil && r.Verify(&key.PublicKey) == nil {
			t.Errorf("record with byte %d changed is accepted", i)
		}
	}
	for n := range b {
		if _, err := Parse(b[:n]); !errors.Is(err, ErrForm) {
			t.Errorf("Parse(first %d bytes): got %v, want %v", n, err, ErrForm)
		}
	}
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if _, err := doc.Sign(p384); err == nil {
		t.Error("Sign by a key on P-384: got nil")
	}
}

// Sets that a careless encoding would take for one another have different digests.
func TestDigestIsUnambiguous(t *testing.T) {
	sets := []map[string]string{{"a": "bc"}, {"ab": "c"}, {"a": "b", "c": "d"}, {"a": "bcd"}, {"a": "d", "c": "b"}}
	seen := map[[32]byte]int{}
	for i, s := range sets {
		if j, ok := seen[digest(s)]; ok {
			t.Errorf("sets %v and %v have one digest", s, sets[j])
		}
		seen[digest(s)] = i
	}
}

func TestValidate(t *testing.T) {
	many := map[string]string{}
	for i := range MaxTags {
		many[fmt.Sprint("n", i)] = "v"
	}
	more := maps.Clone(many)
	more["one-more"] = "v"
	for _, tt := range []struct {
		name string
		tags map[string]string
		ok   bool
	}{
		{"usual", map[string]string{"country": "de", "site": "muc-2", "owner": "Team_A.b"}, true},
		{"as many as possible", many, true},
		{"as long as possible", map[string]string{strings.Repeat("n", MaxName): strings.Repeat("V", MaxValue)}, true},
		{"one letter", map[string]string{"n": "v"}, true},
		{"none", nil, false},
		{"too many", more, false},
		{"long name", map[string]string{strings.Repeat("n", MaxName+1): "v"}, false},
		{"long value", map[string]string{"n": strings.Repeat("v", MaxValue+1)}, false},
		{"empty name", map[string]string{"": "v"}, false},
		{"empty value", map[string]string{"n": ""}, false},
		{"upper case name", map[string]string{"Country": "de"}, false},
		{"name with a dot", map[string]string{"a.b": "v"}, false},
		{"name begins with -", map[string]string{"-a": "v"}, false},
		{"name ends with -", map[string]string{"a-": "v"}, false},
		{"value ends with .", map[string]string{"a": "v."}, false},
		{"value with a space", map[string]string{"a": "v w"}, false},
		{"value with a line end", map[string]string{"a": "v\n"}, false},
		{"value not in ASCII", map[string]string{"a": "zürich"}, false},
	} {
		if err := Validate(tt.tags); (err == nil) != tt.ok || err != nil && !errors.Is(err, ErrTags) {
			t.Errorf("Validate(%s): got %v, want accepted %v", tt.name, err, tt.ok)
		}
	}
}

func TestCheckIndex(t *testing.T) {
	good := Attributes
	for _, tt := range []struct {
		name       string
		index      uint32
		attributes uint32
		size       int
		ok         bool
	}{
		{"default", DefaultIndex, good, Size, true},
		{"last", LastIndex, good, Size, true},
		{"of the platform", 0x01c00002, good, Size, false},
		{"below", FirstIndex - 1, good, Size, false},
		{"written by its own authorization", DefaultIndex, good | 1<<2, Size, false},
		{"kept in RAM", DefaultIndex, good | 1<<26, Size, false},
		{"write locked", DefaultIndex, good | 1<<11, Size, false},
		{"a counter", DefaultIndex, good | 1<<4, Size, false},
		{"written in parts", DefaultIndex, good &^ tpm.NVWriteAll, Size, false},
		{"too small", DefaultIndex, good, Size - 1, false},
	} {
		p, err := tpm.ParseNVPublic(softtpm.NVPublic(tt.index, tt.attributes, tt.size))
		if err != nil {
			t.Fatal(err)
		}
		if err := CheckIndex(p); (err == nil) != tt.ok {
			t.Errorf("CheckIndex, %s: got %v, want accepted %v", tt.name, err, tt.ok)
		}
		p.AuthPolicy = []byte{1}
		if err := CheckIndex(p); err == nil {
			t.Errorf("CheckIndex, %s with a policy: got nil", tt.name)
		}
		p.AuthPolicy, p.Attributes = nil, p.Attributes&^tpm.NVWritten
		if err := CheckIndex(p); err == nil {
			t.Errorf("CheckIndex, %s never written: got nil", tt.name)
		}
	}
}

func TestCommonAndText(t *testing.T) {
	got := Common(map[string]string{"a": "1", "b": "2", "c": "3"}, map[string]string{"a": "1", "b": "3", "d": "4"})
	if Text(got) != "a=1" {
		t.Errorf("Common: got %v, want a=1", got)
	}
	if got := Common(map[string]string{"a": "1"}, nil); got != nil {
		t.Errorf("Common with nothing: got %v, want nil", got)
	}
	if got := Text(map[string]string{"site": "muc", "country": "de"}); got != "country=de, site=muc" {
		t.Errorf("Text: got %q", got)
	}
}

func FuzzParse(f *testing.F) {
	key := newKey(f)
	b, err := sample().Sign(key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Parse(b)
		if err != nil {
			return
		}
		if r.Verify(&key.PublicKey) == nil && !(r.IsFor("worker-1", sample().EK) && r.Serial == 7 && r.Holds(sample().Tags)) {
			t.Errorf("Parse(%x): accepted a record that nobody signed", b)
		}
	})
}
