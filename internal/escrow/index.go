package escrow

import (
	"context"
	"strings"
	"sync"
)

// index is which volumes of a node have a passphrase here, as it is asked at every attestation.
type index struct {
	mu     sync.Mutex
	byNode map[string]map[string]bool // nil: to be read
}

func (x *index) forget() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.byNode = nil
}

// Volumes are the volumes of a node of which a passphrase is kept, in small letters. They must not be changed.
func (s *Service) Volumes(ctx context.Context, node string) (map[string]bool, error) {
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	if s.index.byNode == nil {
		all, err := s.Store.Escrows(ctx)
		if err != nil {
			return nil, err
		}
		s.index.byNode = map[string]map[string]bool{}
		for _, e := range all {
			if s.index.byNode[e.Node] == nil {
				s.index.byNode[e.Node] = map[string]bool{}
			}
			s.index.byNode[e.Node][strings.ToLower(e.Volume)] = true
		}
	}
	return s.index.byNode[node], nil
}
