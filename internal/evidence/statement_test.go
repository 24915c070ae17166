package evidence

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func someStatement() *Statement {
	return &Statement{
		Audit:      &AuditStatement{Chain: bytes.Repeat([]byte{1}, 16), Seq: 7, Head: bytes.Repeat([]byte{2}, 32), BootID: "b", Enabled: 2, PID: 12, Lost: 3},
		Compliance: map[string][]byte{"baseline": bytes.Repeat([]byte{3}, 32)},
	}
}

func TestStatement(t *testing.T) {
	want := someStatement()
	b, err := EncodeStatement(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeStatement(b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for name, change := range map[string]func(*Statement){
		"short chain": func(s *Statement) { s.Audit.Chain = nil }, "short head": func(s *Statement) { s.Audit.Head = []byte{1} },
		"long text": func(s *Statement) { s.Audit.Drift = strings.Repeat("x", maxStatementText+1) }, "terminal": func(s *Statement) { s.Audit.Problem = "\x1b[2J" },
		"digest": func(s *Statement) { s.Compliance["x"] = []byte{1} },
	} {
		s := someStatement()
		change(s)
		if _, err := EncodeStatement(s); !errors.Is(err, ErrLimit) {
			t.Errorf("EncodeStatement(%s): got %v, want ErrLimit", name, err)
		}
	}
	if _, err := DecodeStatement(append(b, 0)); !errors.Is(err, ErrDocument) {
		t.Errorf("DecodeStatement() with a byte more: got %v, want ErrDocument", err)
	}
}

func TestQualify(t *testing.T) {
	if got := Qualify([]byte("nonce"), nil); string(got) != "nonce" {
		t.Errorf("Qualify() without a statement: got %x, want the nonce", got)
	}
	a, b := Qualify([]byte("nonce"), []byte("a")), Qualify([]byte("noncea"), []byte(""))
	if len(a) != 32 || bytes.Equal(a, b) || bytes.Equal(a, Qualify([]byte("nonc"), []byte("ea"))) {
		t.Error("Qualify() does not keep nonce and statement apart")
	}
}

func FuzzDecodeStatement(f *testing.F) {
	b, err := EncodeStatement(someStatement())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := DecodeStatement(b)
		if err != nil {
			return
		}
		again, err := EncodeStatement(s)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("a statement changed on its way: %v", err)
		}
	})
}
