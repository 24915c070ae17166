package agent

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/assettag"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/tpm"
)

func testRecord(t testing.TB, serial uint64) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	d := assettag.Document{Node: "worker-1", Serial: serial, Issued: time.Now(), Tags: map[string]string{"site": "muc"}}
	b, err := d.Sign(key)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func testNVTag() *nvTag { return newNVTag(Defaults().NVTag, slog.New(slog.DiscardHandler)) }

// TestNVTagAnswer: what is written, and what is certified.
func TestNVTagAnswer(t *testing.T) {
	old, fresh := testRecord(t, 1), testRecord(t, 2)
	for _, tt := range []struct {
		name   string
		before []byte // in the TPM
		want   *protocol.AssetTag
		fail   error
		after  []byte
		writes int
		shows  []byte // nil: no certificate
	}{
		{"no tags", old, nil, nil, old, 0, nil},
		{"first", nil, &protocol.AssetTag{Serial: 2, Record: fresh}, nil, fresh, 1, fresh},
		{"new", old, &protocol.AssetTag{Serial: 2, Record: fresh}, nil, fresh, 1, fresh},
		{"proven", fresh, &protocol.AssetTag{Serial: 2, Record: fresh, Proven: true}, nil, fresh, 0, fresh},
		{"proven, and changed since: shown as it is", old, &protocol.AssetTag{Serial: 2, Record: fresh, Proven: true}, nil, old, 0, old},
		{"proven, and gone", nil, &protocol.AssetTag{Serial: 2, Record: fresh, Proven: true}, nil, nil, 0, nil},
		{"the TPM refuses", old, &protocol.AssetTag{Serial: 2, Record: fresh}, errors.New("no"), old, 0, nil},
		{"no record", old, &protocol.AssetTag{Serial: 2, Record: []byte("garbage")}, nil, old, 0, nil},
		{"giant record", old, &protocol.AssetTag{Serial: 2, Record: make([]byte, 1<<20)}, nil, old, 0, nil},
		{"taken away", old, &protocol.AssetTag{Serial: 3}, nil, nil, 0, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dev := newFakeTPM()
			dev.tag, dev.failTag = tt.before, tt.fail
			cert := testNVTag().answer(dev, tt.want, []byte("nonce"))
			if !bytes.Equal(dev.tag, tt.after) || dev.tagWrites != tt.writes {
				t.Errorf("TPM: got %x after %d writes, want %x after %d", dev.tag, dev.tagWrites, tt.after, tt.writes)
			}
			if (cert != nil) != (tt.shows != nil) {
				t.Fatalf("certificate: got %v, want one %v", cert, tt.shows != nil)
			}
			if cert == nil {
				return
			}
			ak, err := tpm.ParsePublic(dev.AKPublic())
			if err != nil {
				t.Fatal(err)
			}
			if _, got, err := tpm.VerifyNV(ak, []byte("nonce"), cert.Public, cert.Message, cert.Signature); err != nil || !bytes.Equal(got, tt.shows) {
				t.Errorf("certified: got %x, %v, want %x", got, err, tt.shows)
			}
		})
	}
}

// Whatever AIAS says, NV memory is spared; and an index that was removed is left alone.
func TestNVTagSparesTheTPM(t *testing.T) {
	dev, k := newFakeTPM(), testNVTag()
	for i := range uint64(100) {
		k.answer(dev, &protocol.AssetTag{Serial: i + 1, Record: testRecord(t, i+1)}, []byte("nonce"))
	}
	if dev.tagWrites != tagWrites {
		t.Errorf("100 new tags at once: got %d writes, want %d", dev.tagWrites, tagWrites)
	}
	for range 3 {
		k.answer(dev, &protocol.AssetTag{Serial: 101}, []byte("nonce"))
	}
	if dev.tagRemovals != 1 {
		t.Errorf("tags taken away, three challenges: got %d removals, want 1", dev.tagRemovals)
	}
	var none *nvTag
	if c := none.answer(dev, &protocol.AssetTag{Serial: 1}, nil); c != nil {
		t.Errorf("without a place for tags: got %v", c)
	}
}

func TestOwnerAuth(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, tt := range []struct {
		file, want string
		ok         bool
	}{
		{"", "", true},
		{write("good", "secret\n"), "secret", true},
		{write("long", strings.Repeat("x", maxOwnerAuth+1)), "", false},
		{filepath.Join(dir, "missing"), "", false},
	} {
		k := testNVTag()
		k.cfg.OwnerAuthFile = tt.file
		if got, err := k.owner(); string(got) != tt.want || (err == nil) != tt.ok {
			t.Errorf("owner(%s): got %q, %v, want %q", tt.file, got, err, tt.want)
		}
	}
}

// TestNewsOfTags: a waiting agent attests at once when AIAS has new tags, with a challenge that brings them.
func TestNewsOfTags(t *testing.T) {
	w := newWorld(t)
	w.cfg.Watch.MinGap = 0
	record := testRecord(t, 5)
	w.link.news = make(chan struct{})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	for w.link.count() < 1 {
		time.Sleep(time.Millisecond)
	}
	w.link.mu.Lock()
	w.link.challenge.AssetTag = &protocol.AssetTag{Serial: 5, Record: record}
	w.link.mu.Unlock()
	close(w.link.news)
	start := time.Now()
	for w.link.count() < 2 && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("attestation after news: took %v", took)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	w.link.mu.Lock()
	defer w.link.mu.Unlock()
	if len(w.link.docs) != 2 || w.link.docs[0].AssetTag != nil || w.link.docs[1].AssetTag == nil {
		t.Fatalf("Evidence: got %d documents, want a second one with a certificate", len(w.link.docs))
	}
	if w.reports[1].Trigger != TriggerTag || !bytes.Equal(w.tpm.tag, record) || w.tpm.tagIndex != assettag.DefaultIndex {
		t.Errorf("attestation: got trigger %s, NV index %#x", w.reports[1].Trigger, w.tpm.tagIndex)
	}
}

// TestNewTagInTheAnswer: an agent that AIAS had no room for (news) learns of tags in an answer, and attests again at once, but once only.
func TestNewTagInTheAnswer(t *testing.T) {
	w := newWorld(t)
	w.cfg.Watch.MinGap = 0
	record := testRecord(t, 5)
	w.link.next = func(n int) (*protocol.Attestation, error) {
		if n == 1 {
			w.link.challenge.AssetTag = &protocol.AssetTag{Serial: 5, Record: record} // and it is never proven
		}
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	for w.link.count() < 2 && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(100 * time.Millisecond)
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if n := w.link.count(); n != 2 || w.reports[1].Trigger != TriggerTag || w.link.docs[1].AssetTag == nil {
		t.Errorf("attestations: got %d, want a second one with a certificate, at once", n)
	}
}
