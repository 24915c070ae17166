package authority

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/store"
	"touchstone.dev/touchstone/internal/verifier"
)

// keep puts into u what must be kept of Evidence, and sets checkpoint and list of s. The document is kept without its logs: those are kept
// once for the fleet (firmware log, facts) or once for the boot (IMA list).
func keep(n *node, s *state, doc *evidence.Document, out *verifier.Outcome, u *store.Update) error {
	e := store.Evidence{At: s.attested}
	bare := *doc
	bare.EventLog, bare.Facts, bare.IMA, bare.IMAOffset = nil, nil, nil, 0
	bare.AK = n.ak.Area() // the key that judged it, whatever the node says: it is judged by this one again
	if len(doc.EventLog) > 0 {
		sum := sha256.Sum256(doc.EventLog)
		bare.EventLogDigest = sum[:]
		u.Blobs = append(u.Blobs, store.Blob{Digest: sum[:], Data: doc.EventLog})
	}
	if len(doc.Facts) > 0 {
		digest, data, err := encodeFacts(doc.Facts)
		if err != nil {
			return err
		}
		bare.FactsDigest = digest
		u.Blobs = append(u.Blobs, store.Blob{Digest: digest, Data: data})
	}
	e.EventLog, e.Facts = bare.EventLogDigest, bare.FactsDigest
	var err error
	if e.Document, err = evidence.Encode(&bare); err != nil {
		return fmt.Errorf("keep the evidence: %w", err)
	}
	keepList(n, s, doc, out, u, &e)
	if c := s.checkpoint; !out.Authentic && c != nil {
		// The logs of the last authentic Evidence may go with the Evidence that this one replaces.
		own := *c
		own.LogDigest, own.FactsDigest = nil, nil
		s.checkpoint = &own
	}
	wasBad := n.bad
	if out.Verdict.Trusted {
		e.Kind = store.LastGood
		u.Evidence = append(u.Evidence, e)
		return nil
	}
	e.Kind = store.LastBad
	u.Evidence = append(u.Evidence, e)
	if !wasBad {
		e.Kind = store.FirstBad
		u.Evidence = append(u.Evidence, e)
	}
	return nil
}

// keepList sorts the bytes of the IMA list into those that were verified, which continue the list in the store, and the rest, which is
// kept with bad Evidence only: after good Evidence it comes again.
func keepList(n *node, s *state, doc *evidence.Document, out *verifier.Outcome, u *store.Update, e *store.Evidence) {
	var have uint64 // bytes of the present list in the store
	if n.checkpoint != nil {
		have = n.checkpoint.IMAOffset
	}
	end := uint64(0)
	if out.Authentic && out.Checkpoint != nil {
		s.checkpoint = out.Checkpoint
		end = out.Checkpoint.IMAOffset
		if doc.IMAOffset == 0 && len(doc.IMA) > 0 {
			have = 0
			s.list = n.list + 1
		}
	}
	verified := uint64(0) // of doc.IMA
	if end > doc.IMAOffset {
		verified = min(end-doc.IMAOffset, uint64(len(doc.IMA)))
	}
	if skip := have - min(have, doc.IMAOffset); skip < verified && doc.IMAOffset <= have {
		u.IMA, u.IMAOffset = doc.IMA[skip:verified], doc.IMAOffset+skip
	}
	if u.IMAOffset+uint64(len(u.IMA)) > evidence.MaxIMA {
		// A list that no node could send whole cannot be put together again either: what one boot makes AIAS keep has an end.
		u.IMA = nil
	}
	e.List, e.IMALen = s.list, min(doc.IMAOffset, have)+verified
	if !out.Verdict.Trusted {
		e.IMATail = doc.IMA[verified:]
	}
}

// Names of kept Evidence in the API.
const (
	whichGood = "last-good"
	whichBad  = "first-bad"
	whichLast = "last"
)

// document puts kept Evidence together again: the whole document with all logs, as if the node had sent everything at once.
func (a *Authority) document(ctx context.Context, n *node, kind store.Kind) (*evidence.Document, error) {
	e, err := a.store.Evidence(ctx, n.id, kind)
	if err != nil {
		return nil, err
	}
	doc, err := evidence.Decode(e.Document)
	if err != nil {
		return nil, fmt.Errorf("kept evidence: %w", err)
	}
	if len(e.EventLog) > 0 {
		if doc.EventLog, err = a.kept(ctx, e.EventLog); err != nil {
			return nil, fmt.Errorf("kept event log: %w", err)
		}
		doc.EventLogDigest = nil
	}
	if len(e.Facts) > 0 {
		b, err := a.kept(ctx, e.Facts)
		if err != nil {
			return nil, fmt.Errorf("kept facts: %w", err)
		}
		if doc.Facts, err = decodeFacts(b); err != nil {
			return nil, err
		}
		doc.FactsDigest = nil
	}
	list, err := a.store.IMA(ctx, n.id, e.List, e.IMALen)
	if err != nil {
		return nil, err
	}
	doc.IMA = append(list, e.IMATail...)
	return doc, nil
}

// kept returns a kept log by its digest. One that was changed in the database is as good as lost.
func (a *Authority) kept(ctx context.Context, digest []byte) ([]byte, error) {
	b, err := a.store.Blob(ctx, digest)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(b); !bytes.Equal(sum[:], digest) {
		return nil, fmt.Errorf("kept log %x is damaged: %w", digest, store.ErrNotFound)
	}
	return b, nil
}

// lastKind says which Evidence of a node was judged last.
func (n *node) lastKind() store.Kind {
	if n.bad {
		return store.LastBad
	}
	return store.LastGood
}

func notFound(err error) bool { return errors.Is(err, store.ErrNotFound) }
