package agent

import (
	"crypto/sha256"
	"fmt"
	"slices"

	"touchstone.dev/touchstone/internal/evidence"
)

// statement is what the TPM signs with each Evidence beside the logs: where the audit chain stands, and which compliance scans this worker made. Nil
// when there is nothing to say.
func (a *Agent) statement() []byte {
	var s evidence.Statement
	if a.audit != nil {
		s.Audit = a.audit.state()
	}
	if a.scans != nil {
		s.Compliance = a.scans.stated()
	}
	if s.Audit == nil && len(s.Compliance) == 0 {
		return nil
	}
	b, err := evidence.EncodeStatement(&s)
	if err != nil {
		a.log.Error("the statement beside the logs cannot be made", "error", err) // its texts are plain and short: not reached
		return nil
	}
	return b
}

// maxMade bounds the scans that are stated while none of them gets to AIAS.
const maxMade = 8

// made takes note of a result before it is sent, so that what AIAS has is always among what is stated.
func (s *scanner) made(st *scanState, result []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(result) > 0 { // else the scan came to none
		digest := sha256.Sum256(result)
		s.results = append(slices.Clone(s.results), digest[:])
	}
	if n := len(s.results); n > maxMade {
		s.results = append(s.results[:1:1], s.results[n-maxMade+1:]...) // the first is the one that AIAS has
	}
	st.Results = s.results
}

// delivered leaves the newest result only: AIAS has it.
func (s *scanner) delivered(st *scanState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.results); n > 0 {
		s.results = s.results[n-1:]
	}
	st.Results = s.results
}

// stated are the digests of the results that AIAS may have.
func (s *scanner) stated() map[string][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.results) == 0 {
		return nil
	}
	out := map[string][]byte{}
	for i, digest := range s.results {
		out[fmt.Sprintf("host %d", i+1)] = digest
	}
	return out
}
