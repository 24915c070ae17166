package nbde

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"touchstone.dev/touchstone/internal/store"
)

// Errors of what operators ask for.
var (
	ErrNoNode  = errNoNode
	ErrRefused = errors.New("refused") // with the reason
)

// save writes a record with a step.
func (s *Service) save(ctx context.Context, r *Record, d *store.DiskStep) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	d.Node, d.Record = r.Node, b
	return s.o.Store.SaveDisk(ctx, d)
}

// seal makes a row of a key.
func (s *Service) seal(ctx context.Context, k *Key, node string, now time.Time) (store.DiskKey, error) {
	plain, err := k.Marshal()
	if err != nil {
		return store.DiskKey{}, err
	}
	sealed, err := s.o.Seal.Wrap(ctx, plain, aad(node, k.Thumbprint))
	return store.DiskKey{Thumbprint: k.Thumbprint, Node: node, Use: string(k.Use), Sealed: sealed, Created: now}, err
}

// newKey makes a key of a use.
func (s *Service) newKey(ctx context.Context, use Use) (*Key, error) {
	switch {
	case use == Sign:
		return NewSigner()
	case s.o.HSM != nil:
		return newHSMKey(ctx, s.o.HSM, s.o.Curve)
	}
	return NewKey(s.o.Curve)
}

// missing makes the keys that a ring still needs: one that signs, which all share, and one that recovers.
func (s *Service) missing(ctx context.Context, node string, now time.Time) ([]store.DiskKey, error) {
	s.mu.RLock()
	signs := advertised(s.keys[""], Sign)
	recovers := advertised(s.keys[node], Exchange)
	s.mu.RUnlock()
	var out []store.DiskKey
	for _, want := range []struct {
		have int
		use  Use
		node string
	}{{len(signs), Sign, ""}, {len(recovers), Exchange, node}} {
		if want.have > 0 {
			continue
		}
		k, err := s.newKey(ctx, want.use)
		if err != nil {
			return nil, err
		}
		row, err := s.seal(ctx, k, want.node, now)
		if err != nil {
			return nil, err
		}
		out = append(out, row)
	}
	return out, nil
}

// advertised returns thumbprints of keys of a use that are not rotated.
func advertised(keys []*stored, use Use) []string {
	var out []string
	for _, k := range keys {
		if k.Use == string(use) && k.Rotated.IsZero() {
			out = append(out, k.Thumbprint)
		}
	}
	return out
}

// Prepare makes the keys that all share when there are none: a server of them must have something to advertise.
func (s *Service) Prepare(ctx context.Context) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	now := s.o.Now()
	add, err := s.missing(ctx, "", now)
	if err != nil || len(add) == 0 || !s.o.Open {
		return err
	}
	if err := s.o.Store.SaveDisk(ctx, &store.DiskStep{Add: add, At: now}); err != nil {
		return fmt.Errorf("make the keys of disks: %w", err)
	}
	return s.refresh(ctx)
}

// Bind gives a node a policy, and keys when it has none. For a while afterwards clevis may try what it binds.
func (s *Service) Bind(ctx context.Context, node string, p Policy, act store.Act) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	if err := p.Validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	now := s.o.Now()
	n := s.node(node)
	if n == nil {
		n = &nodeState{record: Record{Node: node, Created: now}}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	add, err := s.missing(ctx, node, now)
	if err != nil {
		return err
	}
	next := n.record
	next.Policy, next.BindUntil = p, now.Add(defaultBinding)
	if err := s.save(ctx, &next, &store.DiskStep{At: now, Add: add, Act: &act}); err != nil {
		return err
	}
	n.record = next
	s.mu.Lock()
	s.nodes[node] = n
	s.mu.Unlock()
	return s.refresh(ctx)
}

// change writes a change of a node's record.
func (s *Service) change(ctx context.Context, node string, act store.Act, f func(r *Record, now time.Time) error) error {
	n := s.node(node)
	if n == nil {
		return errNoNode
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.gone {
		return errNoNode
	}
	next, now := n.record, s.o.Now()
	if err := f(&next, now); err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if err := s.save(ctx, &next, &store.DiskStep{At: now, Act: &act}); err != nil {
		return err
	}
	n.record = next
	return nil
}

// Revoke refuses every recovery of a node until Unrevoke. Windows and approvals end with it.
func (s *Service) Revoke(ctx context.Context, node, reason string, act store.Act) error {
	return s.change(ctx, node, act, func(r *Record, now time.Time) error {
		r.Revoked = &Revocation{At: now, By: act.Operator, Reason: reason}
		r.Maintenance, r.Approval, r.BindUntil = nil, nil, time.Time{}
		return nil
	})
}

// Unrevoke takes a revocation back.
func (s *Service) Unrevoke(ctx context.Context, node string, act store.Act) error {
	return s.change(ctx, node, act, func(r *Record, _ time.Time) error {
		if r.Revoked == nil {
			return errors.New("the disks of the node are not revoked")
		}
		r.Revoked = nil
		return nil
	})
}

// Approve lets one recovery through.
func (s *Service) Approve(ctx context.Context, node string, life time.Duration, a Approval, act store.Act) error {
	return s.change(ctx, node, act, func(r *Record, now time.Time) error {
		if life <= 0 || life > MaxApproval {
			return fmt.Errorf("an approval for %s: want up to %s", life, MaxApproval)
		}
		if r.Revoked != nil {
			return errors.New("the disks of the node are revoked: un-revoke them first")
		}
		a.At, a.Until, a.By = now, now.Add(life), act.Operator
		r.Approval = &a
		return nil
	})
}

// Maintain opens a window in which everything is let through, or ends it when the window is nil.
func (s *Service) Maintain(ctx context.Context, node string, w *Window, act store.Act) error {
	return s.change(ctx, node, act, func(r *Record, now time.Time) error {
		if r.Maintenance = w; w == nil {
			return nil
		}
		if w.From.IsZero() {
			w.From = now
		}
		if w.By = act.Operator; !w.Until.After(w.From) || !w.Until.After(now) || w.Until.Sub(w.From) > MaxWindow {
			return fmt.Errorf("a window from %s to %s: want it to end later than now, and at most %s long", stamp(w.From), stamp(w.Until), MaxWindow)
		}
		if r.Revoked != nil {
			return errors.New("the disks of the node are revoked: un-revoke them first")
		}
		return nil
	})
}

// Rotate gives a node a new exchange key. The old one recovers what is bound to it, and is not advertised any more.
func (s *Service) Rotate(ctx context.Context, node string, act store.Act) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	n := s.node(node)
	if n == nil {
		return errNoNode
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.gone {
		return errNoNode
	}
	now := s.o.Now()
	next := n.record
	next.BindUntil = now.Add(defaultBinding)
	d, err := s.rotation(ctx, node, Exchange, now, act)
	if err != nil {
		return err
	}
	if err := s.save(ctx, &next, d); err != nil {
		return err
	}
	n.record = next
	return s.refresh(ctx)
}

// RotateShared gives all a new signing key, or the open server a new exchange key.
func (s *Service) RotateShared(ctx context.Context, use Use, act store.Act) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	d, err := s.rotation(ctx, "", use, s.o.Now(), act)
	if err != nil {
		return err
	}
	if err := s.o.Store.SaveDisk(ctx, d); err != nil {
		return err
	}
	return s.refresh(ctx)
}

// rotation is the step from the keys that are advertised to a new one, in one transaction.
func (s *Service) rotation(ctx context.Context, node string, use Use, now time.Time, act store.Act) (*store.DiskStep, error) {
	k, err := s.newKey(ctx, use)
	if err != nil {
		return nil, err
	}
	row, err := s.seal(ctx, k, node, now)
	if err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return &store.DiskStep{At: now, Add: []store.DiskKey{row}, Rotate: advertised(s.keys[node], use), Act: &act}, nil
}

// Forget destroys the keys of a node: what is bound to them alone is lost for ever.
func (s *Service) Forget(ctx context.Context, node string, act store.Act) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	n := s.node(node)
	if n == nil {
		return errNoNode
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := s.o.Store.SaveDisk(ctx, &store.DiskStep{Node: node, Drop: true, At: s.o.Now(), Act: &act}); err != nil {
		return err
	}
	n.gone = true
	s.mu.Lock()
	keys := s.keys[node]
	delete(s.nodes, node)
	s.mu.Unlock()
	return errors.Join(s.refresh(ctx), s.destroy(ctx, keys))
}

// destroy destroys those of some keys that are in an HSM. That the store has them no more is no end: the HSM has them.
func (s *Service) destroy(ctx context.Context, keys []*stored) error {
	var errs []error
	for _, k := range keys {
		key, err := k.open(ctx, s.o.Seal, s.o.HSM)
		if err == nil && key.hsm != nil {
			err = key.hsm.Destroy(ctx, key.id)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("key %s is forgotten, and may still be in the HSM: destroy it there: %w", k.Thumbprint, err))
		}
	}
	return errors.Join(errs...)
}

// Import takes keys of a tangd over, as keys that all share. Those that are there already are left out. It returns how many it took.
func (s *Service) Import(ctx context.Context, keys []Held, act store.Act) (int, error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	now := s.o.Now()
	d := &store.DiskStep{At: now, Act: &act}
	s.mu.RLock()
	known := map[string]bool{}
	for _, all := range s.keys {
		for _, k := range all {
			known[k.Thumbprint] = true
		}
	}
	s.mu.RUnlock()
	for _, k := range keys {
		if known[k.Thumbprint] {
			continue
		}
		row, err := s.seal(ctx, k.Key, "", now)
		if err != nil {
			return 0, err
		}
		if row.Imported = true; k.Rotated {
			row.Rotated = now
		}
		d.Add = append(d.Add, row)
	}
	if len(d.Add) == 0 {
		return 0, nil
	}
	if err := s.o.Store.SaveDisk(ctx, d); err != nil {
		return 0, fmt.Errorf("keep the keys of tangd: %w", err)
	}
	return len(d.Add), s.refresh(ctx)
}
