package luks

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// shell runs a script of Debian's cryptsetup, clevis and luksmeta in a folder of its own, and returns what it prints.
func shell(t testing.TB, dir, script string) string {
	t.Helper()
	for _, p := range []string{"cryptsetup", "clevis-luks-bind", "luksmeta", "jose"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Fatalf("%v: scripts/need test installs it", err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-c", "set -euo pipefail; "+script)
	cmd.Dir = dir
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, said.String())
	}
	return string(out)
}

const (
	passphrase = "the first passphrase"
	format     = `truncate -s 32M "$1"; printf '` + passphrase + `' | cryptsetup luksFormat --batch-mode --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file - `
	// What clevis keeps is made by hand, as an advertisement suffices to encrypt: no server has to run.
	advertise = `jose jwk gen -i '{"alg":"ES512"}' -o sig.jwk; jose jwk gen -i '{"alg":"ECMR"}' -o exc.jwk
jose jwk pub -i sig.jwk -o sig.pub; jose jwk pub -i exc.jwk -o exc.pub
printf '{"keys":[%s,%s]}' "$(cat sig.pub)" "$(cat exc.pub)" >set
jose jws sig -I set -s '{"protected":{"alg":"ES512","cty":"jwk-set+json"}}' -k sig.jwk -o adv.jws
`
)

func load(t *testing.T, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := Read(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// both parses a header as it is on the disk and as it is sent, which must say the same, and returns it with what is sent.
func both(t *testing.T, path string) (*Header, []byte) {
	t.Helper()
	raw := load(t, path)
	whole, err := Parse(raw)
	if err != nil {
		t.Fatalf("Parse(%s): %v", path, err)
	}
	sent, err := Strip(raw)
	if err != nil {
		t.Fatalf("Strip(%s): %v", path, err)
	}
	stripped, err := Parse(sent)
	if err != nil {
		t.Fatalf("Parse(Strip(%s)): %v", path, err)
	}
	if diff := cmp.Diff(whole, stripped); diff != "" {
		t.Errorf("Strip(%s) says something else (-disk +sent):\n%s", path, diff)
	}
	again, err := Strip(sent)
	if err != nil || !bytes.Equal(again, sent) {
		t.Errorf("Strip(Strip(%s)): got %d bytes and %v, want the same", path, len(again), err)
	}
	return whole, sent
}

// TestFormats: what cryptsetup writes, without any binding.
func TestFormats(t *testing.T) {
	tests := map[string]struct {
		options string
		version int
		cipher  string
	}{
		"luks1":       {"--type luks1", 1, "aes-xts-plain64"},
		"luks2":       {"--type luks2 --label data", 2, "aes-xts-plain64"},
		"luks2 large": {"--type luks2 --luks2-metadata-size 64k --luks2-keyslots-size 1m", 2, "aes-xts-plain64"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			format := strings.ReplaceAll(format, `"$1"`, "v.img")
			shell(t, dir, format+tt.options+" v.img")
			h, _ := both(t, filepath.Join(dir, "v.img"))
			uuid := strings.TrimSpace(shell(t, dir, "cryptsetup luksUUID v.img"))
			if h.Version != tt.version || h.UUID != uuid || len(h.Slots) != 1 || len(h.Slots[0].Ways) != 0 {
				t.Errorf("got %+v, want version %d, UUID %s and one slot without a token", h, tt.version, uuid)
			}
			if h.Cipher != tt.cipher || h.Plain != "" || h.Integrity != "" {
				t.Errorf("got cipher %q, integrity %q and plain %q, want %q alone", h.Cipher, h.Integrity, h.Plain, tt.cipher)
			}
			if strings.Contains(tt.options, "label") && h.Label != "data" {
				t.Errorf("label: got %q, want data", h.Label)
			}
		})
	}
}

// TestSegments: what does not encrypt is told, and who watches over integrity.
func TestSegments(t *testing.T) {
	tests := map[string]struct{ segments, cipher, integrity, plain string }{
		"authenticated": {`{"0":{"type":"crypt","encryption":"aes-gcm-random","integrity":{"type":"aead"}}}`, "aes-gcm-random", "aead", ""},
		"null cipher":   {`{"0":{"type":"crypt","encryption":"cipher_null-ecb"}}`, "", "", "its cipher is cipher_null-ecb"},
		"being changed": {`{"0":{"type":"crypt","encryption":"aes-xts-plain64"},"1":{"type":"linear"}}`, "aes-xts-plain64", "", "a part of the volume"},
		"the disk does": {`{"0":{"type":"hw-opal"}}`, "OPAL (the disk encrypts)", "", ""},
		"none":          {`{}`, "", "", "the header names no segment"},
		"no cipher":     {`{"0":{"type":"crypt"}}`, "", "", "a segment of type crypt"},
	}
	for name, tt := range tests {
		m, err := parseMetadata([]byte(`{"segments":` + tt.segments + `}`))
		if err != nil {
			t.Fatal(err)
		}
		var h Header
		if err := m.fill(&h); err != nil || h.Cipher != tt.cipher || h.Integrity != tt.integrity || !strings.HasPrefix(h.Plain, tt.plain) || tt.plain == "" && h.Plain != "" {
			t.Errorf("%s: got %+v and %v, want %+v", name, h, err, tt)
		}
	}
}

// TestClevis: bound by the unmodified client, on both formats; what is sent says how the slot opens and does not help to open it.
func TestClevis(t *testing.T) {
	for _, kind := range []string{"luks1", "luks2"} {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			shell(t, dir, strings.ReplaceAll(format, `"$1"`, "v.img")+"--type "+kind+" v.img; printf '"+passphrase+"' >pw; printf 'another one' >pw2; "+advertise+
				"cryptsetup luksAddKey --batch-mode --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file pw v.img pw2 --key-slot 3")
			kid := strings.TrimSpace(shell(t, dir, "jose jwk thp -i exc.jwk"))
			jwe := strings.TrimSpace(shell(t, dir, `printf 'another one' | clevis encrypt tang '{"url":"http://aias.example:7500/n/worker-1","adv":"adv.jws"}' -y`))
			part := strings.Split(jwe, ".")
			if kind == "luks1" {
				shell(t, dir, "luksmeta init -f -d v.img; printf %s '"+jwe+"' | luksmeta save -d v.img -s 3 -u cb6e8904-81ff-40da-a84a-07ab9ab5715e")
			} else {
				shell(t, dir, `printf %s '{"type":"clevis","keyslots":["3"],"jwe":{"ciphertext":"`+part[3]+`","encrypted_key":"","iv":"`+part[2]+`","protected":"`+part[0]+`","tag":"`+part[4]+`"}}' | cryptsetup token import v.img`)
			}
			h, sent := both(t, filepath.Join(dir, "v.img"))
			want := []Slot{{Number: 0}, {Number: 3, Ways: []Way{{Pin: PinTang, By: "clevis", URL: "http://aias.example:7500/n/worker-1", Key: kid}}}}
			if diff := cmp.Diff(want, h.Slots); diff != "" {
				t.Errorf("slots (-want +got):\n%s", diff)
			}
			for _, word := range []string{"epk", "ciphertext", "encrypted_key", "salt", "digest\":", "tag"} {
				if bytes.Contains(sent, []byte(`"`+word)) {
					t.Errorf("%q is sent: %s", word, sent[min(len(sent), binarySize):])
				}
			}
			raw := load(t, filepath.Join(dir, "v.img"))
			if kind == "luks2" {
				for _, secret := range secrets(t, raw) {
					if bytes.Contains(sent, []byte(secret)) {
						t.Errorf("%q of the header is sent", secret)
					}
				}
			} else if bytes.Contains(sent, raw[atDigest:endDigest]) || bytes.Contains(sent, raw[atSlots+atSlotSalt:][:32]) {
				t.Error("digest or salt of LUKS1 is sent")
			}
			protected := sent
			if i := bytes.Index(sent, []byte("eyJ")); i >= 0 {
				protected, _ = base64.RawURLEncoding.DecodeString(string(bytes.FieldsFunc(sent[i:], func(r rune) bool { return r == '"' })[0]))
			}
			if bytes.Contains(protected, []byte("epk")) {
				t.Errorf("the ephemeral point is sent: %s", protected)
			}
		})
	}
}

// secrets are the texts of a LUKS2 header that help to open it.
func secrets(t *testing.T, raw []byte) []string {
	t.Helper()
	var out []string
	for _, name := range []string{`"salt":"`, `"digest":"`, `"ciphertext":"`, `"tag":"`, `"iv":"`, `"protected":"`} {
		rest := raw[binarySize:]
		for {
			i := bytes.Index(rest, []byte(name))
			if i < 0 {
				break
			}
			rest = rest[i+len(name):]
			out = append(out, string(rest[:bytes.IndexByte(rest, '"')]))
		}
	}
	if len(out) < 6 {
		t.Fatalf("found %q, want salts, digest, ciphertext, tag, iv and protected header", out)
	}
	return out
}

// TestTokens: what other programs write.
func TestTokens(t *testing.T) {
	dir := t.TempDir()
	shell(t, dir, strings.ReplaceAll(format, `"$1"`, "v.img")+`--type luks2 v.img
for i in 1 2 3 4; do printf "p$i" >p; printf '`+passphrase+`' | cryptsetup luksAddKey --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-slot $i v.img p --key-file -; done
printf %s '{"type":"systemd-tpm2","keyslots":["1"],"tpm2-blob":"c2VhbGVk","tpm2-pcrs":[7,11],"tpm2-pcr-bank":"sha256","tpm2-pin":true,"tpm2-policy-hash":"00"}' | cryptsetup token import v.img --token-id 0
printf %s '{"type":"systemd-recovery","keyslots":["2"]}' | cryptsetup token import v.img --token-id 1
printf %s '{"type":"vendor-thing","keyslots":["3"],"secret":"c2VjcmV0"}' | cryptsetup token import v.img --token-id 2
printf %s '{"type":"clevis","keyslots":["4"],"jwe":{"protected":"bm90IGpzb24","ciphertext":"eA"}}' | cryptsetup token import v.img --token-id 3`)
	h, sent := both(t, filepath.Join(dir, "v.img"))
	want := []Slot{
		{Number: 0},
		{Number: 1, Ways: []Way{{Pin: PinTPM2, By: "systemd-tpm2", PCRs: "7,11", Bank: "sha256", PIN: true}}},
		{Number: 2, Ways: []Way{{Pin: PinRecovery, By: "systemd-recovery"}}},
		{Number: 3, Ways: []Way{{Pin: PinUnknown, By: "vendor-thing", Note: "a token of a type that is not known here"}}},
		{Number: 4, Ways: []Way{{Pin: PinUnknown, By: "clevis", Note: errClevis.Error()}}},
	}
	if diff := cmp.Diff(want, h.Slots); diff != "" {
		t.Errorf("slots (-want +got):\n%s", diff)
	}
	for _, secret := range []string{"c2VhbGVk", "c2VjcmV0", "bm90IGpzb24"} {
		if bytes.Contains(sent, []byte(secret)) {
			t.Errorf("%q of a token is sent", secret)
		}
	}
}

// TestDamaged: cryptsetup takes the second header when the first one is damaged, and so do we; both damaged are an error, and nothing that is cut off or changed passes.
func TestDamaged(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "v.img")
	shell(t, dir, strings.ReplaceAll(format, `"$1"`, "v.img")+"--type luks2 v.img")
	good := load(t, name)
	disk, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	disk = disk[:1<<20]
	damage := func(at ...int) []byte {
		b := bytes.Clone(disk)
		for _, i := range at {
			b[i] ^= 1
		}
		return b
	}
	second := int(binary.BigEndian.Uint64(disk[atSize:]))
	tests := map[string]struct {
		disk []byte
		want string // "" when it is read
	}{
		"whole":                    {disk, ""},
		"JSON of the first":        {damage(binarySize + 5), ""},
		"magic of the first":       {damage(0), ""},
		"size of the first":        {damage(atSize + 7), ""},
		"JSON of both":             {damage(binarySize+5, second+binarySize+5), "checksum"},
		"label, the second erased": {append(append(damage(atLabel)[:second:second], make([]byte, second)...), disk[2*second:]...), "checksum"},
		"cut off in the header":    {disk[:100], "read the LUKS2 header"},
		"nothing":                  {make([]byte, 1<<16), "no LUKS header"},
		"an empty device":          {nil, "no LUKS header"},
	}
	for what, tt := range tests {
		b, err := Read(bytes.NewReader(tt.disk))
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: Read: %v", what, err)
		case tt.want == "":
			if _, err := Parse(b); err != nil {
				t.Errorf("%s: Parse: %v", what, err)
			}
		case err == nil || !strings.Contains(err.Error(), tt.want):
			t.Errorf("%s: Read: got %v, want an error with %q", what, err, tt.want)
		}
	}
	sent, err := Strip(good)
	if err != nil {
		t.Fatal(err)
	}
	for i := range sent {
		if i >= atChecksum+32 && i < endChecksum {
			continue // room for a longer checksum, which nothing covers
		}
		b := bytes.Clone(sent)
		b[i] ^= 0x80
		if h, err := Parse(b); err == nil {
			t.Fatalf("byte %d changed: got %+v, want an error", i, h)
		}
	}
	for n := range sent {
		if h, err := Parse(sent[:n]); err == nil {
			t.Fatalf("cut off after %d bytes: got %+v, want an error", n, h)
		}
	}
	if _, err := Parse(nil); !errors.Is(err, ErrNone) {
		t.Errorf("Parse(nil): got %v, want %v", err, ErrNone)
	}
}

// TestNeeds: what cannot be opened without one of the accepted.
func TestNeeds(t *testing.T) {
	tang, tpm := Way{Pin: PinTang}, Way{Pin: PinTPM2}
	sss := func(n int, ways ...Way) Way { return Way{Pin: PinSharing, Threshold: n, Ways: ways} }
	tests := []struct {
		way  Way
		want bool // needs tang
	}{
		{tang, true}, {tpm, false},
		{sss(2, tang, tpm), true}, {sss(1, tang, tpm), false}, {sss(2, tang, tpm, tpm), false}, {sss(2, tang, tang, tpm), true},
		{sss(1, sss(2, tang, tpm)), true}, {sss(1, sss(1, tang, tpm), tang), false},
	}
	for i, tt := range tests {
		if got := tt.way.Needs(func(w *Way) bool { return w.Pin == PinTang }); got != tt.want {
			t.Errorf("%d: Needs(%+v): got %t, want %t", i, tt.way, got, tt.want)
		}
	}
}

// FuzzHeader: no header makes a panic, what is stripped is read again and says the same.
func FuzzHeader(f *testing.F) {
	for _, seed := range seeds(f) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		raw, err := Read(bytes.NewReader(b))
		if err != nil {
			raw = b
		}
		h, err := Parse(raw)
		sent, err2 := Strip(raw)
		if err != nil || err2 != nil {
			return
		}
		if len(sent) > MaxStripped {
			t.Fatalf("Strip: %d bytes", len(sent))
		}
		again, err := Parse(sent)
		if err != nil {
			t.Fatalf("Parse(Strip()): %v", err)
		}
		if h.Version == 2 && !slices.EqualFunc(h.Slots, again.Slots, func(a, b Slot) bool { return a.Number == b.Number && len(a.Ways) == len(b.Ways) }) {
			t.Fatalf("Strip changed the slots: %+v and %+v", h, again)
		}
	})
}

// FuzzMetadata: as FuzzHeader, with a checksum that fits whatever the JSON is.
func FuzzMetadata(f *testing.F) {
	f.Add([]byte(`{"keyslots":{"0":{"type":"luks2"}},"tokens":{"0":{"type":"clevis","keyslots":["0"],"jwe":{"protected":"e30"}}},"segments":{"0":{"type":"crypt","encryption":"aes-xts-plain64"}}}`))
	f.Add([]byte(`{"tokens":{"0":{"type":"systemd-tpm2","keyslots":["0"],"tpm2-pcrs":[7]}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseMetadata(data)
		if err != nil {
			return
		}
		var before Header
		errBefore := m.fill(&before)
		left, err := m.strip()
		if err != nil {
			return
		}
		again, err := parseMetadata(left)
		if err != nil {
			t.Fatalf("parse %q again: %v", left, err)
		}
		var after Header
		if err := again.fill(&after); (err == nil) != (errBefore == nil) {
			t.Fatalf("fill: %v before, %v after", errBefore, err)
		}
	})
}

// seeds are small headers of both formats, made here: cryptsetup may not be there.
func seeds(f *testing.F) [][]byte {
	f.Helper()
	b := make([]byte, binarySize)
	copy(b, magic1)
	binary.BigEndian.PutUint16(b[atVersion:], 2)
	binary.BigEndian.PutUint64(b[atSize:], uint64(sizes[0]))
	copy(b[atAlgorithm:], "sha256")
	b = append(b, `{"keyslots":{"0":{"type":"luks2"}},"tokens":{},"segments":{}}`...)
	sum, err := checksum(b, sizes[0])
	if err != nil {
		f.Fatal(err)
	}
	copy(b[atChecksum:], sum)
	one := make([]byte, phdrSize)
	copy(one, magic1)
	one[atVersion+1] = 1
	binary.BigEndian.PutUint32(one[atSlots:], slotActive)
	return [][]byte{b, one, appendMeta(one, 0, []byte("eyJjbGV2aXMiOnsicGluIjoidGFuZyIsInRhbmciOnsidXJsIjoiIn19fQ"))}
}
