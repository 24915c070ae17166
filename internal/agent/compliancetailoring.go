package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
)

// tailor gets the tailoring of the policy, which AIAS named with the challenge. It is held against that name, so that what is scanned by is what AIAS
// will accept. One of the worker's own configuration counts only when the policy has none.
func (s *scanner) tailor(ctx context.Context, w *scanWish) error {
	if w.tailoring == "" {
		s.given = nil
		return nil
	}
	if s.given != nil && s.given.SHA256 == w.tailoring {
		return nil
	}
	t, err := w.link.Tailoring(ctx)
	if err != nil {
		return fmt.Errorf("get the tailoring of the policy: %w", err)
	}
	sum := sha256.Sum256(t.Document)
	switch {
	case len(t.Document) > maxTailoring:
		return fmt.Errorf("the tailoring of the policy has %d bytes, at most %d are taken", len(t.Document), maxTailoring)
	case hex.EncodeToString(sum[:]) != w.tailoring:
		return errors.New("the tailoring of the policy changed on the way: the next scan uses the new one")
	case t.Profile == "":
		return errors.New("the tailoring of the policy names no profile")
	}
	t.SHA256, s.given = w.tailoring, t
	return nil
}
