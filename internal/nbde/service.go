package nbde

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"touchstone.dev/touchstone/internal/release"
	"touchstone.dev/touchstone/internal/store"
)

// Store is what a Service keeps its state in.
type Store interface {
	DiskKeys(ctx context.Context) ([]store.DiskKey, error)
	DiskNodes(ctx context.Context) (map[string][]byte, error)
	DiskUses(ctx context.Context) ([]store.DiskUse, error)
	SaveDisk(ctx context.Context, d *store.DiskStep) error
}

// Sealer seals private keys at rest; aad names the place, and must be the same to open them.
type Sealer interface {
	Wrap(ctx context.Context, plain, aad []byte) ([]byte, error)
	Unwrap(ctx context.Context, sealed, aad []byte) ([]byte, error)
}

// Event is a recovery that was released or refused.
type Event struct {
	At       time.Time
	Node     string // "" for keys that all share
	Key      string
	Source   string
	Released bool
	Reason   string // by what it was released, or why not
}

// Options are what Open needs.
type Options struct {
	Store Store
	Seal  Sealer
	// Standing is what is known of a node: its present verdict, or the last one, which may have expired.
	Standing func(ctx context.Context, node string, last bool) (release.Node, error)
	// Note keeps an Event in the ledger. What cannot be noted is not released.
	Note   func(ctx context.Context, e Event) error
	Open   bool  // answer for the keys that all share, without a gate
	Curve  Curve // of new exchange keys; "": DefaultCurve
	HSM    HSM   // where new exchange keys are made; nil: they are sealed in the store
	Limits Limits
	Now    func() time.Time
	Log    *slog.Logger
}

// Service is rings and records of all nodes, in memory and in the store.
type Service struct {
	o        Options
	changing sync.Mutex // held while keys are made, rotated or destroyed

	mu    sync.RWMutex
	keys  map[string][]*stored // by node; those of "" are shared
	rings map[string]*Ring     // as they were asked for
	nodes map[string]*nodeState
	limit *limiter
	turns uint64 // counts changes of keys: a ring that was made before one is not kept
}

// nodeState is a node's record. Whoever decides or changes holds mu.
type nodeState struct {
	mu     sync.Mutex
	record Record
	gone   bool
}

// Open reads what the store has. Keys stay sealed until somebody asks for them.
func Open(ctx context.Context, o Options) (*Service, error) {
	if o.Curve == "" {
		o.Curve = DefaultCurve
	}
	if err := o.Curve.Validate(); err != nil {
		return nil, err
	}
	s := &Service{o: o, limit: newLimiter(o.Limits)}
	return s, s.Reload(ctx)
}

// Reload reads keys and records again, as another process changed them: `aias disk import-tang` beside the service.
func (s *Service) Reload(ctx context.Context) error {
	rows, err := s.o.Store.DiskKeys(ctx)
	if err != nil {
		return fmt.Errorf("load the keys of disks: %w", err)
	}
	records, err := s.o.Store.DiskNodes(ctx)
	if err != nil {
		return fmt.Errorf("load the nodes with disks: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	nodes := make(map[string]*nodeState, len(records))
	for name, b := range records {
		r, err := parseRecord(b)
		if err != nil {
			return fmt.Errorf("disks of node %s: %w", name, err)
		}
		if nodes[name] = s.nodes[name]; nodes[name] == nil { // what is in memory is newer
			nodes[name] = &nodeState{record: *r}
		}
	}
	s.nodes = nodes
	s.setKeys(rows)
	return nil
}

// setKeys takes keys over, as the store has them. Those that are open stay open. The caller holds mu.
func (s *Service) setKeys(rows []store.DiskKey) {
	opened := map[string]*Key{}
	for _, all := range s.keys {
		for _, k := range all {
			if k.mu.TryLock() { // else somebody is about to open it, and may wait for an HSM
				opened[k.Node+"/"+k.Thumbprint] = k.key
				k.mu.Unlock()
			}
		}
	}
	s.keys, s.rings = map[string][]*stored{}, map[string]*Ring{}
	s.turns++
	for _, row := range rows {
		s.keys[row.Node] = append(s.keys[row.Node], &stored{DiskKey: row, key: opened[row.Node+"/"+row.Thumbprint]})
	}
}

// refresh reads the keys again after a change of ours.
func (s *Service) refresh(ctx context.Context) error {
	rows, err := s.o.Store.DiskKeys(ctx)
	if err != nil {
		return fmt.Errorf("load the keys of disks: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setKeys(rows)
	return nil
}

// stored is a key in the store, opened when it is needed first.
type stored struct {
	store.DiskKey
	mu  sync.Mutex
	key *Key
}

// aad binds a sealed key to its place.
func aad(node, thumbprint string) []byte { return []byte("nbde/key/" + node + "/" + thumbprint) }

func (k *stored) open(ctx context.Context, seal Sealer, h HSM) (*Key, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.key != nil {
		return k.key, nil
	}
	plain, err := seal.Unwrap(ctx, k.Sealed, aad(k.Node, k.Thumbprint))
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", k.Thumbprint, err)
	}
	if h == nil {
		h = absent{}
	}
	key, err := parseKey(plain, h)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", k.Thumbprint, err)
	}
	if key.Thumbprint != k.Thumbprint || string(key.Use) != k.Use {
		return nil, fmt.Errorf("key %s: the sealed key is another one", k.Thumbprint)
	}
	k.key = key
	return key, nil
}

// Ring returns the keys of a node, or those that all share; nil when there are none, or they are not served. Signing keys are the same for all.
func (s *Service) Ring(ctx context.Context, node string) (*Ring, error) {
	ring, err := s.ring(ctx, node)
	if err == nil {
		return ring, nil
	}
	// The key-encryption key may have been rotated, and the old one be gone: the store has the keys as they are sealed now.
	if refreshed := s.refresh(ctx); refreshed != nil {
		return nil, errors.Join(err, refreshed)
	}
	return s.ring(ctx, node)
}

func (s *Service) ring(ctx context.Context, node string) (*Ring, error) {
	s.mu.RLock()
	ring, turn := s.rings[node], s.turns
	known := node == "" && s.o.Open || s.nodes[node] != nil
	var all []*stored
	for _, k := range s.keys[""] {
		if node == "" || k.Use == string(Sign) {
			all = append(all, k)
		}
	}
	if node != "" {
		all = append(all, s.keys[node]...)
	}
	s.mu.RUnlock()
	if ring != nil || !known {
		return ring, nil
	}
	held := make([]Held, 0, len(all))
	for _, k := range all {
		key, err := k.open(ctx, s.o.Seal, s.o.HSM)
		if err != nil {
			return nil, err
		}
		held = append(held, Held{key, !k.Rotated.IsZero() || key.lost()})
	}
	ring, err := NewRing(held)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.turns == turn {
		s.rings[node] = ring
	}
	return ring, nil
}

// node returns the state of a node, nil when it has no disks.
func (s *Service) node(name string) *nodeState {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.nodes[name]
}

// Gate decides a recovery, and writes it down before it is answered.
func (s *Service) Gate(ctx context.Context, a Ask) error {
	now := s.o.Now()
	if !s.limit.allow(a.Node, a.Source, now) {
		return ErrBusy
	}
	e := Event{At: now, Node: a.Node, Key: a.Key.Thumbprint, Source: a.Source.String()}
	use := &store.DiskUse{Thumbprint: a.Key.Thumbprint, Client: a.Node, Last: now}
	if a.Node == "" {
		use.Client, e.Reason, e.Released = e.Source, string(GrantOpen), true
		if err := s.o.Store.SaveDisk(ctx, &store.DiskStep{At: now, Use: use}); err != nil {
			return s.away(e, err)
		}
		return s.note(ctx, e)
	}
	n := s.node(a.Node)
	if n == nil {
		return fmt.Errorf("%w: no disks of node %s", ErrDenied, a.Node)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.gone {
		return fmt.Errorf("%w: the disks of node %s were forgotten", ErrDenied, a.Node)
	}
	standing, err := s.o.Standing(ctx, a.Node, n.record.Policy.Mode == ModeNode)
	if err != nil {
		return s.away(e, err)
	}
	grant, missing := Decide(&n.record, standing, a.Source, now)
	if e.Reason, e.Released = string(grant), len(missing) == 0; !e.Released {
		e.Reason = reasons(missing)
		s.refused(n, e, a)
		if err := s.o.Note(ctx, e); err != nil {
			s.o.Log.Error("the refusal of a disk key could not be written into the ledger", "node", a.Node, "err", err)
		}
		return fmt.Errorf("%w: %s", ErrDenied, e.Reason)
	}
	next := n.record
	next.used(grant)
	next.Last = &Last{At: now, Released: true, Reason: e.Reason, Source: a.Source, Key: e.Key}
	if err := s.save(ctx, &next, &store.DiskStep{At: now, Use: use}); err != nil {
		return s.away(e, err)
	}
	n.record = next
	return s.note(ctx, e)
}

// refused takes note of a refusal. A client repeats it every half second: the log has it when the reason is another one, or a minute has gone.
func (s *Service) refused(n *nodeState, e Event, a Ask) {
	last := n.record.Last
	if last == nil || last.Released || last.Reason != e.Reason || e.At.Sub(last.At) > time.Minute {
		s.o.Log.Warn("disk key refused", "node", e.Node, "kid", e.Key, "from", e.Source, "reason", e.Reason)
		n.record.Last = &Last{At: e.At, Reason: e.Reason, Source: a.Source, Key: e.Key}
	}
}

// note writes a release into the ledger.
func (s *Service) note(ctx context.Context, e Event) error {
	if err := s.o.Note(ctx, e); err != nil {
		return s.away(e, err)
	}
	s.o.Log.Info("disk key released", "node", e.Node, "kid", e.Key, "from", e.Source, "by", e.Reason)
	return nil
}

// Failed takes a release back that came to nothing, as the key could not be used: clevis asks again, and an HSM that is away for a minute must not use
// up the recoveries of a boot. An approval stays used up.
func (s *Service) Failed(ctx context.Context, a Ask, why error) {
	e := Event{At: s.o.Now(), Node: a.Node, Key: a.Key.Thumbprint, Source: a.Source.String(), Reason: "the key cannot be used now: " + why.Error()}
	if n := s.node(a.Node); n != nil {
		n.mu.Lock()
		defer n.mu.Unlock()
		next := n.record
		if last := next.Last; !n.gone && last != nil && last.Released && last.Reason == string(GrantLease) && next.Session.Used > 0 {
			next.Session.Used--
		}
		next.Last = &Last{At: e.At, Reason: e.Reason, Source: a.Source, Key: e.Key}
		if err := s.save(ctx, &next, &store.DiskStep{At: e.At}); err != nil && !n.gone {
			s.o.Log.Error("a disk key that was not given counts as given", "node", a.Node, "err", err)
		} else {
			n.record = next
		}
	}
	if err := s.o.Note(ctx, e); err != nil {
		s.o.Log.Error("that a disk key was not given could not be written into the ledger", "node", a.Node, "err", err)
	}
}

func (s *Service) away(e Event, err error) error {
	s.o.Log.Error("disk key not released: it cannot be decided or written down", "node", e.Node, "kid", e.Key, "from", e.Source, "err", err)
	return fmt.Errorf("%w: %w", ErrAway, err)
}

// errNoNode says that a node has no disks.
var errNoNode = errors.New("the node has no disks here")
