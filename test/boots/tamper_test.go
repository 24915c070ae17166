package boots

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/eventlog"
	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/verifier"
)

// proofs are the files of a boot that prove something: a change of any of their bytes costs trust, or makes the Evidence unreadable.
var proofs = []string{"tpm/quote-ecc.attest", "tpm/quote-ecc.sig", "tpm/ak-ecc.pub", "tpm/nonce.hex", "tpm/nv-01c00002.der", "pcrs-sha256.json", "ima.bin", "eventlog.bin"}

// TestTampered changes a bit here and there, cuts files and makes them longer.
func TestTampered(t *testing.T) {
	v, dir := newVerifier(t), t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("corpus", "good"))); err != nil {
		t.Fatal(err)
	}
	if !trusts(v, dir) {
		t.Fatal("the boot is not trusted before anything was changed")
	}
	r := rand.New(rand.NewPCG(7, 7)) //nolint:gosec // the same bits each time
	for _, name := range proofs {
		file := filepath.Join(dir, name)
		good, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		try := func(what string, b []byte) {
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
			if trusts(v, dir) {
				t.Errorf("%s %s: trusted", name, what)
			}
		}
		for range 150 {
			at, b := r.IntN(len(good)), slices.Clone(good)
			b[at] ^= 1 << r.IntN(8)
			if name == "eventlog.bin" && !covered(t, good, at) || name == "tpm/nonce.hex" && b[at]^good[at] == 0x20 {
				continue // says nothing, or is the same digit
			}
			if name == "pcrs-sha256.json" && sameValues(t, good, b) || name == "tpm/ak-ecc.pub" && at >= 6 && at < 10 && lawful(b) {
				continue // values that are not quoted; a key with other lawful attributes
			}
			try(fmt.Sprintf("with byte %d changed from %#x to %#x", at, good[at], b[at]), b)
		}
		for range 20 {
			n := r.IntN(len(good) - 1) // the last byte may be a newline
			try(fmt.Sprintf("cut after %d bytes", n), good[:n])
		}
		if name != "tpm/nv-01c00002.der" { // NV indices are often larger than the certificate
			try("with one byte more", append(slices.Clone(good), 0x5a))
		}
		if err := os.WriteFile(file, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// lawful tells whether b is the public area of a key that a TPM could have.
func lawful(b []byte) bool {
	_, err := tpm.ParsePublic(b)
	return err == nil
}

// sameValues tells whether two files of PCR values have the same ones where the quote is about them.
func sameValues(t *testing.T, a, b []byte) bool {
	t.Helper()
	var x, y map[string]string
	if err := json.Unmarshal(a, &x); err != nil {
		t.Fatal(err)
	}
	if json.Unmarshal(b, &y) != nil {
		return false
	}
	for _, n := range []string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "14"} {
		if !strings.EqualFold(x[n], y[n]) {
			return false
		}
	}
	return true
}

// covered tells whether a digest that is measured depends on the byte at offset at of a log: event data that are no more than a name for what was
// hashed are not, nor digests of events that extend nothing.
func covered(t *testing.T, log []byte, at int) bool {
	t.Helper()
	l, err := eventlog.Parse(log)
	if err != nil {
		t.Fatal(err)
	}
	for i := range l.Events {
		e := &l.Events[i]
		begin := e.Offset
		if i+1 < len(l.Events) && at >= l.Events[i+1].Offset || at < begin {
			continue
		}
		if !e.Extends() {
			return false
		}
		end := len(log)
		if i+1 < len(l.Events) {
			end = l.Events[i+1].Offset
		}
		sum := sha256.Sum256(e.Data)
		return at < end-len(e.Data) || slices.Equal(sum[:], e.Digest(tpm.AlgSHA256))
	}
	return false // the header
}

// trusts packs and appraises a boot folder.
func trusts(v *verifier.Verifier, dir string) bool {
	nonce, err := os.ReadFile(filepath.Join(dir, "tpm", "nonce.hex"))
	if err != nil {
		return false
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	doc, err := evidence.Pack(evidence.PackOptions{
		QuoteMsg: []string{at(proofs[0])}, QuoteSig: []string{at(proofs[1])}, AKPub: at(proofs[2]), Nonce: string(nonce), EKCert: []string{at(proofs[4])},
		PCRs: []string{at(proofs[5])}, IMA: at(proofs[6]), EventLog: at(proofs[7]), Facts: dir,
	})
	if err != nil {
		return false
	}
	b, err := doc.Encode()
	if err != nil {
		return false
	}
	if doc, err = evidence.Decode(b); err != nil {
		return false
	}
	out, err := v.Appraise(doc, verifier.Expectation{Now: time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)})
	return err == nil && out.Verdict.Trusted
}
