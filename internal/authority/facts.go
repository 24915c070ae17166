package authority

import (
	"crypto/sha256"
	"fmt"

	"github.com/fxamacker/cbor/v2"

	"touchstone.dev/touchstone/internal/evidence"
)

// Facts are kept as their deterministic CBOR, which is what evidence.Document.FactsDigest is the SHA-256 of.
var (
	factsEnc = must(cbor.CoreDetEncOptions().EncMode())
	factsDec = must(cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden, MaxMapPairs: evidence.MaxFacts,
	}.DecMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic("options of the CBOR library: " + err.Error())
	}
	return v
}

func encodeFacts(facts map[string][]byte) (digest, data []byte, err error) {
	if data, err = factsEnc.Marshal(facts); err != nil {
		return nil, nil, fmt.Errorf("encode facts: %w", err)
	}
	sum := sha256.Sum256(data)
	return sum[:], data, nil
}

func decodeFacts(data []byte) (map[string][]byte, error) {
	var facts map[string][]byte
	if err := factsDec.Unmarshal(data, &facts); err != nil {
		return nil, fmt.Errorf("kept facts are damaged: %w", err)
	}
	return facts, nil
}
