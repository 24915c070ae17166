package evidence

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"touchstone.dev/touchstone/internal/tpm"
)

const goodDir = "../../test/boots/corpus/good"

// packGood packs a captured boot.
func packGood() PackOptions {
	nonce, _ := os.ReadFile(goodDir + "/tpm/nonce.hex")
	return PackOptions{
		QuoteMsg: []string{goodDir + "/tpm/quote-ecc.attest"}, QuoteSig: []string{goodDir + "/tpm/quote-ecc.sig"},
		PCRs: []string{goodDir + "/pcrs-sha256.json"}, AKPub: goodDir + "/tpm/ak-ecc.pub", Nonce: string(nonce),
		EventLog: goodDir + "/eventlog.bin", IMA: goodDir + "/ima.bin", EKCert: []string{goodDir + "/tpm/nv-01c00002.der"},
		Facts: goodDir, Node: "worker-1",
	}
}

// verifyQuotes checks the quotes of a document with package tpm, as the Verifier does.
func verifyQuotes(t *testing.T, d *Document) {
	t.Helper()
	key, err := tpm.ParsePublic(d.AK)
	if err != nil {
		t.Fatal(err)
	}
	for i, q := range d.Quotes {
		sig, err := tpm.ParseSignature(q.Signature)
		if err != nil {
			t.Fatalf("quote %d: %v", i, err)
		}
		if err := key.Verify(q.Message, sig); err != nil {
			t.Errorf("quote %d: Verify: %v", i, err)
		}
		m, err := tpm.ParseQuote(q.Message)
		if err != nil {
			t.Fatalf("quote %d: %v", i, err)
		}
		if !bytes.Equal(m.ExtraData, d.Nonce) {
			t.Errorf("quote %d: nonce: got %x, want %x", i, m.ExtraData, d.Nonce)
		}
		banks := map[tpm.Alg]*tpm.Bank{}
		for _, b := range q.PCRs {
			bank := &tpm.Bank{Alg: b.Alg}
			for j, v := range b.Values {
				bank.Values[j] = v
			}
			banks[b.Alg] = bank
		}
		sum, err := tpm.PCRDigest(sig.Hash, m.Selections, banks)
		if err != nil || !bytes.Equal(sum, m.PCRDigest) {
			t.Errorf("quote %d: PCR digest: got %x, %v, want %x", i, sum, err, m.PCRDigest)
		}
	}
}

func TestPackCapturedBoot(t *testing.T) {
	o := packGood()
	o.QuoteMsg = append(o.QuoteMsg, goodDir+"/tpm/quote-ecc.attest")
	o.QuoteSig = append(o.QuoteSig, goodDir+"/tpm/quote-ecc.sig")
	d, err := Pack(o)
	if err != nil {
		t.Fatalf("Pack: %v", err)
	}
	verifyQuotes(t, d)
	if len(d.Quotes) != 2 || len(d.EventLog) != 13863 || len(d.IMA) != 1390 || len(d.EKCerts) != 1 || d.Node != "worker-1" {
		t.Errorf("Pack: got %d quotes, %d bytes of log, %d of IMA", len(d.Quotes), len(d.EventLog), len(d.IMA))
	}
	if got := len(d.Facts); got != 6+9 {
		t.Errorf("Pack: got %d facts, want 15", got)
	}
	if _, ok := d.Facts["grub.cfg"]; ok {
		t.Error("Pack: grub.cfg became a fact")
	}
	v := d.View()
	if v.AK.Name == "" || len(v.EventLog.Events) == 0 || len(v.IMA.Entries) != 12 || v.Quotes[0].Selected["sha256"] == "" || v.Quotes[0].Problem != "" {
		t.Errorf("View: got %+v", v)
	}
	o = packGood()
	o.QuoteMsg, o.QuoteSig, o.AKPub = []string{goodDir + "/tpm/quote-rsa.attest"}, []string{goodDir + "/tpm/quote-rsa.sig"}, goodDir+"/tpm/ak-rsa.pub"
	if d, err = Pack(o); err != nil {
		t.Fatalf("Pack(rsa): %v", err)
	}
	verifyQuotes(t, d)
}

// What is packed otherwise is the same document.
func TestPackVariants(t *testing.T) {
	want, err := Pack(packGood())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	msg := want.Quotes[0].Message
	sig, err := tpm.ParseSignature(want.Quotes[0].Signature)
	if err != nil {
		t.Fatal(err)
	}
	integer := func(b []byte) []byte {
		b = append([]byte{0}, bytes.TrimLeft(b, "\x00")...)
		if b[1] < 0x80 {
			b = b[1:]
		}
		return append([]byte{2, byte(len(b))}, b...)
	}
	body := append(integer(sig.R), integer(sig.S)...)
	for _, test := range []struct {
		name   string
		change func(*PackOptions)
	}{
		{"TPM2B_ATTEST", func(o *PackOptions) {
			o.QuoteMsg[0] = write("msg2b", append([]byte{0, byte(len(msg))}, msg...))
		}},
		{"plain signature", func(o *PackOptions) {
			o.QuoteSig[0] = write("sig.der", append([]byte{0x30, byte(len(body))}, body...))
		}},
		{"nonce from the quote", func(o *PackOptions) { o.Nonce = "" }},
		{"nonce in capitals", func(o *PackOptions) { o.Nonce = "0x" + strings.ToUpper(strings.TrimSpace(o.Nonce)) }},
		{"facts as JSON", func(o *PackOptions) {
			parts := []string{}
			for k, v := range want.Facts {
				if strings.HasPrefix(k, FactEFIPrefix) {
					continue
				}
				parts = append(parts, `"`+k+`":`+quoteJSON(string(v)))
			}
			o.Facts = write("facts.json", []byte("{"+strings.Join(parts, ",")+"}"))
		}},
	} {
		o := packGood()
		test.change(&o)
		got, err := Pack(o)
		if err != nil {
			t.Errorf("Pack(%s): %v", test.name, err)
			continue
		}
		if test.name == "facts as JSON" {
			for k := range want.Facts {
				if strings.HasPrefix(k, FactEFIPrefix) {
					got.Facts[k] = want.Facts[k]
				}
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("Pack(%s) (-want +got):\n%s", test.name, diff)
		}
	}
}

func quoteJSON(s string) string {
	return `"` + strings.NewReplacer("\n", `\n`, "\t", `\t`, `"`, `\"`).Replace(s) + `"`
}

func TestPackRefuses(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, want string
		change     func(*PackOptions)
	}{
		{"no quote", "no quote given", func(o *PackOptions) { o.QuoteMsg = nil }},
		{"no signature", "each quote needs both", func(o *PackOptions) { o.QuoteSig = nil }},
		{"no PCRs", "files of PCR values", func(o *PackOptions) { o.PCRs = nil }},
		{"missing file", "no such file", func(o *PackOptions) { o.EventLog = goodDir + "/absent" }},
		{"missing facts", "no such file", func(o *PackOptions) { o.Facts = goodDir + "/absent" }},
		{"facts no JSON", "folder or a JSON object", func(o *PackOptions) { o.Facts = goodDir + "/ima.bin" }},
		{"key is a signature", "attestation key", func(o *PackOptions) { o.AKPub = goodDir + "/tpm/quote-ecc.sig" }},
		{"message is a log", "more than", func(o *PackOptions) { o.QuoteMsg[0] = goodDir + "/eventlog.bin" }},
		{"message is empty", "quote message", func(o *PackOptions) { o.QuoteMsg[0] = empty }},
		{"signature is empty", "neither TPMT_SIGNATURE", func(o *PackOptions) { o.QuoteSig[0] = empty }},
		{"signature is a nonce", "neither TPMT_SIGNATURE", func(o *PackOptions) { o.QuoteSig[0] = goodDir + "/tpm/nonce.hex" }},
		{"plain signature without a key", "needs the attestation key", func(o *PackOptions) { o.QuoteSig[0], o.AKPub = goodDir+"/tpm/nonce.hex", "" }},
		{"PCRs are a log", "PCR values", func(o *PackOptions) { o.PCRs[0] = goodDir + "/eventlog.bin" }},
		{"PCRs are empty", "no values found", func(o *PackOptions) { o.PCRs[0] = empty }},
		{"nonce", "hexadecimal", func(o *PackOptions) { o.Nonce = "xyz" }},
		{"node", "node has", func(o *PackOptions) { o.Node = strings.Repeat("n", 300) }},
		{"EK certificate is empty", "EK certificate 0", func(o *PackOptions) { o.EKCert[0] = empty }},
	} {
		o := packGood()
		test.change(&o)
		if _, err := Pack(o); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("Pack(%s): got %v, want %q", test.name, err, test.want)
		}
	}
}

func TestParsePCRs(t *testing.T) {
	one, two := strings.Repeat("11", 32), strings.Repeat("22", 20)
	b1, _ := hex.DecodeString(one)
	b2, _ := hex.DecodeString(two)
	both := []PCRBank{{Alg: tpm.AlgSHA1, Values: map[int][]byte{3: b2}}, {Alg: tpm.AlgSHA256, Values: map[int][]byte{10: b1}}}
	selections := []tpm.Selection{{Alg: tpm.AlgSHA256, PCRs: tpm.PCRs(10)}, {Alg: tpm.AlgSHA1, PCRs: tpm.PCRs(3)}}
	for _, test := range []struct {
		name, in string
		sel      []tpm.Selection
		want     []PCRBank
	}{
		{"tpm2_pcrread", "  sha1:\n    3 : 0x" + two + "\n  sha256:\n    10: 0x" + strings.ToUpper(one) + "\n  sm3_256:\n    0 : 0x" + one + "\n", nil, both},
		{"tpm2_quote output", "quoted: ff54\nsignature:\n  alg: ecdsa\npcrs:\n  sha1:\n    3 : " + two + "\n  sha256:\n    10: " + one + "\ncalcDigest: 00\n", nil, both},
		{"JSON by bank", `{"sha1":{"3":"` + two + `"},"sha256":{"10":"0x` + one + `"},"sm3_256":{"0":"` + one + `"}}`, nil, both},
		{"JSON flat", `{"3":"` + two + `","10":"` + one + `"}`, nil, both},
		{"values", string(b1) + string(b2), selections, both},
		{"values without selections", string(b1) + string(b2), nil, nil},
		{"values too short", string(b1) + string(b2[:19]), selections, nil},
		{"index 24", `{"24":"` + one + `"}`, nil, nil},
		{"short", `{"1":"1234"}`, nil, nil},
		{"no digits", `{"sha1":{"3":"zz"}}`, nil, nil},
		{"value no text", `{"3":5}`, nil, nil},
		{"bank no object", `{"sha1":5}`, nil, nil},
		{"index no number", `{"sha1":{"x":"` + two + `"}}`, nil, nil},
		{"twice", "sha1:\n 3: " + two + "\n 3: " + two, nil, nil},
		{"twice by bank", `{"sha1":{"3":"` + two + `"},"3":"` + two + `"}`, nil, nil},
		{"broken JSON", `{"sha1":`, nil, nil},
		{"no bank", "3 : 0x" + two, nil, nil},
		{"large", strings.Repeat("\n", maxPCRFile+1), nil, nil},
	} {
		got, err := ParsePCRs([]byte(test.in), test.sel)
		if (err != nil) != (test.want == nil) {
			t.Errorf("ParsePCRs(%s): got error %v", test.name, err)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("ParsePCRs(%s) (-want +got):\n%s", test.name, diff)
		}
	}
}

func FuzzParsePCRs(f *testing.F) {
	sel := []tpm.Selection{{Alg: tpm.AlgSHA256, PCRs: tpm.PCRs(0, 1, 10)}}
	f.Add([]byte("sha256:\n 0: 0x" + strings.Repeat("00", 32)))
	f.Add([]byte(`{"sha256":{"0":"00"}}`))
	f.Add(slices.Concat([]byte{1, 0, 0, 0, 0x0b, 0, 3, 3}, make([]byte, cHead+cList-8)))
	f.Fuzz(func(t *testing.T, b []byte) {
		banks, err := ParsePCRs(b, sel)
		if err != nil {
			return
		}
		d := Document{Version: 1, Quotes: []Quote{{Message: []byte{1}, Signature: []byte{1}, PCRs: banks}}}
		if err := d.check(); err != nil {
			t.Errorf("ParsePCRs gives values that no document takes: %v", err)
		}
	})
}
