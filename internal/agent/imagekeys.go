package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"touchstone.dev/touchstone/internal/imagekey"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/tpm/device"
)

// burst is how long one attestation, and a key that came after it, serve the layers of images that are pulled together. Short: what AIAS knows of the
// worker when it gives a key must be true.
const burst = 15 * time.Second

// keyBanks are the banks whose PCRs the TPM's key may be bound to, the first that AIAS quotes and the TPM has.
var keyBanks = []tpm.Alg{tpm.AlgSHA256, tpm.AlgSHA384, tpm.AlgSHA512}

// imageKeys gets the keys of encrypted images for the container runtime: a fresh attestation, then the key from AIAS, which comes encrypted to the TPM.
// Many layers at the same time share both.
type imageKeys struct {
	log  *slog.Logger
	ask  func() // for an attestation, at once
	now  func() time.Time
	held *heldKeys

	flight singleflight.Group
	mu     sync.Mutex
	on     *keySession // nil while the agent has none
	last   Report      // the newest attestation
	next   chan struct{}
	keys   map[string]openKey
}

// keySession is what the agent works with between two failures.
type keySession struct {
	node string
	tpm  TPM
	link Link
	key  *ImageKey // of the TPM; nil before it is needed
}

// openKey is an image key in memory, for a moment.
type openKey struct {
	key   []byte
	until time.Time
}

func newImageKeys(log *slog.Logger, ask func(), now func() time.Time, held *heldKeys) *imageKeys {
	k := &imageKeys{log: log, ask: ask, now: now, held: held, next: make(chan struct{}), keys: map[string]openKey{}}
	held.forget = k.forget
	return k
}

// forget drops a key from memory before its time is over: AIAS would not give it any more.
func (k *imageKeys) forget(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.keys, id)
}

// enter says what the agent works with; leave that it does not any more.
func (k *imageKeys) enter(node string, t TPM, link Link) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.on == nil || k.on.tpm != t {
		k.on = &keySession{node: node, tpm: t}
	}
	k.on.link = link
}

func (k *imageKeys) leave() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.on, k.last = nil, Report{}
	clear(k.keys)
}

// attested takes the outcome of an attestation. Keys of a worker that is not trusted any more are forgotten at once.
func (k *imageKeys) attested(ctx context.Context, r Report) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.last = r
	if r.Err != nil || !r.Attestation.Trusted {
		clear(k.keys)
	}
	close(k.next)
	k.next = make(chan struct{})
	if r.Err == nil && k.on != nil {
		k.held.check(ctx, k.on.link)
	}
}

// Unwrap opens the annotation of a layer.
func (k *imageKeys) Unwrap(ctx context.Context, annotation []byte) ([]byte, error) {
	a, id, plain, err := imagekey.Read(annotation)
	if err != nil {
		return nil, refusedKey{err}
	}
	key, err := k.key(ctx, id)
	if err != nil {
		return nil, err
	}
	options, err := a.Open(key)
	if err != nil {
		return nil, refusedKey{err}
	}
	if plain != "" { // before the layer can be unpacked
		if err := k.held.add(id, plain); err != nil {
			return nil, err
		}
	}
	return options, nil
}

// refusedKey is an error whose reason is for the user of the image.
type refusedKey struct{ error }

// Refused tells so to package keyprovider.
func (refusedKey) Refused() bool { return true }

func (r refusedKey) Unwrap() error { return r.error }

// key returns the key of an ID: one that came a moment ago, or from AIAS. Who gives up waiting does not disturb the others.
func (k *imageKeys) key(ctx context.Context, id string) ([]byte, error) {
	k.mu.Lock()
	o, ok := k.keys[id]
	k.mu.Unlock()
	if ok && k.now().Before(o.until) {
		return o.key, nil
	}
	done := k.flight.DoChan(id, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keyTime)
		defer cancel()
		return k.fetch(ctx, id)
	})
	select {
	case r := <-done:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.([]byte), nil //nolint:errcheck // fetch returns nothing else
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// keyTime bounds one question to AIAS with its attestation, whoever waits for it.
const keyTime = 2 * time.Minute

// fetch attests, asks AIAS, and opens its answer in the TPM.
func (k *imageKeys) fetch(ctx context.Context, id string) ([]byte, error) {
	s, report, err := k.fresh(ctx)
	if err != nil {
		return nil, err
	}
	for again := false; ; again = true {
		key, err := k.release(ctx, s, report, id)
		if err == nil {
			k.mu.Lock()
			defer k.mu.Unlock()
			if k.on == s && k.last.Err == nil {
				k.keys[id] = openKey{key, k.now().Add(burst)}
				k.tidy()
			}
			return key, nil
		}
		// The TPM's key is made for the state that PCRs had: one that was made before they moved is made anew, once.
		if again || !errors.Is(err, device.ErrStateChanged) && !unproven(err) {
			return nil, asRefusal(err)
		}
		k.mu.Lock()
		s.key = nil
		k.mu.Unlock()
	}
}

// tidy forgets keys whose time is over. The caller holds the lock.
func (k *imageKeys) tidy() {
	now := k.now()
	for id, o := range k.keys {
		if !now.Before(o.until) {
			delete(k.keys, id)
		}
	}
	if len(k.keys) > 1000 {
		clear(k.keys)
	}
}

func unproven(err error) bool {
	var r *Refusal
	return errors.As(err, &r) && r.Type == "urn:touchstone:problem:unproven-key"
}

// asRefusal marks what AIAS decided, so that its words reach who pulls the image.
func asRefusal(err error) error {
	var r *Refusal
	if errors.As(err, &r) && (r.Status == http.StatusForbidden || r.Status == http.StatusNotFound || r.Status == http.StatusBadRequest) {
		return refusedKey{err}
	}
	return err
}

// fresh waits for an attestation that began no longer ago than a burst; when there is none, the agent is asked for one.
func (k *imageKeys) fresh(ctx context.Context) (*keySession, Report, error) {
	since := k.now().Add(-burst)
	asked := false
	for {
		k.mu.Lock()
		s, r, next := k.on, k.last, k.next
		k.mu.Unlock()
		if s != nil && !r.Time.IsZero() && r.Time.After(since) {
			if r.Err == nil {
				return s, r, nil
			}
			if asked {
				return nil, r, fmt.Errorf("the worker cannot attest, and without that no image key is given: %w", r.Err)
			}
		}
		if !asked {
			asked, since = true, k.now().Add(-burst)
			k.ask()
		}
		select {
		case <-next:
		case <-ctx.Done():
			if s == nil {
				return nil, r, fmt.Errorf("the trust agent is not enrolled, or has no TPM: see `trust-agent status`: %w", ctx.Err())
			}
			return nil, r, fmt.Errorf("the worker has not attested in time: %w", ctx.Err())
		}
	}
}

// release asks AIAS for a key, after the attestation of a report.
func (k *imageKeys) release(ctx context.Context, s *keySession, r Report, id string) ([]byte, error) {
	own, err := k.own(s, r)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	link := s.link
	k.mu.Unlock()
	out, err := link.ReleaseKey(ctx, &protocol.ReleaseRequest{ID: id, Bank: own.Bank.String(), Public: own.Public, Certify: own.Certify, Signature: own.Signature})
	if err != nil {
		return nil, err
	}
	return imagekey.OpenSealed(own.Exchange, s.node, id, out.Sealed)
}

// own returns the TPM's key for image keys, made when it is first needed.
func (k *imageKeys) own(s *keySession, r Report) (*ImageKey, error) {
	k.mu.Lock()
	own := s.key
	k.mu.Unlock()
	if own != nil {
		return own, nil
	}
	banks, err := s.tpm.Banks()
	if err != nil {
		return nil, fmt.Errorf("%w: read its banks: %w", errTPM, err)
	}
	for _, bank := range keyBanks {
		i := slices.IndexFunc(r.Attestation.Next.Quote, func(q protocol.Selection) bool { return q.Bank == bank.String() })
		if i < 0 || !slices.Contains(banks, bank) {
			continue
		}
		pcrs, err := imagekey.BoundPCRs(tpm.PCRs(r.Attestation.Next.Quote[i].PCRs...))
		if err != nil {
			return nil, refusedKey{err}
		}
		if own, err = s.tpm.ImageKey(bank, pcrs, imagekey.Context(s.node)); err != nil {
			return nil, fmt.Errorf("%w: make a key for image keys: %w", errTPM, err)
		}
		k.mu.Lock()
		s.key = own
		k.mu.Unlock()
		return own, nil
	}
	return nil, refusedKey{errors.New("image keys are bound to PCRs of a bank of sha256 or longer: this TPM has none that AIAS quotes")}
}
