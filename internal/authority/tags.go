package authority

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"touchstone.dev/touchstone/internal/assettag"
	"touchstone.dev/touchstone/internal/claims"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/store"
	"touchstone.dev/touchstone/internal/verifier"
)

// tagGrace is how long a node may take to write a new asset tag into its TPM, or to write one again that is gone. No tags count meanwhile; after it
// a node without its tag fails: who holds a wrong one could else just not show it.
const tagGrace = 10 * time.Minute

// tag is what AIAS knows of the asset tags of a node. Once others see it, it is never changed: a new one takes its place.
type tag struct {
	serial uint64
	tags   map[string]string // nil when there are none (any more)
	record []byte
	issued time.Time
	told   time.Time // challenges after it bring it; set when others see it
	proven bool
	since  time.Time // when that began to be so
	reason string    // why it is not proven
	// earlier is the record that was proven last before this one, and still what of it holds: nobody has to lose the tags that do not change.
	earlier []byte
	still   map[string]string
}

// newTag reads what the store keeps.
func newTag(s *store.Tag) (*tag, error) {
	t := &tag{
		serial: s.Serial, record: s.Record, issued: s.Issued, told: s.Issued, proven: s.Proven, since: s.Since, reason: s.Reason, earlier: s.Earlier,
	}
	for _, f := range []struct {
		from []byte
		to   *map[string]string
	}{{s.Tags, &t.tags}, {s.EarlierTags, &t.still}} {
		if len(f.from) == 0 {
			continue
		}
		if err := json.Unmarshal(f.from, f.to); err != nil {
			return nil, fmt.Errorf("asset tags of %s: %w", s.Node, err)
		}
	}
	return t, nil
}

// row is t as the store keeps it.
func (t *tag) row(node string) (*store.Tag, error) {
	s := &store.Tag{
		Node: node, Serial: t.serial, Record: t.record, Issued: t.issued, Proven: t.proven, Since: t.since, Reason: t.reason, Earlier: t.earlier,
	}
	for _, f := range []struct {
		from map[string]string
		to   *[]byte
	}{{t.tags, &s.Tags}, {t.still, &s.EarlierTags}} {
		if len(f.from) == 0 {
			continue
		}
		b, err := json.Marshal(f.from)
		if err != nil {
			return nil, err
		}
		*f.to = b
	}
	return s, nil
}

// issue makes the tag that follows t (nil: the first one) of a node; no tags take them away.
func (a *Authority) issue(n *node, t *tag, tags map[string]string) (*tag, error) {
	now := a.now().Truncate(time.Microsecond)
	next := &tag{serial: 1, issued: now, told: now, since: now}
	if t != nil {
		next.serial = t.serial + 1
		next.earlier, next.still = t.earlier, assettag.Common(t.still, tags)
		if t.proven {
			next.earlier, next.still = t.record, assettag.Common(t.tags, tags)
		}
	}
	if len(tags) == 0 {
		next.earlier, next.still = nil, nil
		return next, nil
	}
	next.tags, next.reason = maps.Clone(tags), "the node has not answered a challenge with them yet"
	doc := assettag.Document{Node: n.name, EK: n.ek, Serial: next.serial, Issued: now, Tags: tags}
	var err error
	next.record, err = doc.Sign(a.tagKey)
	return next, err
}

// wanted is what the verifier is told of t, for Evidence that answers a challenge. A nil t, or one without tags, is nothing.
func (t *tag) wanted(a *Authority, n *node, nonce []byte, now time.Time) *verifier.AssetTag {
	if t == nil || t.record == nil {
		return nil
	}
	return &verifier.AssetTag{
		Node: n.name, EK: n.ek, Key: &a.tagKey.PublicKey, Serial: t.serial, Record: t.record, Tags: t.tags, Earlier: t.earlier, EarlierTags: t.still,
		Told: issuedAt(nonce) > t.told.UnixNano(), Overdue: !t.proven && now.Sub(t.since) > tagGrace,
	}
}

// issuedAt is the issue time of a challenge that was checked, in nanoseconds.
func issuedAt(nonce []byte) int64 {
	if len(nonce) != nonceSize {
		return 0
	}
	return int64(binary.BigEndian.Uint64(nonce))
}

// tagged turns s into the state after Evidence showed o: which tags count, and whether the newest are proven.
func (s *state) tagged(o claims.AssetTag, now time.Time) {
	s.tags = o.Tags
	if s.tag == nil || s.tag.record == nil {
		return
	}
	next := *s.tag
	switch o.State {
	case claims.TagNone, claims.TagNotTold:
		return
	case claims.TagProven:
		if next.proven {
			return
		}
		next.proven, next.reason, next.since, next.earlier, next.still = true, "", now, nil, nil
	default:
		reason := short(string(o.State) + ": " + o.Observed)
		if !next.proven && next.reason == reason {
			return
		}
		if next.proven {
			next.since = now
		}
		next.proven, next.reason = false, reason
	}
	s.tag = &next
}

// challenge is what the next challenge says of t.
func (t *tag) challenge() *protocol.AssetTag {
	if t == nil {
		return nil
	}
	return &protocol.AssetTag{Serial: t.serial, Record: t.record, Proven: t.proven}
}

// view is t as an operator sees it.
func (t *tag) view(node string) protocol.TagState {
	v := protocol.TagState{Node: node, Tags: map[string]string{}}
	if t == nil {
		return v
	}
	if t.tags != nil {
		v.Tags = t.tags
	}
	v.Serial, v.Proven, v.Reason = t.serial, t.proven, t.reason
	return v
}

// loadTag reads the tags of a node name; nil when it never had some.
func (a *Authority) loadTag(ctx context.Context, node string) (*tag, error) {
	s, err := a.store.Tag(ctx, node)
	if notFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return newTag(s)
}

// setTag makes the tag of s what others see, and wakes up who waits for news when it is another one. The caller holds mu.
func (n *node) setTag(s *state, now time.Time) {
	if s.tag != nil && (n.tag == nil || n.tag.serial != s.tag.serial) {
		s.tag.told = now
		if n.news != nil {
			close(n.news)
			n.news = nil
		}
	}
	n.tag, n.tags = s.tag, s.tags
}

// waitNews returns a channel that is closed when the node gets new tags, and the serial of the present ones.
func (n *node) waitNews() (news <-chan struct{}, serial uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.news == nil {
		n.news = make(chan struct{})
	}
	if n.tag != nil {
		serial = n.tag.serial
	}
	return n.news, serial
}
