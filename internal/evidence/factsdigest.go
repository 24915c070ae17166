package evidence

import (
	"crypto/sha256"
	"fmt"
)

// FactsDigest returns the SHA-256 of the deterministic CBOR of facts: what Document.FactsDigest says instead of facts that did not change.
func FactsDigest(facts map[string][]byte) ([]byte, error) {
	b, err := encoder.Marshal(facts)
	if err != nil {
		return nil, fmt.Errorf("encode facts: %w", err)
	}
	sum := sha256.Sum256(b)
	return sum[:], nil
}
