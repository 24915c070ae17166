package machine

import (
	"bytes"
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"touchstone.dev/touchstone/internal/eventlog"
	"touchstone.dev/touchstone/internal/ima"
	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/test/boots"
)

// The forger must write what the real kernel wrote: forging the aggregate of a captured boot gives that boot back.
func TestAggregateOfCapturedBoots(t *testing.T) {
	for _, name := range []string{"good", "cmdline"} {
		b, err := Read(boots.Files, "corpus/"+name, false)
		if err != nil {
			t.Fatalf("Read(%q): %v", name, err)
		}
		pcrs, err := replay(b.Log)
		if err != nil {
			t.Fatalf("replay(%q): %v", name, err)
		}
		got, err := withAggregate(b.List, pcrs)
		if err != nil {
			t.Fatalf("withAggregate(%q): %v", name, err)
		}
		if !bytes.Equal(got, b.List) {
			t.Errorf("withAggregate(%q): list differs from the one the kernel wrote", name)
		}
	}
}

func TestSecureBootOff(t *testing.T) {
	good, err := Read(boots.Files, "corpus/cmdline", false)
	if err != nil {
		t.Fatalf("Read: %v", err)
	}
	b, err := good.SecureBootOff()
	if err != nil {
		t.Fatalf("SecureBootOff: %v", err)
	}
	before, _ := replay(good.Log)
	after, err := replay(b.Log)
	if err != nil {
		t.Fatalf("replay: %v", err)
	}
	for i := range 10 {
		if same := bytes.Equal(before.Values[i], after.Values[i]); same == (i == 7) {
			t.Errorf("PCR %d: unchanged is %v, want only PCR 7 to change", i, same)
		}
	}
	l, err := eventlog.Parse(b.Log)
	if err != nil {
		t.Fatalf("Parse: %v", err)
	}
	found := false
	for i := range l.Events {
		e := &l.Events[i]
		if e.PCR == 7 && bytes.Contains(e.Data, utf16Bytes("SecureBoot")) && len(e.Data) == 53 {
			sum := sha256.Sum256(e.Data)
			found = e.Data[52] == 0 && bytes.Equal(sum[:], e.Digest(tpm.AlgSHA256))
		}
	}
	if !found {
		t.Error("SecureBootOff: no SecureBoot event that says 0 and hashes to its digest")
	}
	if got := string(b.Files["proc/cmdline"]); !strings.Contains(got, "mitigations=off") {
		t.Errorf("SecureBootOff: command line is %q, want mitigations=off in it", got)
	}
}

func TestEntry(t *testing.T) {
	digest := sha256.Sum256([]byte("miner"))
	entry, extend := Entry("/var/tmp/.x/xmrig", digest[:])
	l := ima.NewList(entry, ima.State{})
	if !l.Next() {
		t.Fatalf("Entry: %v", l.Err())
	}
	e := l.Entry()
	if e.PCR != 10 || e.Path != "/var/tmp/.x/xmrig" || !bytes.Equal(e.Digest, digest[:]) || e.Problem != "" {
		t.Errorf("Entry: got %+v", e)
	}
	if want := sha256.Sum256(e.Data); !bytes.Equal(extend, want[:]) {
		t.Errorf("Entry: extends %x, want %x", extend, want)
	}
}

func TestWriteAndAppend(t *testing.T) {
	root := filepath.Join(t.TempDir(), "worker")
	b, err := Read(boots.Files, "corpus/good", false)
	if err != nil {
		t.Fatalf("Read: %v", err)
	}
	if err := b.write(root); err != nil {
		t.Fatalf("write: %v", err)
	}
	entry, _ := Entry("/bin/x", make([]byte, 32))
	if err := appendList(root, entry); err != nil {
		t.Fatalf("appendList: %v", err)
	}
	if err := recount(root); err != nil {
		t.Fatalf("recount: %v", err)
	}
	if got, err := os.ReadFile(filepath.Join(root, countFile)); err != nil || string(got) != "13\n" {
		t.Errorf("count: got %q, %v, want 13", got, err)
	}
	if ext, err := b.extensions(); err != nil || len(ext) < 50 {
		t.Errorf("extensions: got %d, %v, want those of 47 events and 12 entries", len(ext), err)
	}
}
