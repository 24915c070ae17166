package evidence

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"

	"touchstone.dev/touchstone/internal/ima/imatest"
	"touchstone.dev/touchstone/internal/tpm"
)

// full is a document with every field set.
func full() *Document {
	return &Document{
		Version: 1, Node: "worker-1", Nonce: []byte("nonce"), AK: []byte{1, 2, 3},
		Quotes: []Quote{{Message: []byte{0xff}, Signature: []byte{1}, PCRs: []PCRBank{
			{Alg: tpm.AlgSHA256, Values: map[int][]byte{0: make([]byte, 32), 23: make([]byte, 32)}},
			{Alg: tpm.AlgSHA1, Values: map[int][]byte{10: make([]byte, 20)}},
		}}},
		EventLog: []byte("log"), IMA: []byte("list"), IMAOffset: 77, EKCerts: [][]byte{{0x30}, {0x31}},
		Facts:    map[string][]byte{FactLockdown: []byte("none [integrity]"), FactTainted: []byte("0")},
		AssetTag: &NVCertificate{Public: []byte{1}, Message: []byte{2}, Signature: []byte{3}},
	}
}

func TestRoundTrip(t *testing.T) {
	digestOnly := full()
	digestOnly.EventLog, digestOnly.EventLogDigest = nil, make([]byte, 32)
	digestOnly.Facts, digestOnly.FactsDigest = nil, make([]byte, 32)
	for _, d := range []*Document{full(), digestOnly, {Version: 1, Quotes: []Quote{{Message: []byte{1}, Signature: []byte{1}, PCRs: []PCRBank{}}}}} {
		b, err := d.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(b)
		if err != nil {
			t.Fatalf("Decode: %v", err)
		}
		if diff := cmp.Diff(d, got); diff != "" {
			t.Errorf("Decode(Encode(d)) (-want +got):\n%s", diff)
		}
		again, err := Encode(got)
		if err != nil || !bytes.Equal(b, again) {
			t.Errorf("Encode(Decode(b)): got other bytes, %v", err)
		}
	}
}

func TestLimits(t *testing.T) {
	for _, test := range []struct {
		field  string
		change func(*Document)
	}{
		{"version 2", func(d *Document) { d.Version = 2 }},
		{"node has", func(d *Document) { d.Node = strings.Repeat("n", MaxName+1) }},
		{"node", func(d *Document) { d.Node = "a\x1b[2J" }},
		{"nonce has", func(d *Document) { d.Nonce = make([]byte, MaxStructure+1) }},
		{"ak has", func(d *Document) { d.AK = make([]byte, MaxStructure+1) }},
		{"event log has", func(d *Document) { d.EventLog = make([]byte, MaxEventLog+1) }},
		{"event log digest has", func(d *Document) { d.EventLog, d.EventLogDigest = nil, []byte{1} }},
		{"both given", func(d *Document) { d.EventLogDigest = make([]byte, 32) }},
		{"ima has", func(d *Document) { d.IMA = make([]byte, MaxIMA+1) }},
		{"ima offset", func(d *Document) { d.IMAOffset = 1 << 41 }},
		{"0 quotes", func(d *Document) { d.Quotes = nil }},
		{"5 quotes", func(d *Document) { d.Quotes = slices.Repeat(d.Quotes, 5) }},
		{"quote 0: message is empty", func(d *Document) { d.Quotes[0].Message = nil }},
		{"quote 0: signature has", func(d *Document) { d.Quotes[0].Signature = make([]byte, MaxStructure+1) }},
		{"5 banks", func(d *Document) { d.Quotes[0].PCRs = make([]PCRBank, 5) }},
		{"unknown algorithm", func(d *Document) { d.Quotes[0].PCRs[0].Alg = 0x12 }},
		{"given twice", func(d *Document) { d.Quotes[0].PCRs[1] = d.Quotes[0].PCRs[0] }},
		{"has a PCR 24", func(d *Document) { d.Quotes[0].PCRs[0].Values[24] = make([]byte, 32) }},
		{"has a PCR -1", func(d *Document) { d.Quotes[0].PCRs[0].Values[-1] = make([]byte, 32) }},
		{"PCR 0 of bank sha256 has 20 bytes", func(d *Document) { d.Quotes[0].PCRs[0].Values[0] = make([]byte, 20) }},
		{"17 EK certificates", func(d *Document) { d.EKCerts = slices.Repeat([][]byte{{1}}, 17) }},
		{"EK certificate 1", func(d *Document) { d.EKCerts[1] = make([]byte, MaxCert+1) }},
		{"EK certificate 0 is empty", func(d *Document) { d.EKCerts[0] = nil }},
		{"fact lockdown", func(d *Document) { d.Facts[FactLockdown] = make([]byte, MaxFact+1) }},
		{"name of a fact", func(d *Document) { d.Facts[strings.Repeat("x", MaxName+1)] = nil }},
		{"name of a fact", func(d *Document) { d.Facts["a\nb"] = nil }},
		{"facts digest has", func(d *Document) { d.Facts, d.FactsDigest = nil, []byte{1} }},
		{"both given", func(d *Document) { d.FactsDigest = make([]byte, 32) }},
		{"asset tag: public area is empty", func(d *Document) { d.AssetTag.Public = nil }},
		{"asset tag: message has", func(d *Document) { d.AssetTag.Message = make([]byte, MaxStructure+1) }},
		{"asset tag: signature has", func(d *Document) { d.AssetTag.Signature = make([]byte, MaxStructure+1) }},
		{"all facts", func(d *Document) {
			for i := range 9 {
				d.Facts[string(rune('a'+i))] = make([]byte, MaxFact)
			}
		}},
		{"513 facts", func(d *Document) {
			for i := range 511 {
				d.Facts[strings.Repeat("f", 1+i%200)+string(rune('0'+i/200))] = nil
			}
		}},
	} {
		d := full()
		test.change(d)
		if _, err := d.Encode(); !errors.Is(err, ErrLimit) || !strings.Contains(err.Error(), test.field) {
			t.Errorf("Encode(%s): got %v, want ErrLimit naming it", test.field, err)
		}
		b, err := encoder.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(b); !errors.Is(err, ErrLimit) && !errors.Is(err, ErrDocument) {
			t.Errorf("Decode(%s): got %v, want ErrLimit or ErrDocument", test.field, err)
		}
	}
}

func TestDecodeIsStrict(t *testing.T) {
	good, err := full().Encode()
	if err != nil {
		t.Fatal(err)
	}
	generic := func(change func(map[any]any)) []byte {
		var m map[any]any
		if err := cbor.Unmarshal(good, &m); err != nil {
			t.Fatal(err)
		}
		change(m)
		b, err := encoder.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	indef := append(append([]byte{0xbf}, good[1:]...), 0xff)
	longInt := slices.Concat(good[:1], []byte{0x18, 0x01}, good[2:])
	duplicate := slices.Concat([]byte{good[0] + 1}, good[1:3], good[1:])
	// Keys 1 and 2 exchanged.
	node := append([]byte{0x02, 0x68}, "worker-1"...)
	if !bytes.HasPrefix(good[3:], node) {
		t.Fatalf("document does not begin with version and node: %x", good[:20])
	}
	order := slices.Concat(good[:1], node, good[1:3], good[3+len(node):])
	for _, test := range []struct {
		name string
		b    []byte
	}{
		{"empty", nil},
		{"garbage", []byte("garbage")},
		{"JSON", []byte("{}")},
		{"trailing byte", append(slices.Clone(good), 0)},
		{"tag", append([]byte{0xd9, 0xd9, 0xf7}, good...)},
		{"indefinite length", indef},
		{"integer not shortest", longInt},
		{"duplicate key", duplicate},
		{"keys out of order", order},
		{"unknown key", generic(func(m map[any]any) { m[uint64(13)] = 1 })},
		{"text key", generic(func(m map[any]any) { m["x"] = 1 })},
		{"wrong type", generic(func(m map[any]any) { m[uint64(3)] = "nonce as text" })},
		{"null", generic(func(m map[any]any) { m[uint64(3)] = nil })},
		{"empty where absent is meant", generic(func(m map[any]any) { m[uint64(3)] = []byte{} })},
		{"nonce as array", generic(func(m map[any]any) { m[uint64(3)] = []int{1, 2} })},
		{"array for map", []byte{0x80}},
		{"length bomb", []byte{0xa1, 0x03, 0x5b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}},
		{"array bomb", []byte{0xa1, 0x05, 0x9b, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff}},
		{"nesting bomb", slices.Repeat([]byte{0x81}, 100_000)},
	} {
		if d, err := Decode(test.b); err == nil {
			t.Errorf("Decode(%s): got %+v, want an error", test.name, d)
		}
	}
	for n := range good {
		if _, err := Decode(good[:n]); !errors.Is(err, ErrDocument) {
			t.Fatalf("Decode(first %d bytes): got %v, want ErrDocument", n, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	b, err := full().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	d, err := Pack(packGood())
	if err != nil {
		f.Fatal(err)
	}
	if b, err = d.Encode(); err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		whole, errWhole := decode(b, nil, nil)
		parts, errParts := decode(cut(b))
		if diff := cmp.Diff(whole, parts); diff != "" || (errWhole == nil) != (errParts == nil) {
			t.Errorf("decode(cut(%x)): got %v, want %v (-whole +cut):\n%s", b, errParts, errWhole, diff)
		}
		d, err := Decode(b)
		if err != nil {
			if !errors.Is(err, ErrDocument) && !errors.Is(err, ErrLimit) {
				t.Errorf("Decode: error %v wraps neither ErrDocument nor ErrLimit", err)
			}
			return
		}
		again, err := d.Encode()
		if err != nil || !bytes.Equal(b, again) {
			t.Errorf("Encode(Decode(%x)): got %x, %v", b, again, err)
		}
		d.View()
	})
}

// BenchmarkDecode decodes a document with 10,000 IMA entries and a real firmware log.
func BenchmarkDecode(b *testing.B) {
	d := full()
	d.IMA = imatest.New().Files(10_000).Bytes()
	log, err := os.ReadFile(filepath.Join(goodDir, "eventlog.bin"))
	if err != nil {
		b.Fatal(err)
	}
	d.EventLog = log
	raw, err := d.Encode()
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(raw); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDecodeSteady decodes what a worker sends when nothing is new.
func BenchmarkDecodeSteady(b *testing.B) {
	d := full()
	d.EventLog, d.EventLogDigest, d.IMA = nil, make([]byte, 32), nil
	raw, err := d.Encode()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(raw); err != nil {
			b.Fatal(err)
		}
	}
}

// The logs are not copied; what cannot be cut out of a document is left to the decoder.
func TestCut(t *testing.T) {
	d := full()
	d.IMA = make([]byte, 70_000)
	good, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	rest, log, list := cut(good)
	if len(rest) != len(good)-len("\x06\x43log")-(1+5+70_000) || string(log) != "log" || len(list) != 70_000 {
		t.Errorf("cut: got %d of %d bytes left, log %q, list of %d bytes", len(rest), len(good), log, len(list))
	}
	if &list[0] != &good[bytes.Index(good, list)] {
		t.Error("cut: the list is a copy")
	}
	at := bytes.Index(good, []byte("\x06\x43log"))
	replace := func(with string) []byte { return slices.Concat(good[:at], []byte(with), good[at+5:]) }
	for _, test := range []struct {
		name string
		b    []byte
	}{
		{"log with a long length", replace("\x06\x58\x03log")},
		{"log as text", replace("\x06\x63log")},
		{"empty log", replace("\x06\x40")},
		{"log twice", replace("\x06\x43log\x06\x43log")},
		{"log out of order", replace("\x09\x01\x06\x43log")},
		{"log with a tag", replace("\x06\xc0\x43log")},
		{"log with a long key", replace("\x18\x06\x43log")},
		{"log of indefinite length", replace("\x06\x5f\x43log\xff")},
		{"log that is cut off", good[:at+3]},
		{"long map", slices.Concat([]byte{0xb8, good[0] & 0x1f}, good[1:])},
	} {
		if _, log, list := cut(test.b); len(log) > 0 || len(list) > 0 {
			t.Errorf("cut(%s): got log %q and a list of %d bytes, want nothing", test.name, log, len(list))
		}
		if _, err := decode(cut(test.b)); err == nil {
			t.Errorf("decode(%s): got no error", test.name)
		}
	}
	// A log again behind the place where it belongs.
	for _, more := range []string{"\x06\x43log", "\x08\x43log"} {
		b := append(slices.Clone(good), more...)
		b[0]++
		if _, err := Decode(b); !errors.Is(err, ErrDocument) {
			t.Errorf("Decode(%q at the end): got %v, want ErrDocument", more, err)
		}
	}
}
