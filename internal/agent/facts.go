package agent

import (
	"bytes"

	"touchstone.dev/touchstone/internal/evidence"
)

// addFacts adds the facts, or only their digest when AIAS has them already.
func addFacts(doc *evidence.Document, facts map[string][]byte, have []byte) error {
	sum, err := evidence.FactsDigest(facts)
	if err != nil {
		return err
	}
	if len(facts) > 0 && bytes.Equal(sum, have) {
		doc.FactsDigest = sum
		return nil
	}
	doc.Facts = facts
	return nil
}
