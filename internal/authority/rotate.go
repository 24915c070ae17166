package authority

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"touchstone.dev/touchstone/internal/keystore"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/store"
)

const (
	resealBatch = 256 // secrets that are sealed anew in one transaction

	// settleTime is how long after a rotation the older keys stay: a request that sealed something before may still be on its way to the store.
	settleTime = 2 * handleTime
)

// each goes through all sealed secrets.
func (v *vault) each(ctx context.Context, f func([]store.Sealed) error) error {
	for place, key := "", ""; ; {
		batch, err := v.store.SealedAfter(ctx, place, key, resealBatch)
		if err != nil || len(batch) == 0 {
			return err
		}
		if err := f(batch); err != nil {
			return err
		}
		last := batch[len(batch)-1]
		place, key = last.Place, last.Key
	}
}

// reseal brings all secrets under the current key-encryption key. It can be stopped at any point, and goes on when it is called again.
func (v *vault) reseal(ctx context.Context, progress func(int)) (resealed int, err error) {
	for found := 1; found > 0; { // until a whole pass finds none: others may have written meanwhile
		found = 0
		err := v.each(ctx, func(batch []store.Sealed) error {
			var old []store.Sealed
			var data [][]byte
			for _, s := range batch {
				fresh, err := v.ring.Rewrap(ctx, s.Data, []byte(s.AAD))
				if err != nil {
					return fmt.Errorf("%s, %s: %w", s.Place, s.Key, err)
				}
				if fresh != nil {
					old, data = append(old, s), append(data, fresh)
				}
			}
			if len(old) == 0 {
				return nil
			}
			found += len(old)
			n, err := v.store.Reseal(ctx, old, data)
			resealed += n
			if progress != nil {
				progress(resealed)
			}
			return err
		})
		if err != nil {
			return resealed, fmt.Errorf("seal the secrets anew: %w", err)
		}
	}
	return resealed, nil
}

// rotate makes a new key-encryption key and brings all secrets under it. A rotation that was stopped before its end is only brought to it.
func (v *vault) rotate(ctx context.Context, progress func(int)) (*protocol.KeyRotation, error) {
	out := &protocol.KeyRotation{}
	for _, k := range v.ring.Keys() {
		if !k.Current {
			out.From = append(out.From, k.ID)
		}
	}
	if out.Resumed = len(out.From) > 0 && !v.ring.Moving(); !out.Resumed {
		out.From = append(out.From, v.ring.ID())
		if _, err := v.ring.Rotate(ctx); err != nil {
			return nil, err
		}
	}
	out.To = v.ring.ID()
	var err error
	out.Resealed, err = v.reseal(ctx, progress)
	return out, err
}

// list tells the key-encryption keys, and how many secrets each has sealed.
func (v *vault) list(ctx context.Context) (*protocol.KeyList, error) {
	count := map[string]int{}
	err := v.each(ctx, func(batch []store.Sealed) error {
		for _, s := range batch {
			id, err := keystore.SealedBy(s.Data)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", s.Place, s.Key, err)
			}
			count[id]++
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	out := &protocol.KeyList{Moving: v.ring.Moving()}
	for _, k := range v.ring.Keys() {
		out.Keys = append(out.Keys, protocol.KeyInfo{ID: k.ID, Kind: k.Kind, Created: k.Created, Current: k.Current, Missing: k.Missing, Secrets: count[k.ID]})
	}
	return out, nil
}

// ListKeys tells the key-encryption keys of AIAS.
func (a *Authority) ListKeys(ctx context.Context) (*protocol.KeyList, error) {
	return a.vault.list(ctx)
}

// RotateKeys replaces the key-encryption key while no service runs, and destroys the older ones.
func (a *Authority) RotateKeys(ctx context.Context, operator string, progress func(int)) (*protocol.KeyRotation, error) {
	out, err := a.rotateKeys(ctx, operator, progress)
	if err != nil {
		return nil, err
	}
	return out, a.secrets.Retire(ctx)
}

func (a *Authority) rotateKeys(ctx context.Context, operator string, progress func(int)) (*protocol.KeyRotation, error) {
	a.rotating.Lock()
	defer a.rotating.Unlock()
	out, err := a.vault.rotate(ctx, progress)
	if err != nil {
		return nil, err
	}
	act := store.Act{At: a.now(), Operator: operator, Act: "keys.rotate", Object: out.To, Detail: fmt.Sprintf("%d secrets, from %v", out.Resealed, out.From)}
	a.log.Info("key-encryption key rotated", "to", out.To, "from", out.From, "secrets", out.Resealed, "operator", operator)
	return out, a.store.PutSettings(ctx, nil, &act)
}

// keysLoop ends rotations: also one that was under way when AIAS stopped.
func (a *Authority) keysLoop(ctx context.Context) {
	if a.secrets.Moving() {
		a.log.Warn("the configuration names a new place for the key-encryption key: aias keys rotate, or touchstone keys rotate, moves the secrets there", "now", a.secrets.ID())
	}
	for {
		if len(a.secrets.Keys()) > 1 {
			a.settleKeys(ctx, settleTime)
		}
		select {
		case <-ctx.Done():
			return
		case <-a.rotated:
		}
	}
}

// settleKeys destroys the older keys after a while, when nothing is under them any more.
func (a *Authority) settleKeys(ctx context.Context, after time.Duration) {
	select {
	case <-ctx.Done():
		return
	case <-time.After(after):
	}
	a.rotating.Lock()
	defer a.rotating.Unlock()
	_, err := a.vault.reseal(ctx, nil)
	if err == nil {
		err = a.secrets.Retire(ctx)
	}
	if err != nil {
		if ctx.Err() == nil {
			a.log.Error("the rotation of the key-encryption key is not ended: keep the older keys, and rotate again", "err", err)
		}
		return
	}
	a.log.Info("the older key-encryption keys are not needed any more; keys.older can go from the configuration", "now", a.secrets.ID())
}

func (a *Authority) getKeys(w http.ResponseWriter, r *http.Request, _ identity) error {
	out, err := a.ListKeys(r.Context())
	if err != nil {
		return err
	}
	return answer(w, out)
}

func (a *Authority) postKeysRotate(w http.ResponseWriter, r *http.Request, id identity) error {
	out, err := a.rotateKeys(context.WithoutCancel(r.Context()), id.name, nil) // a rotation that began is not given up with the connection
	if err != nil {
		a.log.Error("rotation of the key-encryption key", "err", err)
		return refuse(http.StatusConflict, "rotation", "the key-encryption key is not rotated, or not all secrets are under the new one yet", err.Error(),
			"nothing is lost: see to the cause, and rotate again")
	}
	select {
	case a.rotated <- struct{}{}:
	default:
	}
	return answer(w, out)
}
