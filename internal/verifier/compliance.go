package verifier

import (
	"fmt"
	"hash"
)

// addCompliance adds what the verdict depends on of the compliance scan: the scan, and whether it has grown too old or a waiver has ended.
func (s *session) addCompliance(h hash.Hash) {
	if c := s.compliance; c != nil {
		fmt.Fprintf(h, "\x00compliance %q %s %s", c.ID, c.Stated, s.v.compliance.Epoch(c.Scan, s.exp.Now))
	}
}
