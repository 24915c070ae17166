// Package escrow keeps recovery passphrases of disks for the day when nothing else opens them, and gives one out only when two operators want it.
//
// A passphrase is sealed at rest, bound to its node and volume. One operator requests it with a reason, another one confirms, and the first one
// takes it, once. Each step is written down before it counts; a passphrase that cannot be written down as given out is not given out. Who has
// taken one knows it from then on: the state says so until another passphrase is deposited.
//
// It tells operators apart by the names in their certificates: that two names are two people, whoever makes the certificates sees to.
package escrow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	"touchstone.dev/touchstone/internal/store"
)

// Limits.
const (
	MaxPassphrase = 8 << 10 // bytes; LUKS takes 512 of a typed one, and 8 KiB of a key file
	MaxReason     = 500
	requestLife   = time.Hour // from request to taking
)

// Errors of what operators ask for; ErrRefused comes with the reason.
var (
	ErrNone    = errors.New("there is no passphrase of this volume here")
	ErrRefused = errors.New("refused")
)

// Store is what a Service keeps its state in.
type Store interface {
	Escrows(ctx context.Context) ([]store.Escrow, error)
	Escrow(ctx context.Context, node, volume string) (*store.Escrow, error)
	PutEscrow(ctx context.Context, e store.Escrow, act store.Act) error
	SetEscrow(ctx context.Context, e store.Escrow, act store.Act) error // its state alone: it may be sealed anew at the same moment
	DeleteEscrow(ctx context.Context, node, volume string, act store.Act) error
}

// Sealer seals passphrases at rest; aad names the place, and must be the same to open them.
type Sealer interface {
	Wrap(ctx context.Context, plain, aad []byte) ([]byte, error)
	Unwrap(ctx context.Context, sealed, aad []byte) ([]byte, error)
}

// Service keeps passphrases.
type Service struct {
	Store Store
	Seal  Sealer
	// Note writes into the ledger that an operator was given a passphrase.
	Note func(ctx context.Context, s State) error
	Now  func() time.Time

	mu    sync.Mutex // held over each change: they are rare
	index index
}

// Request is an operator's wish for a passphrase.
type Request struct {
	By        string    `json:"by"`
	Reason    string    `json:"reason"`
	At        time.Time `json:"at"`
	Until     time.Time `json:"until"`
	Confirmed string    `json:"confirmed,omitempty"` // by whom
}

// State is what is known of a deposited passphrase. All but Node and Volume is kept as JSON.
type State struct {
	Node      string    `json:"-"`
	Volume    string    `json:"-"`
	Deposited time.Time `json:"deposited"`
	By        string    `json:"by"`
	Request   *Request  `json:"request,omitempty"`
	// Taken is when an operator was given it last, TakenBy who, with whose confirmation.
	Taken   time.Time `json:"taken,omitzero"`
	TakenBy string    `json:"takenBy,omitempty"`
}

var volumeName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$`)

func aad(node, volume string) []byte { return []byte("nbde/escrow/" + node + "/" + volume) }

// Deposit keeps a passphrase; it takes the place of the one before. The caller has checked the name of the node.
func (s *Service) Deposit(ctx context.Context, node, volume string, passphrase []byte, act store.Act) error {
	if !volumeName.MatchString(volume) {
		return fmt.Errorf("%w: volume %.70q: want 1 to 64 letters, digits, '.', '_' and '-', such as the UUID of the LUKS volume", ErrRefused, volume)
	}
	if len(passphrase) == 0 || len(passphrase) > MaxPassphrase {
		return fmt.Errorf("%w: a passphrase of %d bytes: want 1 to %d", ErrRefused, len(passphrase), MaxPassphrase)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sealed, err := s.Seal.Wrap(ctx, passphrase, aad(node, volume))
	if err != nil {
		return err
	}
	b, err := json.Marshal(State{Deposited: s.Now(), By: act.Operator})
	if err != nil {
		return err
	}
	defer s.index.forget()
	return s.Store.PutEscrow(ctx, store.Escrow{Node: node, Volume: volume, Sealed: sealed, State: b}, act)
}

func (s *Service) set(ctx context.Context, st *State, act store.Act) error {
	b, err := json.Marshal(st)
	if err != nil {
		return err
	}
	return s.Store.SetEscrow(ctx, store.Escrow{Node: st.Node, Volume: st.Volume, State: b}, act)
}

// state reads what the store has.
func (s *Service) state(ctx context.Context, node, volume string) (*State, []byte, error) {
	e, err := s.Store.Escrow(ctx, node, volume)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil, ErrNone
	}
	if err != nil {
		return nil, nil, err
	}
	st, err := parse(e)
	return st, e.Sealed, err
}

func parse(e *store.Escrow) (*State, error) {
	st := &State{}
	if err := json.Unmarshal(e.State, st); err != nil {
		return nil, fmt.Errorf("passphrase of %s of %s: %w", e.Volume, e.Node, err)
	}
	st.Node, st.Volume = e.Node, e.Volume
	return st, nil
}

// change reads, changes and writes a state.
func (s *Service) change(ctx context.Context, node, volume string, act store.Act, f func(st *State, now time.Time) error) (*State, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, _, err := s.state(ctx, node, volume)
	if err != nil {
		return nil, err
	}
	if err := f(st, s.Now()); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return st, s.set(ctx, st, act)
}

// pending returns the request that still counts, nil when there is none.
func (st *State) pending(now time.Time) *Request {
	if st.Request == nil || !now.Before(st.Request.Until) {
		return nil
	}
	return st.Request
}

// Ask requests the passphrase for the operator of act.
func (s *Service) Ask(ctx context.Context, node, volume, reason string, act store.Act) (*State, error) {
	return s.change(ctx, node, volume, act, func(st *State, now time.Time) error {
		if r := st.pending(now); r != nil && r.By != act.Operator {
			return fmt.Errorf("%s has requested it already: confirm that, or wait until %s", r.By, r.Until.UTC().Format(time.RFC3339))
		}
		if strings.TrimSpace(reason) == "" || len(reason) > MaxReason {
			return fmt.Errorf("want a reason, of at most %d bytes: who confirms must know what for", MaxReason)
		}
		st.Request = &Request{By: act.Operator, Reason: reason, At: now, Until: now.Add(requestLife)}
		return nil
	})
}

// Confirm says that the operator of act agrees to a request. It must be another one's.
func (s *Service) Confirm(ctx context.Context, node, volume string, act store.Act) (*State, error) {
	return s.change(ctx, node, volume, act, func(st *State, now time.Time) error {
		switch r := st.pending(now); {
		case r == nil:
			return errors.New("nobody has requested it, or not within the last hour")
		case r.By == act.Operator:
			return errors.New("who requests it cannot confirm it: another operator must")
		default:
			r.Confirmed = act.Operator
		}
		return nil
	})
}

// Cancel drops a request.
func (s *Service) Cancel(ctx context.Context, node, volume string, act store.Act) (*State, error) {
	return s.change(ctx, node, volume, act, func(st *State, _ time.Time) error {
		st.Request = nil
		return nil
	})
}

// Take gives the passphrase to the operator who requested it, once, when another one has confirmed.
func (s *Service) Take(ctx context.Context, node, volume string, act store.Act) ([]byte, *State, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, sealed, err := s.state(ctx, node, volume)
	if err != nil {
		return nil, nil, err
	}
	now := s.Now()
	switch r := st.pending(now); {
	case r == nil:
		err = errors.New("request it first, with a reason")
	case r.By != act.Operator:
		err = fmt.Errorf("%s has requested it, and only that one can take it", r.By)
	case r.Confirmed == "" || r.Confirmed == r.By:
		err = errors.New("another operator must confirm it first")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	plain, err := s.Seal.Unwrap(ctx, sealed, aad(node, volume))
	if err != nil {
		return nil, nil, err
	}
	taken := *st
	taken.Request, taken.Taken, taken.TakenBy = nil, now, act.Operator+", confirmed by "+st.Request.Confirmed
	if err := s.set(ctx, &taken, act); err != nil {
		return nil, nil, err
	}
	if err := s.Note(ctx, taken); err != nil {
		return nil, nil, err
	}
	return plain, &taken, nil
}

// Remove forgets a passphrase.
func (s *Service) Remove(ctx context.Context, node, volume string, act store.Act) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.index.forget()
	err := s.Store.DeleteEscrow(ctx, node, volume, act)
	if errors.Is(err, store.ErrNotFound) {
		return ErrNone
	}
	return err
}

// List returns all states, by node and volume.
func (s *Service) List(ctx context.Context) ([]State, error) {
	rows, err := s.Store.Escrows(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]State, len(rows))
	for i := range rows {
		st, err := parse(&rows[i])
		if err != nil {
			return nil, err
		}
		if out[i] = *st; st.pending(s.Now()) == nil {
			out[i].Request = nil
		}
	}
	return out, nil
}
