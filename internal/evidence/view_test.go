package evidence

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/assettag"
	"touchstone.dev/touchstone/internal/tpm/softtpm"
)

func TestViewAssetTag(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	record, err := (&assettag.Document{Node: "w", EK: [32]byte{0xab}, Serial: 7, Issued: time.Unix(1_800_000_000, 0), Tags: map[string]string{"a": "b"}}).Sign(key)
	if err != nil {
		t.Fatal(err)
	}
	soft, d := softtpm.New([]byte("view")), full()
	certify := func(content []byte) *TagView {
		d.AssetTag = &NVCertificate{Public: softtpm.NVPublic(assettag.DefaultIndex, assettag.Attributes, len(content))}
		d.AssetTag.Message, d.AssetTag.Signature = soft.CertifyNV(d.AssetTag.Public, content, []byte("nonce"), softtpm.Clock{})
		return d.View().AssetTag
	}
	v := certify(record)
	if v.Serial != 7 || v.Index != "0x01a7a600" || !strings.HasPrefix(v.EKSHA256, "ab00") || v.Nonce != "6e6f6e6365" || !strings.HasPrefix(v.Issued, "2027-") || v.Problem != "" {
		t.Errorf("View: got %+v", v)
	}
	if v = certify([]byte("something else")); v.Problem == "" || v.Serial != 0 {
		t.Errorf("View of another content: got %+v, want a problem", v)
	}
	for _, c := range []*NVCertificate{{Public: []byte{1}}, {Public: d.AssetTag.Public, Message: []byte{1}}} {
		d.AssetTag = c
		if v := d.View().AssetTag; v.Problem == "" {
			t.Errorf("View of garbage: got %+v, want a problem", v)
		}
	}
	d.AssetTag = nil
	if v := d.View().AssetTag; v != nil {
		t.Errorf("View without: got %+v", v)
	}
}
