package tpm_test

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/tpm/softtpm"
)

var testTime = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// readFile reads a file of the shared corpus of measured boots: "tpm-ca/root.pem", "corpus/good/tpm/ek.pub".
func readFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../../test/boots", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func readHex(t testing.TB, name string) []byte {
	t.Helper()
	b, err := hex.DecodeString(string(bytes.TrimSpace(readFile(t, name))))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func readBanks(t testing.TB) map[tpm.Alg]*tpm.Bank {
	t.Helper()
	var values map[string]string
	if err := json.Unmarshal(readFile(t, "corpus/good/pcrs-sha256.json"), &values); err != nil {
		t.Fatal(err)
	}
	bank := &tpm.Bank{Alg: tpm.AlgSHA256}
	for index, value := range values {
		i, err := strconv.Atoi(index)
		if err != nil {
			t.Fatal(err)
		}
		if bank.Values[i], err = hex.DecodeString(value); err != nil {
			t.Fatal(err)
		}
	}
	return map[tpm.Alg]*tpm.Bank{tpm.AlgSHA256: bank}
}

func readCert(t testing.TB, name string) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(readFile(t, name))
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func mustPublic(t testing.TB, b []byte) *tpm.Public {
	t.Helper()
	p, err := tpm.ParsePublic(b)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func mustSignature(t testing.TB, b []byte) *tpm.Signature {
	t.Helper()
	s, err := tpm.ParseSignature(b)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// softQuote returns a good quote of a software TPM, its key, and the nonce.
func softQuote(t testing.TB) (soft *softtpm.TPM, ak *tpm.Public, msg, sig []byte) {
	t.Helper()
	soft = softtpm.New([]byte("quote"))
	bank := &tpm.Bank{Alg: tpm.AlgSHA256}
	bank.Values[7] = bytes.Repeat([]byte{7}, 32)
	msg, sig = soft.Quote([]byte("nonce"), []*tpm.Bank{bank}, []tpm.Selection{{Alg: tpm.AlgSHA256, PCRs: tpm.PCRs(0, 7)}},
		softtpm.Clock{Clock: 1000, ResetCount: 2, RestartCount: 1, Safe: true, FirmwareVersion: 3})
	return soft, mustPublic(t, soft.AKArea()), msg, sig
}
