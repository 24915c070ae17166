package agent

import (
	"bytes"
	"encoding/json"
	"fmt"

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

// tagged is a host with asset tags.
type tagged struct {
	Host
	tags []byte // JSON object of strings
}

// withTags adds the asset tags to the facts of a host.
func withTags(host Host, tags map[string]string) (Host, error) {
	if len(tags) == 0 {
		return host, nil
	}
	data, err := json.Marshal(tags)
	if err != nil {
		return nil, fmt.Errorf("encode the asset tags: %w", err)
	}
	return tagged{Host: host, tags: data}, nil
}

// Facts returns the facts of the host and the tags.
func (t tagged) Facts() (map[string][]byte, error) {
	facts, err := t.Host.Facts()
	if err != nil {
		return nil, err
	}
	facts[evidence.FactAssetTag] = t.tags
	return facts, nil
}
